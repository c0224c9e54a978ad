//! A layer in another compression: the same tar, byte for byte.

use std::io::{Read, Write};

use storage_model::Compression;

use crate::compress::compressed;
use crate::{Decompressor, Limits, PackError, Packed};

/// Reads a layer of format `from` to its end and writes it as format `to` at `level` (`None`: gzip 6, zstd 3).
///
/// The tar inside is not looked at, so its diff ID stays; the caller compares [`Packed::diff_id`] with the one it knows
/// before it publishes anything. The same tar, format and level give the same bytes. The limits of unpacking hold.
///
/// # Errors
/// [`PackError::Layer`] if the source fails or is no valid `from`, [`PackError::Sink`], [`PackError::Level`]. The sink
/// keeps what it got.
pub fn recompress(
    source: impl Read + Send,
    from: Compression,
    sink: impl Write + Send,
    to: Compression,
    level: Option<i32>,
) -> Result<Packed, PackError> {
    let mut source = Decompressor::new(source, from, &Limits::default()).map_err(PackError::Layer)?;
    compressed(sink, to, level, |feeder| {
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let filled = source.fill(&mut buffer).map_err(PackError::Layer)?;
            feeder.write_all(&buffer[..filled]).map_err(PackError::Sink)?;
            if filled < buffer.len() {
                return Ok(None);
            }
        }
    })
}
