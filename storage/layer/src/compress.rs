//! Compression on the way out: two digests and two lengths from one pass, on two threads.
//!
//! ```text
//! calling thread                       thread "layer-compress"
//! bytes -> SHA-256 (diff ID)  ---->    compress -> SHA-256 (digest) -> sink
//!              ^------- empty buffers -------'
//! ```
//! The same bytes, format and level give the same output: no time, name or system stands in the header, and one thread
//! compresses one layer (several layers go side by side).
//!
//! Not here: what the bytes are (`pack`, [`crate::recompress`]).

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Builder;

use flate2::write::GzEncoder;
use storage_model::{Compression, DiffId, Digest, Hasher};

use crate::PackError;

/// What was packed: both digests, both lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// Digest of the compressed bytes: the blob's.
    pub digest: Digest,
    /// How many these are.
    pub size: u64,
    /// Digest of the uncompressed bytes.
    pub diff_id: DiffId,
    /// How many these are.
    pub uncompressed_bytes: u64,
    /// Entries of the tar, whiteouts included; `None` after [`crate::recompress`], which does not look at them.
    pub entries: Option<u64>,
}

/// Bytes of a buffer between the threads.
const BUFFER_BYTES: usize = 256 * 1024;
/// Buffers between the threads: 1 MiB lets reading go on while the sink is slow for a moment.
const BUFFERS: usize = 4;

/// The level used when none is asked for: what `gzip` and `zstd` do unasked.
fn level(compression: Compression, asked: Option<i32>) -> Result<i32, PackError> {
    let (range, default) = match compression {
        Compression::None => return Ok(0),
        Compression::Gzip => (0..=9, 6),
        Compression::Zstd => (1..=22, 3),
    };
    let level = asked.unwrap_or(default);
    if range.contains(&level) {
        return Ok(level);
    }
    Err(PackError::Level { compression, level, least: *range.start(), most: *range.end() })
}

/// Runs `work` with a writer whose bytes end compressed in `sink`.
///
/// # Errors
/// [`PackError::Level`] before anything is done, [`PackError::Sink`], and those of `work`. The sink keeps what it got.
pub(crate) fn compressed<W: Write + Send>(
    sink: W,
    compression: Compression,
    asked: Option<i32>,
    work: impl FnOnce(&mut Feeder) -> Result<Option<u64>, PackError>,
) -> Result<Packed, PackError> {
    let level = level(compression, asked)?;
    std::thread::scope(|scope| {
        let (full, arriving) = sync_channel::<Vec<u8>>(BUFFERS);
        let (give_back, empty) = sync_channel(BUFFERS + 2);
        let compressor = Builder::new()
            .name("layer-compress".into())
            .spawn_scoped(scope, move || compress(sink, compression, level, &arriving, &give_back));
        let compressor = compressor.map_err(PackError::Thread)?;
        let mut feeder =
            Feeder { hasher: Hasher::new(), buffer: Vec::with_capacity(BUFFER_BYTES), full, empty };
        let worked = work(&mut feeder).and_then(|entries| {
            feeder.send().map_err(PackError::Sink)?;
            Ok(entries)
        });
        let Feeder { hasher, full, .. } = feeder;
        drop(full);
        let compressed = compressor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // A sink that failed ends the work with a broken pipe: its own error is the cause.
        let (size, digest) = compressed.map_err(PackError::Sink)?;
        let entries = worked?;
        let uncompressed_bytes = hasher.bytes();
        Ok(Packed { digest, size, diff_id: DiffId(hasher.finish()), uncompressed_bytes, entries })
    })
}

/// Takes uncompressed bytes, hashes them and passes them on.
pub(crate) struct Feeder {
    hasher: Hasher,
    buffer: Vec<u8>,
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
}

impl Feeder {
    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let next = self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(BUFFER_BYTES));
        let buffer = std::mem::replace(&mut self.buffer, next);
        self.hasher.update(&buffer);
        self.full.send(buffer).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Feeder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let take = bytes.len().min(BUFFER_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..take]);
        if self.buffer.len() == BUFFER_BYTES {
            self.send()?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hashes what is written to the sink.
struct Hashing<W> {
    sink: W,
    hasher: Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.sink.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

enum Encoder<W: Write> {
    Plain(Hashing<W>),
    Gzip(GzEncoder<Hashing<W>>),
    Zstd(zstd::stream::write::Encoder<'static, Hashing<W>>),
}

impl<W: Write> Encoder<W> {
    fn new(sink: Hashing<W>, compression: Compression, level: i32) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::Plain(sink),
            Compression::Gzip => {
                let level = flate2::Compression::new(u32::try_from(level).unwrap_or(6));
                Self::Gzip(GzEncoder::new(sink, level))
            }
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(sink, level)?;
                encoder.include_checksum(true)?;
                Self::Zstd(encoder)
            }
        })
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(encoder) => encoder.write_all(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<Hashing<W>> {
        match self {
            Self::Plain(encoder) => Ok(encoder),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

fn compress<W: Write>(
    sink: W,
    compression: Compression,
    level: i32,
    arriving: &Receiver<Vec<u8>>,
    give_back: &SyncSender<Vec<u8>>,
) -> io::Result<(u64, Digest)> {
    let mut encoder = Encoder::new(Hashing { sink, hasher: Hasher::new() }, compression, level)?;
    for mut buffer in arriving {
        encoder.write_all(&buffer)?;
        buffer.clear();
        // The feeder makes another if this one does not come back.
        let _ = give_back.try_send(buffer);
    }
    let mut done = encoder.finish()?;
    done.flush()?;
    Ok((done.hasher.bytes(), done.hasher.finish()))
}
