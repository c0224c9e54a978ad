//! Why a tar cannot be read.

use std::io;

use crate::EntryName;

/// Why a tar cannot be read. Offsets are bytes from the start of the uncompressed archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The reader below failed.
    #[error("reading failed: {0}")]
    Input(#[source] io::Error),
    /// The archive ends inside a header or the data of an entry.
    #[error("the archive is cut off at byte {offset}")]
    Truncated {
        /// Where it ends.
        offset: u64,
    },
    /// Not a tar header: the checksum is wrong.
    #[error("the header at byte {offset} has a wrong checksum: this is not a tar, or it is damaged")]
    Checksum {
        /// Where the header starts.
        offset: u64,
    },
    /// One block of zeros, then something else.
    #[error("a single block of zeros at byte {offset} is neither an entry nor the end")]
    LoneZeroBlock {
        /// Where the block starts.
        offset: u64,
    },
    /// A number that is none, or is out of range.
    #[error("the {field} in the header at byte {offset} is not a number within its range")]
    Number {
        /// Where the header starts.
        offset: u64,
        /// Which number.
        field: &'static str,
    },
    /// An entry of a type that means nothing in an image.
    #[error("the entry at byte {offset} has the unknown type {:?}", char::from(*.kind))]
    Kind {
        /// Where the header starts.
        offset: u64,
        /// The type's letter.
        kind: u8,
    },
    /// An entry that can have no data claims some: readers disagree on whether it follows.
    #[error("the entry at byte {offset} is no file but claims to have data")]
    UnexpectedData {
        /// Where the header starts.
        offset: u64,
    },
    /// An extended header that is not made of records.
    #[error("the extended header at byte {offset} is malformed: {reason}")]
    Extended {
        /// Where the header starts.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A record that occurs twice, or says the same as another header.
    #[error("the extended header at byte {offset} gives {key} twice")]
    Duplicate {
        /// Where the header starts.
        offset: u64,
        /// Which record.
        key: EntryName,
    },
    /// A global record that some readers apply to every entry and others do not.
    #[error(
        "the global header at byte {offset} sets {key} for all entries, which tools read in different ways"
    )]
    Global {
        /// Where the header starts.
        offset: u64,
        /// Which record.
        key: EntryName,
    },
    /// Extended headers with no entry after them.
    #[error("the archive ends after an extended header at byte {offset} that belongs to no entry")]
    Orphan {
        /// Where the archive ends.
        offset: u64,
    },
    /// Extended headers beyond the limit.
    #[error("the extended headers at byte {offset} are larger than {limit_bytes} bytes")]
    TooLong {
        /// Where the header starts.
        offset: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// A map of a sparse file that is inconsistent or beyond the limit.
    #[error("the sparse file at byte {offset} has a map that is malformed: {reason}")]
    Sparse {
        /// Where the header starts.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
}
