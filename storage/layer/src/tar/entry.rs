//! One entry as the archive gives it.

use storage_sys::tree::Timestamp;

/// Extended attributes: names and values, in the order of the archive.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// One entry: names are bytes as they stand in the archive, numbers are within their ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name, without NUL; not cleaned.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission, set-ID and sticky bits, below 0o10000.
    pub mode: u32,
    /// Owner, below 2^32 - 1.
    pub uid: u32,
    /// Group, below 2^32 - 1.
    pub gid: u32,
    /// Last change.
    pub mtime: Timestamp,
    /// Last access, if the archive knows.
    pub atime: Option<Timestamp>,
    /// Extended attributes (`SCHILY.xattr.*`), in the order of the archive, each name once.
    pub xattrs: Xattrs,
    /// Length of the file, holes included; 0 for all but files.
    pub size: u64,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A file.
    File,
    /// Another name of an earlier entry.
    HardLink(Vec<u8>),
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A character device.
    Char {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}
