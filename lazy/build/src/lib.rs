//! Makes layers that can be read lazily, and indexes of layers that were not made so.
//!
//! ```text
//! tar --scan--> items --order--> items --plan--> members --encode (threads)--> blob --+-> TOC, footer, annotations
//! compressed stream --decompress, noting where it can be entered--> tar --> Toc (ours), zTOC (SOCI)
//! ```
//! [`write_layer`] writes eStargz and zstd:chunked in the dialects of both their families. [`index_layer`] reads a layer of
//! any ordinary compression once and says where each of its files lies, so that the next reader need not fetch all of it;
//! [`soci`] writes the same as AWS's SOCI artifacts, for other readers.
//!
//! Promises: the same tar and options give the same bytes, whatever the number of threads; what a table of contents says of
//! a file is taken from the tar that is written, so that the two cannot disagree; a tar that a format cannot express is an
//! error before the first byte is written. Nothing here is unpacked, fetched or stored.
//!
//! Not here: reading these formats (`lazy-index`), manifests and configs of converted images (`runtime/engine`).
#![forbid(unsafe_code)]

mod encode;
mod error;
mod header;
mod index;
mod layer;
mod order;
mod plan;
mod rollsum;
mod scan;
pub mod soci;

mod tar_split;
#[cfg(test)]
mod tests;
mod toc;

pub use error::BuildError;
pub use index::{IndexOptions, Indexed, Indexer, index_layer};
pub use layer::{Dialect, Format, LayerOptions, Written, write_layer};
