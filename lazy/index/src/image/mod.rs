//! [`ImageIndex`]: the merged tree of an image, in one immutable file that is mapped and read in place.
//!
//! ```text
//! head | blobs | nodes | names | digests | chunks | chunks by group | groups | strings
//! ```
//! All tables have records of a fixed size (`format.rs`), so a lookup is a binary search in mapped memory and nothing is
//! parsed or held beside it. The file is checked as a whole when it is opened: its checksum, and that its tables fill it
//! exactly. After that every number read from it is used only within the bounds of its table, so that even a file made
//! by an enemy can give wrong answers at most, never a panic.
//!
//! Promises: the same layers give the same file and so the same node numbers, on every machine and after every restart;
//! the numbers are dense, `1..=nodes()`, the root is 1; children are in the order of their names' bytes.
//!
//! Not here: what the layers mean together (`merge.rs`), and whether a chunk is on this machine (`lazy-fetch`).

mod format;
mod merge;
mod read;
pub(crate) mod tree;
mod write;

use storage_model::Digest;

use crate::{Coding, Time, Toc};

pub use read::ImageIndex;

/// A layer of an image, as [`ImageIndex::build`] wants it.
#[derive(Debug, Clone, Copy)]
pub struct LayerPart<'a> {
    /// Digest of the blob the chunks come from.
    pub blob: Digest,
    /// Its size in bytes.
    pub blob_bytes: u64,
    /// What it holds; must have passed [`Toc::validate`].
    pub toc: &'a Toc,
}

/// The number of a node of an image: 1 is the root. FUSE's node ids and `st_ino` are the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

/// Attributes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// What it is.
    pub kind: NodeKind,
    /// Permission, set-ID and sticky bits, below 0o10000; without the bits of the kind.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change.
    pub mtime: Time,
    /// Number of names; of a directory 2 and one for each directory in it.
    pub nlink: u32,
    /// Length of a file or of a symbolic link's target, in bytes; 0 for all others.
    pub size: u64,
    /// Device numbers, major and minor; 0 for all but devices.
    pub device: (u32, u32),
}

/// A name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// The name.
    pub name: &'a [u8],
    /// What has it.
    pub node: NodeId,
    /// What kind that is.
    pub kind: NodeKind,
}

/// A piece of a file, and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRef {
    /// Its number in the index, below [`ImageIndex::chunk_count`].
    pub number: u32,
    /// The file it is part of; one of its names, if it has several.
    pub node: NodeId,
    /// Where it begins in the file, in bytes.
    pub file_offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// Digest of exactly these bytes; `None` only if the group has one.
    pub digest: Option<Digest>,
    /// Where it begins in what the group decodes to, in bytes.
    pub inner_offset: u64,
    /// Its group.
    pub group: GroupRef,
}

/// The least unit of a blob that can be fetched and decoded alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupRef {
    /// Its number in the index, below [`ImageIndex::group_count`].
    pub number: u32,
    /// The number of its blob in [`ImageIndex::blobs`].
    pub blob: u32,
    /// Where it begins in the blob, in bytes.
    pub offset: u64,
    /// Its length in the blob, in bytes. See [`crate::Group::length`].
    pub length: u64,
    /// What it decodes to, in bytes, if known.
    pub output_length: Option<u64>,
    /// How it is coded; a checkpoint's number is that in the blob's [`Toc`].
    pub coding: Coding,
    /// Digest of its coded bytes.
    pub digest: Option<Digest>,
}

impl ImageIndex {
    /// The root directory.
    pub const ROOT: NodeId = NodeId(1);
}

#[cfg(test)]
mod tests;
