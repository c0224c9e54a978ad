//! The archive's bytes: plain, or decompressed on the way, as the first of them say.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use storage_layer::{Decompressor, LayerError, Limits};
use storage_model::Compression;

use super::ArchiveError;

/// Bytes asked of the source at once.
const READ_BYTES: usize = 256 * 1024;
/// Most bytes with which a format begins that we tell apart.
const MAGIC_BYTES: usize = 6;

/// Beginnings of compressed files: ours, and those we know by name only.
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const OTHERS: [(&[u8], &str); 3] =
    [(b"BZh", "bzip2"), (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"), (&[0x04, 0x22, 0x4d, 0x18], "lz4")];

/// How what begins with `start` is compressed.
///
/// # Errors
/// [`ArchiveError::Compression`] for a format that is known and not read.
pub(crate) fn compression(start: &[u8]) -> Result<Compression, ArchiveError> {
    if start.starts_with(GZIP) {
        return Ok(Compression::Gzip);
    }
    // 0x184D2A50 to 0x184D2A5F begin a skippable frame, as zstd's seekable files do.
    let skippable = matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
    if start.starts_with(ZSTD) || skippable {
        return Ok(Compression::Zstd);
    }
    match OTHERS.iter().find(|(magic, _)| start.starts_with(magic)) {
        Some((_, name)) => Err(ArchiveError::Compression(name)),
        None => Ok(Compression::None),
    }
}

/// Opens the archive `source`: what comes out is a tar, if it is one at all.
///
/// # Errors
/// [`ArchiveError::Source`] if not even its beginning can be read; [`ArchiveError::Compression`].
pub(crate) fn open<'a>(
    mut source: impl Read + Send + 'a,
) -> Result<Box<dyn BufRead + Send + 'a>, ArchiveError> {
    let mut start = Vec::with_capacity(MAGIC_BYTES);
    source.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut start).map_err(ArchiveError::Source)?;
    let compression = compression(&start)?;
    let whole = Cursor::new(start).chain(source);
    if compression == Compression::None {
        return Ok(Box::new(BufReader::with_capacity(READ_BYTES, whole)));
    }
    let decompressor =
        Decompressor::new(whole, compression, &Limits::default()).map_err(ArchiveError::Compressed)?;
    Ok(Box::new(Decompressed { decompressor, buffer: vec![0; READ_BYTES], start: 0, end: 0, ended: false }))
}

/// A decompressor as a buffered reader. Its errors pass through inside an `io::Error`.
struct Decompressed<R: Read> {
    decompressor: Decompressor<R>,
    buffer: Vec<u8>,
    /// What of the buffer was not taken yet.
    start: usize,
    end: usize,
    ended: bool,
}

impl<R: Read> BufRead for Decompressed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end && !self.ended {
            self.end = self.decompressor.fill(&mut self.buffer).map_err(|error| match error {
                LayerError::Source(source) => source,
                other => io::Error::other(other),
            })?;
            self.start = 0;
            self.ended = self.end < self.buffer.len();
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, amount: usize) {
        self.start += amount;
    }
}

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_what_it_begins_with() {
        let text = vec![7_u8; 1_000_000];
        let zstd = zstd::encode_all(&text[..], 3).unwrap();
        for stored in [text.clone(), zstd] {
            let mut read = Vec::new();
            open(&stored[..]).unwrap().read_to_end(&mut read).unwrap();
            assert!(read == text);
        }
        assert!(matches!(open(&b"BZh9..."[..]), Err(ArchiveError::Compression("bzip2"))));
        assert!(open(&b""[..]).unwrap().fill_buf().unwrap().is_empty());
    }

    #[test]
    fn a_compressed_stream_that_is_cut_off_is_an_error_of_its_own() {
        let zstd = zstd::encode_all(&vec![7_u8; 1_000_000][..], 3).unwrap();
        let mut stream = open(&zstd[..zstd.len() / 2]).unwrap();
        let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
        let error = ArchiveError::from(storage_layer::tar::TarError::Input(error));
        assert!(matches!(error, ArchiveError::Compressed(LayerError::Decompress { .. })), "{error:?}");
    }
}
