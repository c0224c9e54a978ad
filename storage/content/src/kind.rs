//! Words of errors: what can be done about one, and what it is about.

use std::fmt;

/// Class of an error: what a caller can do about it. The daemon maps each to one gRPC code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The named thing does not exist.
    NotFound,
    /// The named thing exists already.
    AlreadyExists,
    /// The request can never succeed as it is.
    InvalidArgument,
    /// The request could succeed if something else changed first.
    FailedPrecondition,
    /// An offset lies outside the content.
    OutOfRange,
    /// Somebody else is at it, or a part is down: try again later.
    Unavailable,
    /// The disk or a quota is full.
    ResourceExhausted,
    /// Stored bytes were lost or damaged.
    DataLoss,
    /// The user of this process may not do it.
    PermissionDenied,
    /// Somebody asked who you are, and the answer did not please.
    Unauthenticated,
    /// It took too long.
    DeadlineExceeded,
    /// It was called off.
    Cancelled,
    /// It was called off because of a conflict; a new attempt may succeed.
    Aborted,
    /// This is not built.
    Unimplemented,
    /// A defect here or below.
    Internal,
}

/// Kind of a thing in the store, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Subject {
    /// A blob, by digest.
    Blob,
    /// A download in progress, by reference.
    Ingest,
    /// An image, by name.
    Image,
    /// A lease, by identifier.
    Lease,
    /// A container, by identifier.
    Container,
    /// A snapshot, by key.
    Snapshot,
    /// A snapshotter, by name.
    Snapshotter,
    /// A namespace, by name.
    Namespace,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blob => "blob",
            Self::Ingest => "ingest",
            Self::Image => "image",
            Self::Lease => "lease",
            Self::Container => "container",
            Self::Snapshot => "snapshot",
            Self::Snapshotter => "snapshotter",
            Self::Namespace => "namespace",
        })
    }
}
