//! Why a snapshotter refused or failed, and how a caller should class it.

use std::io;
use std::path::PathBuf;

use storage_content::{ErrorKind, SnapshotKind, StoreError, Subject};

use crate::key::KEY_BYTES_MAX;

/// Why a snapshotter refused or failed. What a failed call leaves behind is stated with each method.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// No snapshot has this key or name.
    #[error("snapshot {key:?} not found")]
    NotFound {
        /// The key or name.
        key: String,
    },
    /// A snapshot has this key or name already, of whatever kind.
    #[error("snapshot {key:?} already exists")]
    AlreadyExists {
        /// The key or name.
        key: String,
    },
    /// The text cannot be a key.
    #[error("{key:?} is not a snapshot key: it has {length} bytes; 1 to {max} without NUL are allowed", max = KEY_BYTES_MAX)]
    Key {
        /// First 64 characters of the text.
        key: String,
        /// Its length in bytes.
        length: usize,
    },
    /// A committed snapshot was to be mounted.
    #[error("snapshot {key:?} is {kind}, not active or a view: make a view of it and mount that")]
    NotMountable {
        /// Its name.
        key: String,
        /// What it is.
        kind: SnapshotKind,
    },
    /// A snapshot that is not active was to be written to.
    #[error(
        "snapshot {key:?} is {kind}, not active: only an active snapshot can be written to and committed"
    )]
    NotActive {
        /// The snapshot.
        key: String,
        /// What it is.
        kind: SnapshotKind,
    },
    /// The chain of parents is longer than can be mounted.
    #[error("snapshot {key:?} would stand on {count} layers: at most {max} can be mounted at once")]
    TooManyLayers {
        /// The snapshot.
        key: String,
        /// Layers below it.
        count: usize,
        /// Most that can be mounted.
        max: usize,
    },
    /// A committed snapshot's files are not where they were put.
    #[error(
        "the files of snapshot {key:?} are missing ({path:?}): the store was changed from outside; \
         remove the images that use it and pull them again"
    )]
    Missing {
        /// The snapshot.
        key: String,
        /// Where they should be.
        path: PathBuf,
    },
    /// The place where snapshots are kept cannot be written as a mount option.
    #[error(
        "snapshots cannot be kept under {path:?}: the path is not valid UTF-8, which mount options on the wire must be"
    )]
    Root {
        /// The directory.
        path: PathBuf,
    },
    /// What a snapshot stands on is not unpacked here, and whoever shows it cannot.
    #[error("the layers below snapshot {key:?} are not unpacked and cannot be shown")]
    NotShown {
        /// The snapshot, or the committed one it stands on.
        key: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The disk or a quota is full.
    #[error("cannot {action} {path:?}: no space is left; free some, or remove images that are not used")]
    Full {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// The system refused an operation on a file.
    #[error("cannot {action} {path:?}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// The store refused or failed.
    #[error(transparent)]
    Store(StoreError),
}

impl SnapshotError {
    /// Class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::AlreadyExists { .. } => ErrorKind::AlreadyExists,
            Self::Key { .. } | Self::Root { .. } => ErrorKind::InvalidArgument,
            Self::NotMountable { .. } | Self::NotActive { .. } | Self::TooManyLayers { .. } => {
                ErrorKind::FailedPrecondition
            }
            Self::Missing { .. } => ErrorKind::DataLoss,
            Self::NotShown { .. } => ErrorKind::Unavailable,
            Self::Full { .. } => ErrorKind::ResourceExhausted,
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    ErrorKind::PermissionDenied
                }
                _ => ErrorKind::Internal,
            },
            Self::Store(error) => error.kind(),
        }
    }

    /// An error of the system, with its own variant when the disk or a quota is full.
    pub fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { action, path, source },
            _ => Self::Io { action, path, source },
        }
    }
}

impl From<StoreError> for SnapshotError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { subject: Subject::Snapshot, name } => Self::NotFound { key: name },
            StoreError::AlreadyExists { subject: Subject::Snapshot, name } => {
                Self::AlreadyExists { key: name }
            }
            StoreError::NotActive { key, kind } => Self::NotActive { key, kind },
            other => Self::Store(other),
        }
    }
}
