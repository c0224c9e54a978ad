//! Finds out what a remote layer holds without fetching the layer.
//!
//! `annotations -> where a table of contents may be -> one range -> digest as the manifest says? -> Toc, validated`
//!
//! | the manifest says of the layer | and it is | asked for |
//! |---|---|---|
//! | `containerd.io/snapshot/stargz/toc.digest` on gzip | eStargz | the end of the blob, in one range with luck |
//! | `io.github.containers.zstd-chunked.manifest-checksum` and `-position` | zstd:chunked of podman | exactly the table |
//! | `io.containers.zstd-chunked.manifest-checksum` and `-position` alone | zstd:chunked of older podmans | the same |
//! | `containerd.io/snapshot/stargz/toc.digest` on zstd | zstd:chunked of stargz | its position, or the end |
//! | nothing of this kind | [`Format::Opaque`] | nothing |
//!
//! A table counts only if its digest stands in the manifest (row L6): footers and positions say where to look, no more. A
//! place that sends something else is not asked again, and the next one is.
//!
//! Not here: what the formats mean (`lazy-index`), tables that are made here of a layer's bytes (`lazy-build`).

mod ask;
mod error;
mod layer;
mod outside;
mod soci;
mod table;

pub use error::DescribeError;
pub use layer::layer;
pub use soci::{SociLayer, soci, soci_layer};

use lazy_index::zstd_chunked::Dialect;
use lazy_index::{Limits, Toc};

/// How a layer is described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// eStargz, its table in the layer.
    Estargz,
    /// eStargz, its table in an image beside it.
    EstargzOutside,
    /// zstd:chunked, in the dialect of podman or of stargz.
    ZstdChunked(Dialect),
    /// SOCI, bound to the image by its manifest.
    Soci,
    /// SOCI of version 1, which only the repository vouches for.
    SociUnbound,
    /// Not at all: it has to be fetched whole.
    Opaque,
}

impl Format {
    /// Its name, for people and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Estargz => "estargz",
            Self::EstargzOutside => "estargz-external",
            Self::ZstdChunked(Dialect::Containers) => "zstd:chunked",
            Self::ZstdChunked(Dialect::Stargz) => "zstd:chunked-stargz",
            Self::Soci => "soci",
            Self::SociUnbound => "soci-v1",
            Self::Opaque => "opaque",
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// What a table may ask for.
    pub limits: Limits,
    /// Most bytes of a blob's end that are asked for before it is known where its table begins.
    ///
    /// A table has 100 to 130 bytes a file after compression, about one in a hundred of the blob; asked for is a
    /// sixty-fourth, within 32 KiB and this. One more request follows if that was too little.
    pub tail_bytes_max: u64,
}

impl Default for Want {
    fn default() -> Self {
        Self { limits: Limits::default(), tail_bytes_max: 1 << 20 }
    }
}

/// What a layer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its table of contents, validated; empty for [`Format::Opaque`].
    pub toc: Toc,
    /// How it was described.
    pub format: Format,
    /// Bytes that were fetched for it.
    pub bytes_fetched: u64,
    /// Requests that were made for it.
    pub requests: u32,
}

impl Described {
    fn opaque() -> Self {
        Self { toc: Toc::default(), format: Format::Opaque, bytes_fetched: 0, requests: 0 }
    }
}
