//! eStargz: a gzip layer whose last member but one is a table of contents, and whose last is a footer that says where.
//!
//! ```text
//! member+ (files) | member: tar header + stargz.index.json | footer, 51 bytes
//! ```
//! Source: stargz-snapshotter `docs/estargz.md` and `estargz/{gzip,types}.go`. The footer is found at the end of the blob:
//! an empty gzip member whose extra field has the table's offset in hexadecimal. Two others are in use: the one of CRFS,
//! 47 bytes, whose extra field has no subfield, and the one that says that the table is not in the blob.
//!
//! Trust: the footer is the registry's word and says only where to look; what is found there counts when its digest is
//! the one of the manifest's annotation [`TOC_DIGEST`] (rows L1, L6).

use crate::json::{self, Layout};
use crate::{Chunk, Coding, Digest, Entry, Group, IndexError, Kind, Limits, Toc};

/// Annotation of a layer: digest of the uncompressed JSON.
pub const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
/// Annotation of a layer: bytes of its tar, in decimal.
pub const UNCOMPRESSED_SIZE: &str = "io.containers.estargz.uncompressed-size";
/// Name of the table in the tar.
pub const TOC_NAME: &str = "stargz.index.json";
/// Tag suffix of the image that has the tables of an image, if they are not in its layers.
pub const EXTERNAL_SUFFIX: &str = "-esgztoc";
/// Annotation of a layer of that image: digest of the layer its table belongs to.
pub const EXTERNAL_LAYER_DIGEST: &str = "containerd.io/snapshot/stargz/layer.digest";

/// What the last bytes of an eStargz blob say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Footer {
    /// The table is a gzip member from `toc_offset` to the footer.
    Inside {
        /// Where the table's member begins in the blob, in bytes.
        toc_offset: u64,
        /// Length of the footer in bytes: the table ends where it begins.
        footer_bytes: u64,
    },
    /// The table is kept elsewhere.
    Outside {
        /// Length of the footer in bytes: the payload ends where it begins.
        footer_bytes: u64,
    },
}

/// Longest footer in bytes: so much of a blob's end has to be read at least.
pub const FOOTER_BYTES_MAX: usize = 51;

/// First bytes of a gzip member with an extra field and nothing else: magic, deflate, FEXTRA. Time, flags and system,
/// which follow, may be anything.
const MEMBER: [u8; 4] = [0x1f, 0x8b, 8, 4];
/// Bytes before the extra field: the member's head and the field's length.
const EXTRA_AT: usize = 12;
/// What follows the extra field: an empty last block, its checksum and its length.
const EMPTY: [u8; 13] = [1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];

impl Footer {
    /// Reads the footer at the end of `tail`, which is the end of a blob of `blob_bytes`.
    ///
    /// # Errors
    /// [`IndexError::Format`] if there is none, or its offset is not inside the blob.
    pub fn parse(tail: &[u8], blob_bytes: u64) -> Result<Self, IndexError> {
        let stargz = |extra: &[u8]| toc_offset(extra.strip_prefix(b"SG\x16\x00")?);
        let found = if let Some(offset) = extra(tail, 51).and_then(stargz) {
            Self::Inside { toc_offset: offset, footer_bytes: 51 }
        } else if let Some(offset) = extra(tail, 47).and_then(toc_offset) {
            Self::Inside { toc_offset: offset, footer_bytes: 47 }
        } else if extra(tail, 46) == Some(b"SG\x11\x00STARGZEXTERNALTOC") {
            Self::Outside { footer_bytes: 46 }
        } else {
            return Err(IndexError::Format {
                what: "eStargz layer",
                reason: "it does not end in an eStargz footer",
            });
        };
        match found {
            Self::Inside { toc_offset, footer_bytes }
                if toc_offset.checked_add(footer_bytes).is_none_or(|end| end >= blob_bytes) =>
            {
                let reason = "its footer points behind the end of the blob";
                Err(IndexError::Format { what: "eStargz layer", reason })
            }
            found => Ok(found),
        }
    }
}

/// The extra field of a footer of `bytes` bytes at the end of `tail`.
fn extra(tail: &[u8], bytes: usize) -> Option<&[u8]> {
    let footer = tail.get(tail.len().checked_sub(bytes)?..)?;
    let extra = footer.strip_suffix(&EMPTY)?.get(EXTRA_AT..)?;
    let length = u16::from_le_bytes([footer[10], footer[11]]);
    (footer.starts_with(&MEMBER) && usize::from(length) == extra.len()).then_some(extra)
}

/// Sixteen hexadecimal digits and "STARGZ". A sign, which other readers accept here, is none.
fn toc_offset(extra: &[u8]) -> Option<u64> {
    let digits = extra.strip_suffix(b"STARGZ").filter(|digits| digits.len() == 16)?;
    digits.iter().try_fold(0u64, |value, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(value << 4 | u64::from(digit))
    })
}

/// Reads the JSON of an eStargz table. `payload_end` is where the files' members end in the blob: the table's offset, or
/// the footer's if the table is elsewhere.
///
/// The result has not been validated, and does not have the table's own entry in the tar: add it with
/// [`add_table`] if it is there.
///
/// # Errors
/// [`IndexError::Json`], [`IndexError::Format`], [`IndexError::Limit`], [`IndexError::Entry`] or [`IndexError::Group`].
pub fn toc(json: &[u8], payload_end: u64, limits: &Limits) -> Result<Toc, IndexError> {
    Ok(json::parse(json, Layout::Stargz(Coding::Gzip), payload_end, limits)?.toc)
}

/// Where the table itself lies, which is a file of the layer like any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its entry, as the tar header in front of it says; what the entry says of its content is ignored.
    pub entry: Entry,
    /// Where its member begins in the blob, in bytes.
    pub offset: u64,
    /// Bytes of the member.
    pub length: u64,
    /// Where the JSON begins in what the member decodes to, in bytes.
    pub inner_offset: u64,
    /// Length of the JSON in bytes.
    pub size: u64,
    /// Digest of the JSON.
    pub digest: Digest,
}

/// Adds the table itself to `toc`: unpacking the layer makes a file of it, so the lazily mounted tree has it as well.
///
/// An entry for it must not be there yet, and its member must lie behind all others.
pub fn add_table(toc: &mut Toc, table: Table) {
    let Table { entry, offset, length, inner_offset, size, digest } = table;
    let (group, chunk) = (toc.groups.len() as u32, toc.chunks.len() as u32);
    toc.groups.push(Group { offset, length, output_length: None, coding: Coding::Gzip, digest: None });
    toc.chunks.push(Chunk { file_offset: 0, length: size, digest: Some(digest), group, inner_offset });
    let kind = Kind::File { size, digest: Some(digest), chunks: chunk..chunk + 1 };
    toc.entries.push(Entry { kind, ..entry });
}

#[cfg(test)]
mod tests;
