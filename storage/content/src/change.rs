//! What happened in the store, told to one observer.
//!
//! The observer is called by whoever made the change, after the change is durable and when no lock of the store is held:
//! it may use the store. Changes of different threads may be told in another order than they became durable in; those of
//! one thread are told in theirs. A process that dies between the two tells nobody: events are news, the store is the truth.
//!
//! Told is what a client could see: not the namespaces that a first write makes on the way (containerd does not either),
//! not labels of blobs and snapshots, not leases.

use std::sync::{Arc, PoisonError, RwLock};

use storage_model::{Digest, Labels, Namespace};

use crate::store::Store;

/// Who is told. It is called on the thread that made the change and holds that thread up: it should only pass on.
pub type Observer = Arc<dyn Fn(&Namespace, &Change) + Send + Sync>;

/// One change, in the namespace it is told with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// The namespace was created by name.
    NamespaceCreated {
        /// Its labels.
        labels: Labels,
    },
    /// The labels of the namespace changed.
    NamespaceUpdated {
        /// All its labels now.
        labels: Labels,
    },
    /// The namespace was deleted.
    NamespaceDeleted,
    /// An image was made.
    ImageCreated {
        /// Its name.
        name: String,
        /// Its labels.
        labels: Labels,
    },
    /// An image was replaced or changed.
    ImageUpdated {
        /// Its name.
        name: String,
        /// All its labels now.
        labels: Labels,
    },
    /// An image was deleted, or collected when it expired.
    ImageDeleted {
        /// Its name.
        name: String,
    },
    /// The namespace has a blob it had not.
    ContentCreated {
        /// Its digest.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// The namespace has a blob no more.
    ContentDeleted {
        /// Its digest.
        digest: Digest,
    },
    /// An active snapshot was made. Views are not told.
    SnapshotPrepared {
        /// Its snapshotter.
        snapshotter: String,
        /// Its key.
        key: String,
        /// What it stands on.
        parent: Option<String>,
    },
    /// An active snapshot became a committed one.
    SnapshotCommitted {
        /// Its snapshotter.
        snapshotter: String,
        /// The key it had.
        key: String,
        /// Its name now.
        name: String,
    },
    /// A snapshot was removed.
    SnapshotRemoved {
        /// Its snapshotter.
        snapshotter: String,
        /// Its key, or its name if it was committed.
        key: String,
    },
    /// A container was made.
    ContainerCreated {
        /// Its identifier.
        id: String,
        /// Name of its image, or empty.
        image: String,
        /// Its runtime.
        runtime: String,
    },
    /// A container was changed.
    ContainerUpdated {
        /// Its identifier.
        id: String,
        /// Name of its image, or empty.
        image: String,
        /// All its labels now.
        labels: Labels,
        /// Key of the snapshot that is its root, or empty.
        snapshot_key: String,
    },
    /// A container was deleted.
    ContainerDeleted {
        /// Its identifier.
        id: String,
    },
}

/// The observer of one store.
#[derive(Default)]
pub(crate) struct Observed(RwLock<Option<Observer>>);

impl Store {
    /// Tells `observer` of every change from now on, in place of the observer before.
    pub fn observe(&self, observer: Observer) {
        *self.0.observed.0.write().unwrap_or_else(PoisonError::into_inner) = Some(observer);
    }

    /// Tells the observer, if there is one. To be called without any lock, after the change is durable.
    pub(crate) fn tell(&self, namespace: &Namespace, change: impl FnOnce() -> Change) {
        let observer = self.0.observed.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(observer) = observer {
            observer(namespace, &change());
        }
    }
}
