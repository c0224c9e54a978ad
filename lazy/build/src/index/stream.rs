//! A decompressed stream that notes where it can be entered again.

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use storage_layer::{LayerError, Limits};
use storage_model::{Compression, Digest, Hasher};
use storage_sys::inflate::{Inflater, Stop, WINDOW_BYTES_MAX, Wrapping};
use zstd::stream::raw::{DParameter, Decoder as Zstd, InBuffer, Operation as _, OutBuffer};

use crate::BuildError;

/// Bytes decompressed at once.
const FRESH_BYTES: usize = 256 * 1024;
/// Bytes asked of the source at once.
const INPUT_BYTES: usize = 128 * 1024;

/// Where decoding can begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Bytes of the tar before it.
    pub(crate) output: u64,
    /// Bytes of the blob before it; after a block that ends inside a byte, that byte is among them.
    pub(crate) input: u64,
    pub(crate) start: Start,
}

/// What begins at a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Start {
    /// Any byte of a plain tar.
    Plain,
    /// A gzip member.
    Member,
    /// A zstd frame.
    Frame,
    /// A block of a deflate stream: bits of the byte before that belong to it, and the output before it.
    Block { bits: u8, window: Box<[u8]> },
}

/// Where marks are put.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marking {
    pub(crate) span_bytes: u64,
    pub(crate) group_bytes: u64,
    pub(crate) group_bytes_max: u64,
    /// Members are marks; if not (SOCI), only blocks are, the first included.
    pub(crate) members: bool,
}

/// The marks so far, shared with whoever reads the stream through a tar reader.
pub(crate) type Marks = Rc<RefCell<Vec<Mark>>>;

enum Decoder {
    Plain,
    Gzip { inflater: Box<Inflater>, ended: bool },
    Zstd { decoder: Box<Zstd<'static>>, ended: bool },
}

/// What a stream was, at its end.
pub(crate) struct Ended {
    pub(crate) digest: Digest,
    pub(crate) blob_bytes: u64,
    pub(crate) tar_digest: Digest,
    pub(crate) tar_bytes: u64,
}

/// See the module.
pub(crate) struct Stream<R: Read> {
    source: BufReader<R>,
    blob: Hasher,
    tar: Hasher,
    decoder: Decoder,
    marking: Marking,
    limits: Limits,
    marks: Marks,
    /// Up to 32 KiB that were read before, then what is fresh: `buffer[start..end]`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    failed: Option<BuildError>,
}

impl<R: Read> Stream<R> {
    /// A stream at the start of `source`.
    ///
    /// # Errors
    /// [`BuildError::Stream`] if there is no memory for a decoder.
    pub(crate) fn new(
        source: R,
        compression: Compression,
        marking: Marking,
        limits: Limits,
    ) -> Result<Self, BuildError> {
        let decoder = match compression {
            Compression::None => Decoder::Plain,
            Compression::Gzip => {
                Decoder::Gzip { inflater: Box::new(Inflater::new(Wrapping::Gzip)), ended: false }
            }
            Compression::Zstd => {
                let failed = |source| BuildError::Stream { format: "zstd", uncompressed_bytes: 0, source };
                let mut decoder = Zstd::new().map_err(failed)?;
                decoder
                    .set_parameter(DParameter::WindowLogMax(Limits::ZSTD_WINDOW_LOG_MAX))
                    .map_err(failed)?;
                Decoder::Zstd { decoder: Box::new(decoder), ended: true }
            }
        };
        let first = match compression {
            Compression::None => Some(Start::Plain),
            Compression::Gzip => marking.members.then_some(Start::Member),
            Compression::Zstd => Some(Start::Frame),
        };
        let first = first.map(|start| Mark { output: 0, input: 0, start });
        Ok(Self {
            source: BufReader::with_capacity(INPUT_BYTES, source),
            blob: Hasher::new(),
            tar: Hasher::new(),
            decoder,
            marking,
            limits,
            marks: Rc::new(RefCell::new(first.into_iter().collect())),
            buffer: vec![0; WINDOW_BYTES_MAX + FRESH_BYTES],
            start: 0,
            end: 0,
            failed: None,
        })
    }

    /// The marks, as they are made. All that lie before the last byte given out are there.
    pub(crate) fn marks(&self) -> Marks {
        Rc::clone(&self.marks)
    }

    /// Why the stream ended too early, if it did; only once.
    pub(crate) fn failed(&mut self) -> Option<BuildError> {
        self.failed.take()
    }

    /// Both digests; to be called at the end of the stream.
    pub(crate) fn finish(self) -> Ended {
        let (blob_bytes, tar_bytes) = (self.blob.bytes(), self.tar.bytes());
        Ended { digest: self.blob.finish(), blob_bytes, tar_digest: self.tar.finish(), tar_bytes }
    }

    fn since_last_mark(&self) -> Option<u64> {
        self.marks.borrow().last().map(|mark| self.tar.bytes() - mark.output)
    }

    fn mark(&self, start: Start, input: u64) {
        self.marks.borrow_mut().push(Mark { output: self.tar.bytes(), input, start });
    }

    /// Fills the buffer with some fresh bytes; with none at the end of the stream.
    fn fill(&mut self) -> Result<(), BuildError> {
        let keep = self.end.min(WINDOW_BYTES_MAX);
        self.buffer.copy_within(self.end - keep..self.end, 0);
        (self.start, self.end) = (keep, keep);
        while self.end == self.start {
            let more = match self.decoder {
                Decoder::Plain => self.plain()?,
                Decoder::Gzip { .. } => self.gzip()?,
                Decoder::Zstd { .. } => self.zstd()?,
            };
            if !more {
                break;
            }
        }
        self.within_limits()
    }

    /// Takes `consumed` bytes of input and `produced` of output into account.
    fn took(&mut self, consumed: usize, produced: usize) {
        self.blob.update(&self.source.buffer()[..consumed]);
        self.source.consume(consumed);
        self.tar.update(&self.buffer[self.end..self.end + produced]);
        self.end += produced;
    }

    fn plain(&mut self) -> Result<bool, BuildError> {
        let left = match self.since_last_mark() {
            Some(since) if since >= self.marking.group_bytes => {
                self.mark(Start::Plain, self.blob.bytes());
                self.marking.group_bytes
            }
            since => self.marking.group_bytes - since.unwrap_or(0),
        };
        let input = self.source.fill_buf().map_err(BuildError::Source)?;
        let room = self.buffer.len() - self.end;
        let take = input.len().min(room).min(usize::try_from(left).unwrap_or(usize::MAX));
        self.buffer[self.end..self.end + take].copy_from_slice(&input[..take]);
        self.took(take, take);
        Ok(take > 0)
    }

    fn gzip(&mut self) -> Result<bool, BuildError> {
        let uncompressed_bytes = self.tar.bytes();
        let failed = move |source| BuildError::Stream { format: "gzip", uncompressed_bytes, source };
        let no_input = self.source.fill_buf().map_err(BuildError::Source)?.is_empty();
        let Decoder::Gzip { inflater, ended } = &mut self.decoder else { return Ok(false) };
        if no_input {
            return if *ended { Ok(false) } else { Err(failed(io::ErrorKind::UnexpectedEof.into())) };
        }
        if std::mem::take(ended) {
            inflater.restart(Wrapping::Gzip);
            let since = self.since_last_mark().unwrap_or(0);
            if self.marking.members && since >= self.marking.group_bytes {
                self.mark(Start::Member, self.blob.bytes());
            }
        }
        let Decoder::Gzip { inflater, ended } = &mut self.decoder else { return Ok(false) };
        let step = inflater.step(self.source.buffer(), &mut self.buffer[self.end..], Stop::AfterBlock);
        let step = step.map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        *ended = step.ended;
        self.took(step.consumed, step.produced);
        if let Some(bits) = step.boundary {
            self.block(bits);
        }
        Ok(true)
    }

    /// A block begins here: a mark, if the last one is far enough away.
    fn block(&mut self, bits: u8) {
        let far = match self.since_last_mark() {
            None => true,
            Some(since) => since > 0 && since >= self.marking.span_bytes,
        };
        if far {
            let window = self.end.saturating_sub(WINDOW_BYTES_MAX)..self.end;
            let window = self.buffer[window].into();
            // Whole bytes taken ahead are given back.
            let input = self.blob.bytes() - u64::from(bits / 8);
            self.mark(Start::Block { bits: bits % 8, window }, input);
        }
    }

    fn zstd(&mut self) -> Result<bool, BuildError> {
        let uncompressed_bytes = self.tar.bytes();
        let failed = move |source| BuildError::Stream { format: "zstd", uncompressed_bytes, source };
        let no_input = self.source.fill_buf().map_err(BuildError::Source)?.is_empty();
        let since = self.since_last_mark().unwrap_or(0);
        let Decoder::Zstd { decoder, ended } = &mut self.decoder else { return Ok(false) };
        if no_input && *ended {
            return Ok(false);
        }
        if *ended && since >= self.marking.group_bytes {
            self.marks.borrow_mut().push(Mark {
                output: uncompressed_bytes,
                input: self.blob.bytes(),
                start: Start::Frame,
            });
        }
        let mut input = InBuffer::around(self.source.buffer());
        let mut output = OutBuffer::around(&mut self.buffer[self.end..]);
        let hint = decoder.run(&mut input, &mut output).map_err(failed)?;
        let (consumed, produced) = (input.pos(), output.pos());
        *ended = hint == 0;
        if no_input && produced == 0 && !*ended {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        self.took(consumed, produced);
        Ok(true)
    }

    fn within_limits(&self) -> Result<(), BuildError> {
        let Limits { uncompressed_bytes_max: limit, ratio_max, ratio_free_bytes, .. } = self.limits;
        let (blob, tar) = (self.blob.bytes(), self.tar.bytes());
        if tar > limit {
            return Err(BuildError::Layer(LayerError::TooLarge { limit_bytes: limit }));
        }
        if tar > ratio_free_bytes && tar / ratio_max > blob {
            let (compressed_bytes, uncompressed_bytes) = (blob, tar);
            return Err(BuildError::Layer(LayerError::Bomb {
                compressed_bytes,
                uncompressed_bytes,
                ratio_max,
            }));
        }
        let (frame_bytes, limit_bytes) = (self.since_last_mark().unwrap_or(0), self.marking.group_bytes_max);
        if frame_bytes > limit_bytes {
            return Err(BuildError::NotSeekable { frame_bytes, limit_bytes });
        }
        Ok(())
    }
}

impl<R: Read> BufRead for Stream<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end
            && let Err(error) = self.fill()
        {
            self.failed = Some(error);
            return Err(io::ErrorKind::Other.into());
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, amount: usize) {
        self.start = (self.start + amount).min(self.end);
    }
}

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let take = available.len().min(buffer.len());
        buffer[..take].copy_from_slice(&available[..take]);
        self.consume(take);
        Ok(take)
    }
}
