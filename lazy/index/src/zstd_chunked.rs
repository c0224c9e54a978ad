//! zstd:chunked, in the two dialects that cannot read each other.
//!
//! ```text
//! containers/storage:  frame+ (tar) | skippable: zstd(TOC) | skippable: zstd(tar-split) | skippable: footer, 64 bytes
//! stargz-snapshotter:  frame+ (tar) | skippable: zstd(TOC) | skippable: footer, 40 bytes
//! ```
//! Source: containers/storage `pkg/chunked/internal/minimal/compression.go`, stargz-snapshotter
//! `estargz/zstdchunked/zstdchunked.go`. Both footers are little-endian numbers and a magic word; they differ in one
//! letter of it, and older writers of the first dialect wrote the second's footer. An offset points behind the 8 bytes that begin a skippable frame, at the compressed table.
//!
//! Trust: as eStargz. The first dialect says where its table is in an annotation, and its digest, of the *compressed*
//! table, in another; the second has eStargz's annotation.

use crate::json::{self, Layout};
use crate::{Coding, Digest, IndexError, Limits, Toc};

/// Annotation, containers/storage: digest of the compressed table.
pub const CONTAINERS_CHECKSUM: &str = "io.github.containers.zstd-chunked.manifest-checksum";
/// Annotation, containers/storage: where the table is, as [`Position`].
pub const CONTAINERS_POSITION: &str = "io.github.containers.zstd-chunked.manifest-position";
/// Annotation, containers/storage: where the tar-split is, as three numbers.
pub const CONTAINERS_TAR_SPLIT: &str = "io.github.containers.zstd-chunked.tarsplit-position";
/// Annotation, stargz: digest of the compressed table. containers/storage had the same two names until 2023 (buildah 1.28
/// has them); what tells its layers from stargz's is that they have no [`crate::estargz::TOC_DIGEST`].
pub const STARGZ_CHECKSUM: &str = "io.containers.zstd-chunked.manifest-checksum";
/// Annotation, stargz: where the table is, as [`Position`].
pub const STARGZ_POSITION: &str = "io.containers.zstd-chunked.manifest-position";

/// Which dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// That of containers/storage: podman, buildah, CRI-O.
    Containers,
    /// That of stargz-snapshotter.
    Stargz,
}

/// Where a table is in its blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Where the compressed table begins, in bytes: behind the head of its skippable frame.
    pub offset: u64,
    /// Its compressed length in bytes.
    pub coded_bytes: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Bytes of the head of a skippable frame: magic and length.
const FRAME_HEAD_BYTES: u64 = 8;
/// A skippable frame's magic number, 0x184d2a50 (RFC 8878, 3.1.2).
const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
/// What follows the numbers of each footer.
const MAGIC_CONTAINERS: &[u8; 8] = b"GNUlInUx";
const MAGIC_STARGZ: &[u8; 8] = b"GnUlInUx";
/// The only type of table there is.
const TYPE: u64 = 1;

/// Longest footer in bytes, with the head of its frame: so much of a blob's end has to be read at least.
pub const FOOTER_BYTES_MAX: usize = 72;

const WHAT: &str = "zstd:chunked layer";

fn wrong(reason: &'static str) -> IndexError {
    IndexError::Format { what: WHAT, reason }
}

impl Position {
    /// Reads the footer at the end of `tail`, which is the end of a blob of `blob_bytes`, of either dialect.
    ///
    /// # Errors
    /// [`IndexError::Format`] if there is none, or what it says lies outside the blob (row L2).
    pub fn from_footer(tail: &[u8], blob_bytes: u64) -> Result<(Dialect, Self), IndexError> {
        let magic = tail.last_chunk::<8>().ok_or(wrong("it is too short for a footer"))?;
        let (dialect, length) = match magic {
            MAGIC_CONTAINERS => (Dialect::Containers, 64),
            MAGIC_STARGZ => (Dialect::Stargz, 40),
            _ => return Err(wrong("it does not end in a zstd:chunked footer")),
        };
        let frame = tail.len().checked_sub(length + FRAME_HEAD_BYTES as usize).and_then(|at| tail.get(at..));
        let frame = frame.ok_or(wrong("it is too short for a footer"))?;
        let (head, footer) = frame.split_at(FRAME_HEAD_BYTES as usize);
        if head[..4] != SKIPPABLE || head[4..] != (length as u32).to_le_bytes() {
            return Err(wrong("its footer is not in a skippable frame of its length"));
        }
        let number = |at: usize| {
            footer
                .get(8 * at..8 * at + 8)
                .and_then(|bytes| bytes.try_into().ok())
                .map_or(0, u64::from_le_bytes)
        };
        if number(3) != TYPE {
            return Err(wrong("its table is of an unknown type"));
        }
        let position = Self { offset: number(0), coded_bytes: number(1), bytes: number(2) };
        Ok((dialect, position.inside(blob_bytes - (blob_bytes.min(frame.len() as u64)))?))
    }

    /// Reads an annotation: `offset:compressed length:length:1`, in decimal.
    ///
    /// # Errors
    /// [`IndexError::Format`] if it is anything else, or lies outside a blob of `blob_bytes` (row L2).
    pub fn from_annotation(text: &str, blob_bytes: u64) -> Result<Self, IndexError> {
        let mut numbers = text.split(':').map(|text| {
            // `parse` takes a sign.
            text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten()
        });
        let mut next = || numbers.next().flatten();
        let (offset, coded_bytes, bytes, kind) = (next(), next(), next(), next());
        let (Some(offset), Some(coded_bytes), Some(bytes), Some(TYPE), None) =
            (offset, coded_bytes, bytes, kind, numbers.next())
        else {
            return Err(wrong("its annotation of the table's place is not four numbers, the last of them 1"));
        };
        Self { offset, coded_bytes, bytes }.inside(blob_bytes)
    }

    /// Refuses what does not lie before `end`, behind the head of a frame.
    fn inside(self, end: u64) -> Result<Self, IndexError> {
        let fits = self.offset.checked_add(self.coded_bytes).is_some_and(|own| own <= end);
        if self.offset < FRAME_HEAD_BYTES || !fits || self.coded_bytes == 0 {
            return Err(wrong("its table would lie outside the blob"));
        }
        Ok(self)
    }

    /// Where the frames with the files end in the blob, in bytes: where the table's skippable frame begins.
    pub fn payload_end(&self) -> u64 {
        self.offset.saturating_sub(FRAME_HEAD_BYTES)
    }
}

/// What a table of contents of this format says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The layer. It has not been validated.
    pub toc: Toc,
    /// Digest of the compressed tar-split, if the table names one.
    pub tar_split_digest: Option<Digest>,
}

/// Reads the JSON of a table, decompressed, whose frames end at `payload_end` ([`Position::payload_end`]).
///
/// # Errors
/// [`IndexError::Json`], [`IndexError::Format`], [`IndexError::Limit`], [`IndexError::Entry`] or [`IndexError::Group`].
pub fn toc(json: &[u8], dialect: Dialect, payload_end: u64, limits: &Limits) -> Result<Contents, IndexError> {
    let layout = match dialect {
        Dialect::Containers => Layout::Containers,
        Dialect::Stargz => Layout::Stargz(Coding::Zstd),
    };
    let json::Document { toc, tar_split_digest } = json::parse(json, layout, payload_end, limits)?;
    Ok(Contents { toc, tar_split_digest })
}

#[cfg(test)]
mod tests;
