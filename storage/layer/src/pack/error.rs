//! Why a layer was not packed.

use std::io;
use std::path::PathBuf;

use storage_model::Compression;
use storage_sys::tree::EntryPath;

use crate::tar::WriteError;
use crate::{EntryName, LayerError};

/// Why a layer was not packed or recompressed. The sink keeps what it got; nothing else was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The layer to recompress cannot be read.
    #[error("{0}")]
    Layer(#[source] LayerError),
    /// The sink failed; its own error.
    #[error("writing the layer failed: {0}")]
    Sink(#[source] io::Error),
    /// A level the format does not have.
    #[error("{compression:?} has no level {level}: use {least} to {most}")]
    Level {
        /// The format.
        compression: Compression,
        /// The level asked for.
        level: i32,
        /// The lowest there is.
        least: i32,
        /// The highest there is.
        most: i32,
    },
    /// A tree cannot be opened.
    #[error("cannot read the tree {path}: {source}")]
    Root {
        /// Its root.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// An entry cannot be read.
    #[error("cannot {action} {name}: {source}")]
    Read {
        /// The entry.
        name: EntryName,
        /// What was tried, as a verb.
        action: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
    /// An entry no layer can hold.
    #[error("{name} cannot be part of a layer: {reason}")]
    Entry {
        /// The entry.
        name: EntryName,
        /// Why.
        reason: Unpackable,
    },
    /// The tar cannot be written.
    #[error("{0}")]
    Tar(#[source] WriteError),
    /// No thread could be started.
    #[error("cannot start a thread to compress the layer: {0}; the machine or its limits allow no more")]
    Thread(#[source] io::Error),
}

/// Why an entry cannot be part of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unpackable {
    /// Its name begins with `.wh.`, which means a deletion in a layer.
    WhiteoutName,
    /// Its path is longer than 4095 bytes.
    TooLong,
    /// The upper directory only refers to data in a lower one (`redirect_dir`, `metacopy`).
    Redirected,
}

impl std::fmt::Display for Unpackable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::WhiteoutName => "a name that begins with \".wh.\" means a deletion there; rename it",
            Self::TooLong => "its path is longer than 4095 bytes",
            Self::Redirected => {
                "the overlay was mounted with redirect_dir or metacopy and keeps only a reference; \
                 compare the mounted trees instead"
            }
        })
    }
}

/// Names the entry an operation failed for.
pub(super) fn reading(path: &EntryPath, action: &'static str) -> impl FnOnce(io::Error) -> PackError {
    let name = EntryName(path.as_bytes().to_vec());
    move |source| PackError::Read { name, action, source }
}
