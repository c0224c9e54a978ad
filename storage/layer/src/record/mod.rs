//! The tree record: what an unpacked layer has to look like, written while it is unpacked.
//!
//! A power cut, a bad disk or a stray `rm` leaves a tree that no longer is what was unpacked, and nothing else in the
//! store would know: a layer's digest is that of its archive. The record has, for each entry of the finished tree, its
//! kind, mode, owner, time, size, device, target, extended attributes and the BLAKE3 of its content, so that
//! [`crate::check_tree`] finds any difference and [`crate::repair_tree`] mends it.
//!
//! ```text
//! "windlass tree 1\n"  entry*  0xff  count  BLAKE3 of all bytes before (32 bytes)
//! entry:  flags kind, path (bytes shared with the one before, length and bytes of the rest),
//!         but for links: mode uid gid seconds nanoseconds [BLAKE3 of the extended attributes],
//!         then by kind:  file: size [BLAKE3]   link: number of the entry   symlink: length and target
//!                        device: major minor
//! ```
//! Numbers are LEB128, signed ones zigzag. Entries are in the order of a walk: names sorted by their bytes, a directory
//! before what is in it; so writing, reading and checking need memory for one path and no more. Some 60 bytes an entry.
//!
//! The record is of the tree as it is on the disk: an overlay's whiteouts and opaque marks are in it, escaped attributes
//! under their escaped names. Directories that the layer only implies are marked so: [`crate::settle`] gives them their
//! attributes later, from the layers below. Not here: keeping it durable (the engine's `syncfs` covers it).

mod content;
mod error;
mod read;
mod walk;
mod write;

use storage_sys::tree::{EntryPath, Timestamp};

pub(crate) use content::{Content, xattr_digest};
pub use error::RecordError;
pub use read::RecordReader;
pub(crate) use walk::Walk;
pub(crate) use write::{Recording, in_order};

/// BLAKE3 of something.
pub type Hash = [u8; 32];

/// First bytes of a record: format and version.
const MAGIC: &[u8; 16] = b"windlass tree 1\n";
/// Where an entry's flags would be, at the end.
const END: u8 = 0xff;

/// One entry of a recorded tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Where it is; the empty path is the root.
    pub path: EntryPath,
    /// What it is, and what belongs to that.
    pub what: What,
    /// A directory the layer has no entry for: only its kind and mark are known.
    pub implied: bool,
    /// A directory that hides what lower layers have in it.
    pub opaque: bool,
    /// Permission, set-ID and sticky bits; 0, as what follows, for links, whiteouts and implied directories.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// BLAKE3 of the extended attributes; `None` if there are none.
    pub xattrs: Option<Hash>,
}

/// What a recorded entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A directory.
    Directory,
    /// A file.
    File {
        /// Its length in bytes.
        size: u64,
        /// BLAKE3 of its content; `None` if it has holes of more than 1 GiB, or was not brought by the layer.
        content: Option<Hash>,
    },
    /// Another name of an earlier entry.
    Link {
        /// Number of that entry in the record, counted from 0.
        first: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Where it leads.
        target: Vec<u8>,
    },
    /// A character device; 0:0 is an overlay's whiteout.
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
    /// A named pipe.
    Fifo,
}

/// What the first byte of an entry says.
mod flags {
    pub(super) const KIND: u8 = 0x07;
    pub(super) const IMPLIED: u8 = 0x08;
    pub(super) const OPAQUE: u8 = 0x10;
    pub(super) const XATTRS: u8 = 0x20;
    pub(super) const CONTENT: u8 = 0x40;
    pub(super) const DIRECTORY: u8 = 0;
    pub(super) const FILE: u8 = 1;
    pub(super) const LINK: u8 = 2;
    pub(super) const SYMLINK: u8 = 3;
    pub(super) const CHAR: u8 = 4;
    pub(super) const BLOCK: u8 = 5;
    pub(super) const FIFO: u8 = 6;
}

#[cfg(test)]
mod tests;
