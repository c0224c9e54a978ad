//! What is in a layer and where its bytes are: tables of contents of every format, merged into one immutable index per image.
//!
//! ```text
//! eStargz footer + TOC JSON ---+
//! zstd:chunked footer + TOC ---+                       of all layers
//! SOCI zTOC -------------------+--> Toc (one layer) --------------------> ImageIndex (merged tree, one file, mapped)
//! lazy-build's own indexer ----+     encode / decode: `layers/<blob>.toc`      `images/<chain>.idx`
//! ```
//!
//! [`Toc`] is a layer in the order of its tar, whatever the format was: entries, the pieces of each file ([`Chunk`]) and
//! the least units of the blob that can be fetched and decoded alone ([`Group`]). [`Toc::validate`] is the border: what
//! passes it obeys [`Limits`], stays inside the blob, and covers each file exactly once with bytes that have a digest.
//! [`ImageIndex`] is what the layers give together, as unpacking them and an overlay would, with node numbers that are a
//! pure function of the image.
//!
//! All of it is pure: bytes in, values out; the only I/O is to map an index file. Everything foreign is bounded by
//! [`Limits`], and each parser has a fuzz target.
//!
//! Not here: fetching and decompression (`lazy-fetch`), making tables of contents (`lazy-build`), showing them
//! (`lazy-mount`).
#![forbid(unsafe_code)]

mod error;
pub mod estargz;
mod image;
mod json;
mod limits;
pub mod soci;
mod toc;
pub mod zstd_chunked;

pub use error::IndexError;
pub use image::{Attr, ChunkRef, DirEntry, GroupRef, ImageIndex, LayerPart, NodeId, NodeKind};
pub use limits::Limits;
pub use storage_model::Digest;
pub use toc::{Checkpoint, Chunk, Coding, Entry, Group, Kind, Time, Toc, Xattrs};
