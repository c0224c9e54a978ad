//! What keeps and is kept: the things of a namespace, by the names that people and clients give them.

use std::fmt;

use storage_model::Digest;

use crate::kind::Subject;
use crate::lease::{Resource, ResourceKind};

/// A thing of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Thing {
    /// A blob.
    Blob(Digest),
    /// A snapshot, of any kind.
    Snapshot {
        /// Its snapshotter.
        snapshotter: String,
        /// Its key, or its name if it is committed.
        key: String,
    },
    /// An image, by name.
    Image(String),
    /// An ingest, by reference.
    Ingest(String),
    /// A container, by identifier.
    Container(String),
    /// A lease, by name.
    Lease(String),
}

impl Thing {
    /// A snapshot.
    pub fn snapshot(snapshotter: impl Into<String>, key: impl Into<String>) -> Self {
        Self::Snapshot { snapshotter: snapshotter.into(), key: key.into() }
    }

    /// Kind of the thing.
    pub fn subject(&self) -> Subject {
        match self {
            Self::Blob(_) => Subject::Blob,
            Self::Snapshot { .. } => Subject::Snapshot,
            Self::Image(_) => Subject::Image,
            Self::Ingest(_) => Subject::Ingest,
            Self::Container(_) => Subject::Container,
            Self::Lease(_) => Subject::Lease,
        }
    }

    /// Its digest, key, name, reference or identifier.
    pub fn name(&self) -> String {
        match self {
            Self::Blob(digest) => digest.to_string(),
            Self::Snapshot { key: name, .. }
            | Self::Image(name)
            | Self::Ingest(name)
            | Self::Container(name)
            | Self::Lease(name) => name.clone(),
        }
    }

    /// Its snapshotter, if it is a snapshot.
    pub fn snapshotter(&self) -> Option<&str> {
        match self {
            Self::Snapshot { snapshotter, .. } => Some(snapshotter),
            _ => None,
        }
    }

    /// What a lease lists; none if the resource can name nothing.
    pub fn of_resource(resource: &Resource) -> Option<Self> {
        Some(match &resource.kind {
            ResourceKind::Content => Self::Blob(resource.id.parse().ok()?),
            ResourceKind::Ingests => Self::Ingest(resource.id.clone()),
            ResourceKind::Images => Self::Image(resource.id.clone()),
            ResourceKind::Snapshots(snapshotter) => Self::snapshot(snapshotter, &resource.id),
        })
    }
}

/// `blob sha256:...`, `image docker.io/library/alpine:3`, `snapshot overlayfs/sha256:...`.
impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob(digest) => write!(f, "blob {digest}"),
            Self::Snapshot { snapshotter, key } => write!(f, "snapshot {snapshotter}/{key}"),
            Self::Image(name) => write!(f, "image {name}"),
            Self::Ingest(reference) => write!(f, "ingest {reference}"),
            Self::Container(id) => write!(f, "container {id}"),
            Self::Lease(id) => write!(f, "lease {id}"),
        }
    }
}
