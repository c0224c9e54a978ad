//! Layout of an image index file: a head, then tables of fixed records, all numbers little-endian.
//!
//! | head        | bytes | meaning                                                   |
//! |-------------|-------|-----------------------------------------------------------|
//! | magic       | 16    | [`MAGIC`], with the version of this layout                |
//! | checksum    | 32    | SHA-256 of all that follows it                            |
//! | counts      | 8 x 8 | records of each table, in the order of [`Tables`]         |
//! | bytes total | 8     | sum of the sizes of all files, each counted once          |
//!
//! The tables follow without a gap. Records are read byte by byte (`from_le_bytes`), so nothing needs alignment.

use std::ops::Range;

use crate::IndexError;

/// First bytes of every index file.
pub(super) const MAGIC: &[u8; 16] = b"windlass image 1";
/// Where the checksum ends and what it covers begins.
pub(super) const SUMMED_FROM: usize = 48;
/// Bytes before the first table.
pub(super) const HEAD_BYTES: usize = SUMMED_FROM + 8 * TABLES + 8;
/// Number of tables.
const TABLES: usize = 8;

/// Stands for "none" where a number of a record or an offset is expected.
pub(super) const NONE: u32 = u32::MAX;

/// blob: digest 32, bytes 8.
pub(super) const BLOB_BYTES: usize = 40;
/// node: mode 2, kind 1, zero 1, uid 4, gid 4, nlink 4, seconds 8, nanoseconds 4, xattrs 4 (offset in the strings), size 8
/// (device numbers: major in the upper half), first 4 (name, chunk, or offset in the strings), count 4, digest 4,
/// parent 4 (node), name 4 (its first name).
pub(super) const NODE_BYTES: usize = 60;
/// name: offset in the strings 4, node 4, length 1, kind 1.
pub(super) const NAME_BYTES: usize = 10;
/// digest: 32.
pub(super) const DIGEST_BYTES: usize = 32;
/// chunk: file offset 8, length 4, inner offset 4, group 4, digest 4, node 4.
pub(super) const CHUNK_BYTES: usize = 28;
/// chunk by group: chunk 4, in the order of group and inner offset.
pub(super) const ORDER_BYTES: usize = 4;
/// group: offset 8, length 4, output length 4, blob 2, coding 1, zero 1, checkpoint 4, digest 4.
pub(super) const GROUP_BYTES: usize = 28;

/// Values of `coding` in a group record.
pub(super) const PLAIN: u8 = 0;
pub(super) const GZIP: u8 = 1;
pub(super) const ZSTD: u8 = 2;
pub(super) const DEFLATE: u8 = 3;
pub(super) const ZEROS: u8 = 4;

/// Where each table lies in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tables {
    pub(super) blobs: Range<usize>,
    pub(super) nodes: Range<usize>,
    pub(super) names: Range<usize>,
    pub(super) digests: Range<usize>,
    pub(super) chunks: Range<usize>,
    pub(super) order: Range<usize>,
    pub(super) groups: Range<usize>,
    pub(super) strings: Range<usize>,
}

const RECORDS: [usize; TABLES] =
    [BLOB_BYTES, NODE_BYTES, NAME_BYTES, DIGEST_BYTES, CHUNK_BYTES, ORDER_BYTES, GROUP_BYTES, 1];

impl Tables {
    /// The tables of a file of `file_bytes` whose head gives these counts, which must fill it exactly.
    pub(super) fn new(counts: [u64; TABLES], file_bytes: usize) -> Result<Self, IndexError> {
        let wrong = || IndexError::Format { what: "image index", reason: "its tables do not fill the file" };
        let mut at = HEAD_BYTES;
        let mut ranges = [const { 0..0 }; TABLES];
        for ((count, record), range) in counts.into_iter().zip(RECORDS).zip(&mut ranges) {
            let bytes = usize::try_from(count).ok().filter(|count| *count < NONE as usize);
            let end = bytes.and_then(|count| count.checked_mul(record)?.checked_add(at)).ok_or_else(wrong)?;
            *range = at..end;
            at = end;
        }
        let [blobs, nodes, names, digests, chunks, order, groups, strings] = ranges;
        if at != file_bytes {
            return Err(wrong());
        }
        Ok(Self { blobs, nodes, names, digests, chunks, order, groups, strings })
    }
}

/// The little-endian number of 2 bytes at `at`.
pub(super) fn u16_at(record: &[u8], at: usize) -> u16 {
    record.get(at..at + 2).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// The little-endian number of 4 bytes at `at`.
pub(super) fn u32_at(record: &[u8], at: usize) -> u32 {
    record.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// The little-endian number of 8 bytes at `at`.
pub(super) fn u64_at(record: &[u8], at: usize) -> u64 {
    record.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}
