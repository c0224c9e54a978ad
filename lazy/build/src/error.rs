//! Why a layer could not be written or indexed.

use std::io;

use storage_layer::{EntryName, LayerError, tar::TarError};

/// Why a layer could not be written or indexed. The sink keeps what it got; nothing else is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Reading the layer's tar failed.
    #[error("reading the layer failed")]
    Source(#[source] io::Error),
    /// Writing the new layer failed.
    #[error("writing the layer failed")]
    Sink(#[source] io::Error),
    /// The layer is no tar that we read.
    #[error("the layer cannot be read")]
    Tar(#[from] TarError),
    /// The layer is not what its compression says.
    #[error("the layer cannot be decompressed")]
    Layer(#[source] LayerError),
    /// The compressed stream is damaged or cut off.
    #[error("the layer's {format} stream is damaged after {uncompressed_bytes} bytes of its tar")]
    Stream {
        /// The format.
        format: &'static str,
        /// How far it could be read, in bytes of the tar.
        uncompressed_bytes: u64,
        /// The decoder's word.
        source: io::Error,
    },
    /// More than a limit allows.
    #[error("the layer has more {what} than the limit of {limit}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// An entry that the format has no way to express. Leave the layer as it is.
    #[error("{name} cannot stand in a table of contents: {reason}")]
    Entry {
        /// The entry.
        name: EntryName,
        /// Why.
        reason: &'static str,
    },
    /// A level of compression that the format does not have.
    #[error("level {level} is not one of {format}'s: they go from {least} to {most}")]
    Level {
        /// The format.
        format: &'static str,
        /// What was asked for.
        level: i32,
        /// The lowest there is.
        least: i32,
        /// The highest there is.
        most: i32,
    },
    /// The frames of a zstd layer are too large for one of them to be decoded for the sake of a file.
    #[error(
        "the layer cannot be entered: its frames decode to up to {frame_bytes} bytes, the limit is {limit_bytes}"
    )]
    NotSeekable {
        /// Bytes that the largest frame decodes to.
        frame_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// A thread could not be started.
    #[error("starting a thread failed")]
    Thread(#[source] io::Error),
}

impl BuildError {
    /// The layer itself is at fault in that the format cannot express it: it is better left as it is.
    pub fn is_inexpressible(&self) -> bool {
        matches!(self, Self::Entry { .. } | Self::NotSeekable { .. })
    }
}
