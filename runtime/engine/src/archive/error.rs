//! Why an archive cannot be read or written.

use std::io;

use storage_content::ErrorKind;
use storage_layer::LayerError;
use storage_layer::tar::{TarError, WriteError};
use storage_model::{Digest, ReferenceError};

/// Why an archive cannot be read or written. After a failed import no name has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The stream broke off.
    #[error("reading the archive failed")]
    Source(#[source] io::Error),
    /// The archive's own compression is broken, or hides a bomb.
    #[error("the archive cannot be decompressed")]
    Compressed(#[source] LayerError),
    /// Compressed in a way that is not read here.
    #[error("the archive is compressed with {0}: decompress it first (gzip, zstd and plain tars are read)")]
    Compression(&'static str),
    /// Not a tar, or one that readers would understand differently.
    #[error("the archive is not a tar that can be read")]
    Tar(#[source] TarError),
    /// A name that leads out of the archive, or is none.
    #[error("the archive has an entry called {name:?}, which is no place inside it")]
    EntryName {
        /// First 128 characters of the name.
        name: String,
    },
    /// An entry that is neither file, directory nor link.
    #[error("{name:?} in the archive is a {kind}: image archives hold files, directories and links")]
    EntryKind {
        /// Its name.
        name: String,
        /// What it is.
        kind: &'static str,
    },
    /// Two files of one name: readers would take different ones.
    #[error("the archive has two files called {name:?}: what it means depends on who reads it")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// More files than any real archive has.
    #[error("the archive has more than {files_max} files, the limit set for it")]
    TooManyFiles {
        /// The limit.
        files_max: usize,
    },
    /// A document of the archive beyond its limit.
    #[error("{name:?} in the archive is {size} bytes: at most {bytes_max} are read")]
    TooLarge {
        /// The document.
        name: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        bytes_max: u64,
    },
    /// Neither an OCI layout nor a docker-archive.
    #[error(
        "this is no image archive: it has neither index.json (OCI layout) nor manifest.json (docker save){hint}"
    )]
    Unknown {
        /// What to do.
        hint: &'static str,
    },
    /// An OCI layout of a version that nobody has written yet.
    #[error("the archive is an OCI layout of version {version:?}: 1.0.0 can be read")]
    Version {
        /// What `oci-layout` says.
        version: String,
    },
    /// A document that is not what its name promises.
    #[error("{name:?} in the archive cannot be read")]
    Syntax {
        /// The document.
        name: String,
        /// What the JSON reader found.
        source: serde_json::Error,
    },
    /// A document that lists more than any real one.
    #[error("{name:?} in the archive lists {count} {what}, at most {max} are read")]
    TooMany {
        /// The document.
        name: String,
        /// `images` or `layers`.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many may be.
        max: usize,
    },
    /// A file that another one refers to is not there.
    #[error("the archive has no {name:?}, which its manifest.json refers to: it is incomplete")]
    Missing {
        /// The file.
        name: String,
    },
    /// The archive's name for an image is none.
    #[error("the archive calls an image {name:?}, which is no image name")]
    ImageName {
        /// The name.
        name: String,
        /// Why.
        source: ReferenceError,
    },
    /// One name for two images: readers would take different ones.
    #[error("the archive gives the name {name} to two images ({} and {})", first.short(), second.short())]
    SameName {
        /// The name.
        name: String,
        /// One target.
        first: Digest,
        /// The other.
        second: Digest,
    },
    /// Nothing that was asked for is in it.
    #[error("the archive holds no image that is asked for")]
    Empty,
    /// The stream that takes the archive failed.
    #[error("writing the archive failed")]
    Write(#[source] WriteError),
}

impl ArchiveError {
    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Source(source) => source_kind(source),
            Self::Tar(TarError::Input(source)) => source_kind(source),
            Self::Compressed(LayerError::Source(source)) => source_kind(source),
            Self::Empty => ErrorKind::NotFound,
            Self::Write(WriteError::Output(source)) => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::ResourceExhausted,
                _ => ErrorKind::Unavailable,
            },
            Self::Write(_) => ErrorKind::Internal,
            _ => ErrorKind::InvalidArgument,
        }
    }
}

/// A stream that broke is not the archive's fault.
fn source_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::ConnectionAborted => ErrorKind::Cancelled,
        io::ErrorKind::InvalidData => ErrorKind::InvalidArgument,
        _ => ErrorKind::Unavailable,
    }
}

impl From<TarError> for ArchiveError {
    fn from(error: TarError) -> Self {
        match error {
            TarError::Input(source) => unwrapped(source),
            other => Self::Tar(other),
        }
    }
}

/// The cause that was passed through a reader's `io::Error`.
fn unwrapped(error: io::Error) -> ArchiveError {
    match error.downcast::<LayerError>() {
        Ok(LayerError::Source(source)) => ArchiveError::Source(source),
        Ok(layer) => ArchiveError::Compressed(layer),
        Err(error) => ArchiveError::Source(error),
    }
}
