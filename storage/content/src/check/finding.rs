//! What a check finds: which thing, what is wrong with it, whom it hurts.

use std::fmt;

use storage_model::{Digest, DocumentError, Namespace};

use crate::error::RecordProblem;
use crate::thing::Thing;
use crate::{SnapshotKind, StoreError};

/// Something that is not as it should be.
#[derive(Debug)]
pub struct Finding {
    /// What it is about.
    pub suspect: Suspect,
    /// The namespaces that have it.
    pub namespaces: Vec<Namespace>,
    /// What is wrong.
    pub problem: Problem,
    /// Images that need it.
    pub images: Vec<(Namespace, String)>,
}

/// What a finding is about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Suspect {
    /// A thing of one or more namespaces.
    Thing(Thing),
    /// A record that cannot be read, so that nobody knows what it was.
    Record {
        /// Its table.
        table: &'static str,
        /// Its key, escaped; empty if the table itself cannot be read on.
        key: String,
    },
}

impl fmt::Display for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Thing(thing) => thing.fmt(f),
            Self::Record { table, key } => write!(f, "record {table} {key:?}"),
        }
    }
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A blob's file is gone.
    #[error("its file is gone")]
    FileGone,
    /// A blob's file has another size than its record says.
    #[error("its file has {found} bytes, not {expected}")]
    Size {
        /// Size in the record, in bytes.
        expected: u64,
        /// Size of the file, in bytes.
        found: u64,
    },
    /// A blob's bytes have another digest.
    #[error("its bytes have the digest {found}")]
    Digest {
        /// Digest of what was read.
        found: Digest,
    },
    /// A file or record could not be read.
    #[error("it cannot be read")]
    Unreadable(#[source] StoreError),
    /// A record's value is not what this program writes.
    #[error("its record is damaged")]
    Record(#[source] RecordProblem),
    /// The records of namespaces and the record of the bytes do not agree.
    #[error("{holders} namespaces are counted to have it, {found} have it")]
    Holders {
        /// Namespaces counted in the record of the bytes.
        holders: u32,
        /// Namespaces that have a record.
        found: u32,
    },
    /// Content that an image needs is not here.
    #[error("{missing} is not here, which {parent} refers to")]
    ContentGone {
        /// What is not here.
        missing: Digest,
        /// The document that refers to it; for the target of an image, the same.
        parent: Digest,
    },
    /// None of an index's manifests is here.
    #[error("none of the {count} manifests of {index} is here")]
    NoManifest {
        /// The index.
        index: Digest,
        /// Manifests it lists.
        count: usize,
    },
    /// A manifest or index cannot be understood.
    #[error("{digest} is no manifest that can be read")]
    Document {
        /// The document.
        digest: Digest,
        /// Why not.
        #[source]
        source: DocumentError,
    },
    /// The snapshot that something stands on is gone.
    #[error("it stands on snapshot {parent:?}, which is gone")]
    ParentGone {
        /// The parent.
        parent: String,
    },
    /// The snapshot that something stands on is not committed.
    #[error("it stands on snapshot {parent:?}, which is {kind}")]
    ParentNotCommitted {
        /// The parent.
        parent: String,
        /// What it is.
        kind: SnapshotKind,
    },
    /// The snapshot is not listed among those that stand on its parent, or listed and does not.
    #[error("the list of what stands on snapshot {parent:?} is wrong about it")]
    Edge {
        /// The parent.
        parent: String,
    },
    /// Two snapshots have one number, so one directory.
    #[error("snapshot {other:?} has the same number {number}")]
    NumberTwice {
        /// The number.
        number: u64,
        /// The other snapshot.
        other: String,
    },
    /// The snapshot that is a container's root is gone.
    #[error("its root, snapshot {key:?} of {snapshotter}, is gone")]
    RootGone {
        /// The snapshotter.
        snapshotter: String,
        /// The snapshot.
        key: String,
    },
}
