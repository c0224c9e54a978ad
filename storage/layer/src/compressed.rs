//! Decompression of a stream, in this process, within limits.
//!
//! gzip: any number of members, nothing else after them. zstd: any number of frames and skippable frames, windows up
//! to 128 MiB. Both check their own checksums. No other program is ever started (containerd takes `unpigz` from PATH).

use std::io::{self, BufRead, BufReader, Read};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use flate2::bufread::MultiGzDecoder;
use storage_model::Compression;

use crate::{LayerError, Limits};

/// Bytes asked of the source at once.
const INPUT_BYTES: usize = 128 * 1024;

/// Counts what passes, and keeps the source's own error apart from the decoders'.
struct Source<R> {
    inner: R,
    shared: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    bytes: u64,
    waited: Duration,
    error: Option<io::Error>,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let start = Instant::now();
        let read = loop {
            match self.inner.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let mut seen = self.shared.lock().expect("no one panics with the lock");
        seen.waited += start.elapsed();
        match read {
            Ok(bytes) => {
                seen.bytes += bytes as u64;
                Ok(bytes)
            }
            Err(error) => {
                let kind = error.kind();
                seen.error = Some(error);
                Err(kind.into())
            }
        }
    }
}

enum Decoder<R: Read> {
    Plain(Source<R>),
    Gzip(Box<MultiGzDecoder<BufReader<Source<R>>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<Source<R>>>>),
}

/// A layer's uncompressed bytes.
pub struct Decompressor<R: Read> {
    decoder: Decoder<R>,
    compression: Compression,
    limits: Limits,
    shared: Arc<Mutex<Seen>>,
    uncompressed_bytes: u64,
}

impl<R: Read> std::fmt::Debug for Decompressor<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decompressor")
            .field("compression", &self.compression)
            .field("uncompressed_bytes", &self.uncompressed_bytes)
            .finish_non_exhaustive()
    }
}

impl<R: Read> Decompressor<R> {
    /// A decompressor at the start of `source`.
    ///
    /// # Errors
    /// [`LayerError::Source`] or [`LayerError::Decompress`] if not even a start can be made.
    pub fn new(source: R, compression: Compression, limits: &Limits) -> Result<Self, LayerError> {
        let shared = Arc::new(Mutex::new(Seen::default()));
        let source = Source { inner: source, shared: Arc::clone(&shared) };
        let failed = |source| LayerError::Decompress { compression, uncompressed_bytes: 0, source };
        let decoder = match compression {
            Compression::None => Decoder::Plain(source),
            Compression::Gzip => {
                let input = BufReader::with_capacity(INPUT_BYTES, source);
                Decoder::Gzip(Box::new(MultiGzDecoder::new(input)))
            }
            Compression::Zstd => {
                let input = BufReader::with_capacity(INPUT_BYTES, source);
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(failed)?;
                decoder.window_log_max(Limits::ZSTD_WINDOW_LOG_MAX).map_err(failed)?;
                Decoder::Zstd(Box::new(decoder))
            }
        };
        Ok(Self { decoder, compression, limits: *limits, shared, uncompressed_bytes: 0 })
    }

    /// Fills `buffer` as far as there are bytes; less than its length only at the end.
    ///
    /// # Errors
    /// [`LayerError::Source`], [`LayerError::Decompress`], [`LayerError::TooLarge`], [`LayerError::Bomb`].
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let read = match &mut self.decoder {
                Decoder::Plain(decoder) => decoder.read(&mut buffer[filled..]),
                Decoder::Gzip(decoder) => decoder.read(&mut buffer[filled..]),
                Decoder::Zstd(decoder) => decoder.read(&mut buffer[filled..]),
            };
            match read {
                Ok(0) => {
                    self.at_end()?;
                    break;
                }
                Ok(bytes) => filled += bytes,
                Err(error) => return Err(self.failed(error)),
            }
        }
        self.uncompressed_bytes += filled as u64;
        self.check_limits()?;
        Ok(filled)
    }

    /// Bytes that came out so far.
    pub fn uncompressed_bytes(&self) -> u64 {
        self.uncompressed_bytes
    }

    /// Bytes read from the source so far.
    pub fn compressed_bytes(&self) -> u64 {
        self.seen().bytes
    }

    /// How long the source kept us waiting.
    pub fn waited(&self) -> Duration {
        self.seen().waited
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.shared.lock().expect("no one panics with the lock")
    }

    fn failed(&self, error: io::Error) -> LayerError {
        match self.seen().error.take() {
            Some(error) => LayerError::Source(error),
            None => LayerError::Decompress {
                compression: self.compression,
                uncompressed_bytes: self.uncompressed_bytes,
                source: error,
            },
        }
    }

    /// The decoder says it is done: so must be the source.
    fn at_end(&mut self) -> Result<(), LayerError> {
        let left = match &mut self.decoder {
            Decoder::Plain(_) => return Ok(()),
            Decoder::Gzip(decoder) => decoder.get_mut().fill_buf().map(<[u8]>::len),
            Decoder::Zstd(decoder) => decoder.get_mut().fill_buf().map(<[u8]>::len),
        };
        match left {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.failed(io::Error::new(io::ErrorKind::InvalidData, "bytes follow its end"))),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn check_limits(&self) -> Result<(), LayerError> {
        let Limits { uncompressed_bytes_max: limit_bytes, ratio_max, ratio_free_bytes, .. } = self.limits;
        let uncompressed_bytes = self.uncompressed_bytes;
        if uncompressed_bytes > limit_bytes {
            return Err(LayerError::TooLarge { limit_bytes });
        }
        let compressed_bytes = self.compressed_bytes();
        if uncompressed_bytes > ratio_free_bytes && uncompressed_bytes / ratio_max > compressed_bytes {
            return Err(LayerError::Bomb { compressed_bytes, uncompressed_bytes, ratio_max });
        }
        Ok(())
    }
}
