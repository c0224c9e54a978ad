//! [`Toc`]: one layer, whatever format described it.

mod check;
mod code;

use std::ops::Range;

use storage_model::Digest;

/// The table of contents of one layer: what its tar holds, in the tar's order, and where the bytes of its files lie.
///
/// Entries are as in the tar: a name may occur twice (the last counts), whiteouts keep their `.wh.` names, a hard link
/// names an earlier path. [`crate::ImageIndex::build`] gives them their meaning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Toc {
    /// The entries, in the order of the tar.
    pub entries: Vec<Entry>,
    /// Pieces of files; those of one file are neighbours, in ascending order of `file_offset` and without a gap.
    pub chunks: Vec<Chunk>,
    /// What can be fetched and decoded alone, in ascending order of `offset`.
    pub groups: Vec<Group>,
    /// Where a deflate stream can be entered, in ascending order of `output_offset`; empty for most formats.
    pub checkpoints: Vec<Checkpoint>,
    /// Bytes of the blob, from its start, that its maker wants fetched first; `None` if the layer does not say.
    pub prefetch_bytes: Option<u64>,
}

/// One entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Clean and relative, components separated by one `/`, none of them `.` or `..`; empty is the root.
    pub path: Box<[u8]>,
    /// What it is.
    pub kind: Kind,
    /// Permission, set-ID and sticky bits, below 0o10000.
    pub mode: u32,
    /// Owner, below 2^32 - 1.
    pub uid: u32,
    /// Group, below 2^32 - 1.
    pub gid: u32,
    /// Last change.
    pub mtime: Time,
    /// Extended attributes under their names in the image, each name once.
    pub xattrs: Xattrs,
}

/// Extended attributes: names and values.
pub type Xattrs = Vec<(Box<[u8]>, Box<[u8]>)>;

/// A point in time, since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time {
    /// Whole seconds, negative before 1970.
    pub secs: i64,
    /// Nanoseconds after these, below 1,000,000,000.
    pub nanos: u32,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Its length in bytes, holes included.
        size: u64,
        /// Digest of its whole content, if the layer says.
        digest: Option<Digest>,
        /// Its pieces in [`Toc::chunks`]: exactly `0..size`, in order. Empty for a file of size 0.
        chunks: Range<u32>,
    },
    /// A symbolic link and its target, as it stands in the tar.
    Symlink(Box<[u8]>),
    /// Another name of the entry with this path, clean and relative, which comes earlier.
    Hardlink(Box<[u8]>),
    /// A character device.
    Character {
        /// Major number, below 2^12.
        major: u32,
        /// Minor number, below 2^20.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Major number, below 2^12.
        major: u32,
        /// Minor number, below 2^20.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// A piece of a file, and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Where it begins in the file, in bytes.
    pub file_offset: u64,
    /// Its length in bytes, at least 1.
    pub length: u64,
    /// Digest of exactly these bytes. `None` only if the group has a digest.
    pub digest: Option<Digest>,
    /// The number of its group in [`Toc::groups`].
    pub group: u32,
    /// Where it begins in what the group decodes to, in bytes. 0 for [`Coding::Zeros`].
    pub inner_offset: u64,
}

/// The least unit of a blob that can be fetched and decoded alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// Where it begins in the blob, in bytes.
    pub offset: u64,
    /// Its length in the blob, in bytes; 0 only for [`Coding::Zeros`]. It may be an upper bound: bytes after the end
    /// of the coded stream belong to something else and are no fault.
    pub length: u64,
    /// Length of what it decodes to, in bytes, if the format says. The chunks of a group tell a lower bound.
    pub output_length: Option<u64>,
    /// How it is coded.
    pub coding: Coding,
    /// Digest of its coded bytes, `length` of them.
    pub digest: Option<Digest>,
}

/// How the bytes of a group are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// As they are.
    Plain,
    /// One or more whole gzip members.
    Gzip,
    /// One or more whole zstd frames.
    Zstd,
    /// Raw deflate, entered at a checkpoint and cut off at the next.
    Deflate {
        /// The number of the checkpoint in [`Toc::checkpoints`].
        checkpoint: u32,
    },
    /// Nothing in the blob: all zeros, as many as the chunk is long.
    Zeros,
}

/// Where a deflate stream can be entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Bytes of the uncompressed stream before it.
    pub output_offset: u64,
    /// The first whole byte of the blob after it.
    pub input_offset: u64,
    /// How many bits, 0 to 7, of the byte before `input_offset` still belong to what comes (its highest ones).
    pub bits: u8,
    /// The last bytes of output before it, at most 32 KiB: what the stream may refer back to. Empty at the start.
    pub window: Box<[u8]>,
}

#[cfg(test)]
mod tests;
