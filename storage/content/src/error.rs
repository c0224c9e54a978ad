//! What can go wrong in the store, and how a caller should class it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use storage_model::{Digest, LabelsError};

use crate::kind::{ErrorKind, Subject};

/// Why the store refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Nothing has that name here.
    #[error("{subject} {name:?} not found")]
    NotFound {
        /// What was looked for.
        subject: Subject,
        /// Its name.
        name: String,
    },
    /// Something has that name already.
    #[error("{subject} {name:?} already exists")]
    AlreadyExists {
        /// What was to be created.
        subject: Subject,
        /// Its name.
        name: String,
    },
    /// A name is empty, too long or holds a NUL.
    #[error("{subject} name {name:?} is not valid: it must have 1 to {max} bytes and no NUL")]
    Name {
        /// What was named.
        subject: Subject,
        /// First 64 characters of the name.
        name: String,
        /// Longest name, in bytes.
        max: usize,
    },
    /// A label is too long.
    #[error(transparent)]
    Labels(#[from] LabelsError),
    /// A lease resource has a kind or an identifier that means nothing here.
    #[error(
        "lease resource {kind:?} {id:?} is not known: use content, ingests, images or snapshots/<snapshotter>, and a digest for content"
    )]
    Resource {
        /// The kind as given.
        kind: String,
        /// The identifier as given.
        id: String,
    },
    /// The bytes that arrived are not the bytes that were named: the source is at fault.
    #[error("content of {expected} has digest {actual}: the source sent other bytes")]
    DigestMismatch {
        /// Digest that was asked for.
        expected: Digest,
        /// Digest of the bytes received.
        actual: Digest,
    },
    /// The file of a blob is gone, or no longer of its size.
    #[error("the file of blob {digest} was lost or damaged: fetch it again")]
    Lost {
        /// The blob.
        digest: Digest,
    },
    /// Another number of bytes arrived than was announced.
    #[error("ingest {reference:?} has {actual} bytes but {expected} were announced")]
    SizeMismatch {
        /// Reference of the ingest.
        reference: String,
        /// Announced size in bytes.
        expected: u64,
        /// Size of what arrived, in bytes.
        actual: u64,
    },
    /// An ingest cannot be cut at a place it has not reached.
    #[error("ingest {reference:?} has {size} bytes and cannot be continued at {offset}")]
    Offset {
        /// Reference of the ingest.
        reference: String,
        /// Offset asked for, in bytes.
        offset: u64,
        /// Bytes there are.
        size: u64,
    },
    /// A part of a check that is none.
    #[error("part {index} of {count} is none: parts are counted from 1 to {count}")]
    Subset {
        /// The part asked for.
        index: u32,
        /// How many parts there are.
        count: u32,
    },
    /// Another writer holds the reference.
    #[error("ingest {reference:?} is being written by someone else: wait for it, or use another reference")]
    Busy {
        /// Reference of the ingest.
        reference: String,
    },
    /// Only a committed snapshot may be a parent.
    #[error("snapshot {parent:?} cannot be a parent: it is {kind}, only a committed snapshot can")]
    ParentNotCommitted {
        /// The parent asked for.
        parent: String,
        /// What it is.
        kind: crate::SnapshotKind,
    },
    /// A commit named another parent than the snapshot was made on.
    #[error("snapshot {key:?} stands on {parent:?} and cannot be committed on {rebase:?}")]
    Rebase {
        /// The active snapshot.
        key: String,
        /// Its parent.
        parent: String,
        /// The parent asked for.
        rebase: String,
    },
    /// A commit named a parent that is not committed.
    #[error("snapshot {key:?} cannot be committed on {rebase:?}: that one is {kind}, not committed")]
    RebaseNotCommitted {
        /// The active snapshot.
        key: String,
        /// The parent asked for.
        rebase: String,
        /// What it is.
        kind: crate::SnapshotKind,
    },
    /// Only an active snapshot can be committed.
    #[error("snapshot {key:?} is {kind}, not active: only an active snapshot can be committed")]
    NotActive {
        /// The snapshot.
        key: String,
        /// What it is.
        kind: crate::SnapshotKind,
    },
    /// Others stand on the snapshot.
    #[error(
        "cannot remove snapshot {key:?}: {children} stand on it, {child:?} among them; remove those first"
    )]
    HasChildren {
        /// The snapshot.
        key: String,
        /// How many stand on it.
        children: usize,
        /// One of them.
        child: String,
    },
    /// A namespace that still holds something cannot be deleted.
    #[error("namespace {namespace:?} is not empty: it still has {left}; remove them first")]
    NamespaceNotEmpty {
        /// The namespace.
        namespace: String,
        /// What is left, such as `2 images, 7 blobs`.
        left: String,
    },
    /// Another process has the store open.
    #[error("{root} is in use by process {holder}: stop it, or choose another root", root = root.display(), holder = holder_text(*.holder))]
    InUse {
        /// Root of the store.
        root: PathBuf,
        /// Process that holds it, when it is known.
        holder: Option<u32>,
    },
    /// The root belongs to someone else.
    #[error("{path} belongs to user {owner}, not to user {user} who runs this: change its owner, or choose another root", path = path.display())]
    NotOwned {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who runs this process.
        user: u32,
    },
    /// The root holds other people's files.
    #[error("{path} is not a store and not empty: it holds {found:?}; choose an empty directory", path = path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// Something found in it.
        found: String,
    },
    /// The store was written by a version that this one does not understand.
    #[error("{path} was written by another version: {problem}; use that version, or choose another root", path = path.display())]
    Format {
        /// The `VERSION` file.
        path: PathBuf,
        /// What is not understood.
        problem: FormatProblem,
    },
    /// No room left.
    #[error("no space left while trying to {action} {path}: free some space on its file system and try again", path = path.display())]
    Full {
        /// What was being done.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system or the metadata store said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The system refused an operation on a file.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The disk did not take what was written: the object is discarded, never retried.
    #[error("the disk lost data while syncing {path}: what was written there is discarded; check the disk, then fetch it again", path = path.display())]
    Sync {
        /// What was being synced.
        path: PathBuf,
        /// What the system said, if this very call failed.
        #[source]
        source: Option<io::Error>,
    },
    /// The metadata store failed.
    #[error("the metadata store failed to {action} its tables")]
    Metadata {
        /// What was being done.
        action: &'static str,
        /// What it said.
        #[source]
        source: rocksdb::Error,
    },
    /// The metadata has lost the file that says where everything is.
    #[error("the metadata in {path} has lost its CURRENT file", path = path.display())]
    MetadataHeadless {
        /// Its directory.
        path: PathBuf,
    },
    /// The log of the metadata has lost something in its middle.
    #[error("the log of the metadata in {path} has a hole", path = path.display())]
    MetadataLog {
        /// Its directory.
        path: PathBuf,
    },
    /// A record cannot be read: it was damaged, or written by a later version.
    #[error("the record of {table} {key:?} cannot be read")]
    Record {
        /// Its table.
        table: &'static str,
        /// Its key, escaped.
        key: String,
        /// Why not.
        #[source]
        source: RecordProblem,
    },
}

/// Why a `VERSION` file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatProblem {
    /// Not the text of a version file.
    #[error("its first line is not `windlass-store <number>`")]
    Syntax,
    /// A later format.
    #[error("format {0} is not known here")]
    Number(u32),
    /// A feature that must be understood to open the store.
    #[error("feature {0:?} is not known here and must be")]
    Incompatible(String),
    /// A feature that must be understood to write to the store.
    #[error("feature {0:?} is not known here and the store may only be read without it")]
    ReadOnlyCompatible(String),
}

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordProblem {
    /// No version byte.
    #[error("it is empty")]
    Empty,
    /// Written by a later version.
    #[error("its version is {0}, which is not known here")]
    Version(u8),
    /// Not what the version promises.
    #[error("its content is damaged")]
    Content(#[from] serde_json::Error),
}

/// What a transaction was doing when it failed in its commit.
pub(crate) const COMMIT: &str = "commit to";

fn holder_text(holder: Option<u32>) -> String {
    holder.map_or_else(|| "(unknown)".to_owned(), |pid| pid.to_string())
}

impl StoreError {
    /// Class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::AlreadyExists { .. } => ErrorKind::AlreadyExists,
            Self::Name { .. }
            | Self::Labels(_)
            | Self::Resource { .. }
            | Self::Subset { .. }
            | Self::ParentNotCommitted { .. }
            | Self::Rebase { .. } => ErrorKind::InvalidArgument,
            Self::DigestMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::RebaseNotCommitted { .. }
            | Self::NotActive { .. }
            | Self::HasChildren { .. }
            | Self::NamespaceNotEmpty { .. }
            | Self::NotAStore { .. }
            | Self::Format { .. } => ErrorKind::FailedPrecondition,
            Self::Offset { .. } => ErrorKind::OutOfRange,
            Self::Busy { .. } | Self::InUse { .. } => ErrorKind::Unavailable,
            Self::NotOwned { .. } => ErrorKind::PermissionDenied,
            Self::Full { .. } => ErrorKind::ResourceExhausted,
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    ErrorKind::PermissionDenied
                }
                _ => ErrorKind::Internal,
            },
            Self::Sync { .. }
            | Self::Record { .. }
            | Self::Lost { .. }
            | Self::MetadataHeadless { .. }
            | Self::MetadataLog { .. } => ErrorKind::DataLoss,
            Self::Metadata { source, .. } => match source.kind() {
                rocksdb::ErrorKind::Corruption => ErrorKind::DataLoss,
                rocksdb::ErrorKind::Busy | rocksdb::ErrorKind::TimedOut | rocksdb::ErrorKind::TryAgain => {
                    ErrorKind::Unavailable
                }
                _ => ErrorKind::Internal,
            },
        }
    }

    /// Whether the named thing does not exist.
    pub fn is_not_found(&self) -> bool {
        self.kind() == ErrorKind::NotFound
    }

    /// Whether the named thing exists already.
    pub fn is_already_exists(&self) -> bool {
        self.kind() == ErrorKind::AlreadyExists
    }

    /// Whether a transaction failed only because others ran beside it.
    pub(crate) fn is_conflict(&self) -> bool {
        use rocksdb::ErrorKind::{Busy, TryAgain};
        matches!(self, Self::Metadata { source, .. } if matches!(source.kind(), Busy | TryAgain))
    }

    /// Whether a transaction failed in its commit: it may or may not be found done when the metadata is opened anew.
    pub(crate) fn is_uncertain(&self) -> bool {
        matches!(self, Self::Metadata { action: COMMIT, .. } | Self::Full { action: COMMIT, .. })
    }

    /// Whether a record was written by a later version: it is not damaged, and not ours to drop.
    pub(crate) fn is_later_version(&self) -> bool {
        matches!(self, Self::Record { source: RecordProblem::Version(_), .. })
    }

    pub(crate) fn not_found(subject: Subject, name: impl fmt::Display) -> Self {
        Self::NotFound { subject, name: name.to_string() }
    }

    pub(crate) fn already_exists(subject: Subject, name: impl fmt::Display) -> Self {
        Self::AlreadyExists { subject, name: name.to_string() }
    }

    /// An error of the system, with its own variant when the disk or a quota is full.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { action, path, source: Box::new(source) }
            }
            _ => Self::Io { action, path, source },
        }
    }
}

/// Attaches what was done, and to which path, to an error of the system.
pub(crate) trait IoContext<T> {
    fn doing(self, action: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn doing(self, action: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::io(action, path, source))
    }
}
