//! Tables of contents as the formats have them: JSON, and what leads to it from the end of the blob.

pub(crate) mod containers;
pub(crate) mod stargz;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use storage_layer::EntryName;
use storage_layer::tar::{Entry, EntryKind};
use storage_sys::tree::Timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::BuildError;

/// The bytes before the payload of a skippable zstd frame (RFC 8878, 3.1.2): number and length.
pub(crate) const SKIPPABLE_HEADER_BYTES: u64 = 8;

/// `payload` as a skippable frame, which ordinary zstd readers pass over.
///
/// # Errors
/// [`BuildError::Limit`] if it is longer than a frame can be.
pub(crate) fn skippable(payload: &[u8]) -> Result<Vec<u8>, BuildError> {
    let too_long = BuildError::Limit { what: "bytes in a table of contents", limit: u64::from(u32::MAX) };
    let length = u32::try_from(payload.len()).map_err(|_| too_long)?;
    let mut frame = vec![0x50, 0x2a, 0x4d, 0x18];
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(payload);
    Ok(frame)
}

/// What both families call a type.
pub(crate) fn kind(kind: &EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "reg",
        EntryKind::HardLink(_) => "hardlink",
        EntryKind::Symlink(_) => "symlink",
        EntryKind::Char { .. } => "char",
        EntryKind::Block { .. } => "block",
        EntryKind::Directory => "dir",
        EntryKind::Fifo => "fifo",
    }
}

pub(crate) fn link(kind: &EntryKind) -> Option<&[u8]> {
    match kind {
        EntryKind::HardLink(target) | EntryKind::Symlink(target) => Some(target),
        _ => None,
    }
}

/// A name as JSON can hold it.
///
/// # Errors
/// [`BuildError::Entry`] for names that are not UTF-8: other tools would write and look for another name.
fn text<'n>(entry: &Entry, name: &'n [u8]) -> Result<&'n str, BuildError> {
    std::str::from_utf8(name).map_err(|_| BuildError::Entry {
        name: EntryName(entry.name.clone()),
        reason: "its name or target is not UTF-8, which JSON needs",
    })
}

/// A time as Go's `encoding/json` reads it.
///
/// # Errors
/// [`BuildError::Entry`] outside of the years 0 to 9999, which RFC 3339 cannot write.
pub(crate) fn time(entry: &Entry, time: Timestamp) -> Result<String, BuildError> {
    let nanoseconds = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let formatted = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok());
    formatted.ok_or_else(|| BuildError::Entry {
        name: EntryName(entry.name.clone()),
        reason: "its time lies outside of the years 0 to 9999",
    })
}

/// Extended attributes, values in base64.
///
/// # Errors
/// As [`text`].
fn xattrs(entry: &Entry) -> Result<BTreeMap<String, String>, BuildError> {
    let one =
        |(name, value): &(Vec<u8>, Vec<u8>)| Ok((text(entry, name)?.to_owned(), STANDARD.encode(value)));
    entry.xattrs.iter().map(one).collect()
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
