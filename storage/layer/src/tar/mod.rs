//! A strict streaming reader and a deterministic writer of tar archives.
//!
//! [`Reader`] reads what images contain: ustar, PAX (local headers; global ones as below), GNU long names and numbers,
//! sparse files of GNU and PAX forms. Whatever two common readers (Go's `archive/tar`, GNU tar, Python's `tarfile`)
//! would understand differently is refused, because a layer that shows one tree to a scanner and another to the host
//! is how tar readers are attacked (CVE-2025-62518 and kin). Where they agree, we agree with Go, which the other
//! engines use.
//!
//! ```text
//! header* -> entry -> data -> padding -> header* -> ... -> two zero blocks | end at a block -> whatever follows
//! ```
//! The end of the archive is the end of the entries; [`Reader::drain`] reads what follows it.
//!
//! [`Writer`] writes ustar, and PAX records for what ustar has no room for: the same entries give the same bytes, and
//! every common reader gives the same entries back.
//!
//! Not here: what an entry does to a tree (`apply`), whiteouts, names as paths.

mod entry;
mod error;
mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use entry::{Entry, EntryKind, Xattrs};
pub use error::TarError;
pub use reader::{Piece, Reader};
pub use writer::{EntryUnwritable, WriteError, Writer};
