//! Checkpoints and digests of a zTOC, as groups.
//!
//! The checkpoints of gzip: `have` as 32 bits, span size as 64, then `have` records of `in` 64, `out` 64, bits 8 and a
//! window of 32 KiB. The first version left out the record of the first checkpoint, which is behind the shortest gzip head
//! there is. For tar they are a FlatBuffer: version, span size, size.

use storage_model::Digest;

use super::flat::{List, Table};
use crate::{Checkpoint, Coding, Group, IndexError, Limits};

/// Bytes before the records.
const HEAD_BYTES: usize = 12;
/// Bytes of a record.
const RECORD_BYTES: usize = 17 + Limits::WINDOW_BYTES_MAX;
/// Bytes of the shortest head of a gzip member (RFC 1952).
const GZIP_HEAD_BYTES: u64 = 10;

/// Spans and where they begin.
pub(super) struct Spans {
    pub(super) groups: Vec<Group>,
    pub(super) checkpoints: Vec<Checkpoint>,
    /// Where each group begins in the uncompressed tar, ascending; as many as groups.
    pub(super) starts: Vec<u64>,
}

fn wrong(reason: &'static str) -> IndexError {
    IndexError::Format { what: "zTOC", reason }
}

/// Sizes of the archive, which the spans divide.
pub(super) struct Sizes {
    pub(super) coded_bytes: u64,
    pub(super) bytes: u64,
}

/// Spans of a gzip layer.
pub(super) fn gzip(records: &[u8], digests: List<'_>, sizes: &Sizes) -> Result<Spans, IndexError> {
    let have = records.get(..4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    let have = have.ok_or(wrong("its checkpoints are cut off"))? as usize;
    let body = records.get(HEAD_BYTES..).ok_or(wrong("its checkpoints are cut off"))?;
    let stored = body.len() / RECORD_BYTES;
    if body.len() % RECORD_BYTES != 0 || (stored != have && stored + 1 != have) {
        return Err(wrong("its checkpoints are not as many as it says"));
    }
    let mut checkpoints = Vec::with_capacity(have);
    if stored != have {
        let window = Box::default();
        checkpoints.push(Checkpoint { output_offset: 0, input_offset: GZIP_HEAD_BYTES, bits: 0, window });
    }
    checkpoints.extend(body.chunks_exact(RECORD_BYTES).map(checkpoint));
    if checkpoints.len() != digests.len() || checkpoints.is_empty() {
        return Err(wrong("it has not one digest for each span"));
    }
    let mut groups = Vec::with_capacity(checkpoints.len());
    for (number, own) in checkpoints.iter().enumerate() {
        let next = checkpoints.get(number + 1);
        let offset = own.input_offset.saturating_sub(u64::from(own.bits > 0));
        let end = next.map_or(sizes.coded_bytes, |next| next.input_offset);
        let output_end = next.map_or(sizes.bytes, |next| next.output_offset);
        let length = end.checked_sub(offset).ok_or(wrong("its checkpoints are not in order"))?;
        let output =
            output_end.checked_sub(own.output_offset).ok_or(wrong("its checkpoints are not in order"))?;
        groups.push(Group {
            offset,
            length,
            output_length: Some(output),
            coding: Coding::Deflate { checkpoint: number as u32 },
            digest: Some(digest(digests, number)?),
        });
    }
    let starts = checkpoints.iter().map(|own| own.output_offset).collect();
    Ok(Spans { groups, checkpoints, starts })
}

fn checkpoint(record: &[u8]) -> Checkpoint {
    let number = |at: usize| record[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
    let output_offset = number(8);
    // Before the window is full for the first time its beginning is no part of the stream.
    let filled = usize::try_from(output_offset)
        .map_or(Limits::WINDOW_BYTES_MAX, |out| out.min(Limits::WINDOW_BYTES_MAX));
    let window = record[RECORD_BYTES - filled..].into();
    Checkpoint { output_offset, input_offset: number(0), bits: record[16], window }
}

/// Spans of a layer that is not compressed.
pub(super) fn tar(records: &[u8], digests: List<'_>, sizes: &Sizes) -> Result<Spans, IndexError> {
    let span_bytes =
        Table::root(records).and_then(|table| table.i64(1)).and_then(|bytes| u64::try_from(bytes).ok());
    let span_bytes = span_bytes.filter(|bytes| *bytes > 0).ok_or(wrong("its spans have no size"))?;
    let count = sizes.bytes.div_ceil(span_bytes);
    if count != digests.len() as u64 {
        return Err(wrong("it has not one digest for each span"));
    }
    let starts: Vec<u64> = (0..count).map(|number| number * span_bytes).collect();
    let group = |(number, offset): (usize, &u64)| {
        let length = span_bytes.min(sizes.bytes - offset);
        let digest = Some(digest(digests, number)?);
        Ok(Group { offset: *offset, length, output_length: Some(length), coding: Coding::Plain, digest })
    };
    let groups = starts.iter().enumerate().map(group).collect::<Result<_, IndexError>>()?;
    Ok(Spans { groups, checkpoints: Vec::new(), starts })
}

fn digest(digests: List<'_>, number: usize) -> Result<Digest, IndexError> {
    let text = digests.string(number).and_then(|text| std::str::from_utf8(text).ok());
    text.and_then(|text| text.parse().ok()).ok_or(wrong("one of its digests is not sha256 and 64 hex digits"))
}
