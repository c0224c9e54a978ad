//! The canonical bytes of a [`Toc`]: what `layers/<blob>.toc` holds.
//!
//! ```text
//! magic 16 | prefetch | digests | entries | chunks | groups | checkpoints | SHA-256 of all before it
//! ```
//! Numbers are LEB128 of at most 10 bytes; lists have their count in front. A path is what it shares with the path before
//! it, and the rest. A digest is a number in the list of digests plus one, or 0 for none. The same table gives the same
//! bytes on every machine; 100,000 files take about 8 MB, most of it digests.
//!
//! Decoding believes the checksum as little as anything else: no count is allocated for that the bytes left could not fill.

mod read;
mod write;

use crate::{IndexError, Toc};

/// First bytes, with the version of this encoding.
const MAGIC: &[u8; 16] = b"windlass layer 1";
/// For people.
const WHAT: &str = "table of contents of a layer";

impl Toc {
    /// The canonical bytes of this table.
    pub fn encode(&self) -> Vec<u8> {
        write::write(self)
    }

    /// Reads what [`Toc::encode`] wrote. What comes back has been looked at for its form only: [`Toc::validate`] says
    /// whether it may be used.
    ///
    /// # Errors
    /// [`IndexError::Checksum`] if the bytes are damaged, [`IndexError::Format`] if they are something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        read::read(bytes)
    }
}

/// Which kind of entry, as a number.
mod kind {
    pub(super) const DIRECTORY: u64 = 0;
    pub(super) const FILE: u64 = 1;
    pub(super) const SYMLINK: u64 = 2;
    pub(super) const HARDLINK: u64 = 3;
    pub(super) const CHARACTER: u64 = 4;
    pub(super) const BLOCK: u64 = 5;
    pub(super) const FIFO: u64 = 6;
}

/// Which coding, as a number.
mod coding {
    pub(super) const PLAIN: u64 = 0;
    pub(super) const GZIP: u64 = 1;
    pub(super) const ZSTD: u64 = 2;
    pub(super) const DEFLATE: u64 = 3;
    pub(super) const ZEROS: u64 = 4;
}
