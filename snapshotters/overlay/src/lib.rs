//! Snapshots as directories that overlayfs stacks: `snapshots/<number>/{fs,work}` below the store's root.
//!
//! The store's table says what there is; a directory only holds files. A snapshot's number is never given twice, so
//! nothing is ever renamed into place: a commit is one metadata transaction, and where the two disagree after a crash,
//! the table is right:
//! - record, no directory: the crash came between the two steps of prepare. Nobody was told, nothing was written; the
//!   directory is made when it is asked for. For a committed snapshot it is damage and said so.
//! - directory, no record: removed, collected, or never finished. [`Overlay::new`] and [`Overlay::cleanup`] discard it.
//!
//! Prepare writes the record first and makes the directory second; remove deletes the record first and the directory
//! second. So a directory that is seen without a record belongs to nobody, whoever else is at work.
//!
//! The folder `snapshots` belongs to this snapshotter alone. Not here: the table (`storage-content`), mounting
//! (`storage-sys`), the promises (`snapshotters-contract`).
#![forbid(unsafe_code)]

mod bound;
mod directories;
mod stack;

use std::sync::Arc;

use snapshotters_contract::{SnapshotError, Snapshotter};
use storage_content::{Space, Store};

use bound::Bound;
use directories::Directories;

/// Name of this snapshotter, containerd's for the same thing.
pub const NAME: &str = "overlayfs";

/// The snapshotter over one store. Cheap to clone; [`bind`](Self::bind) it to a namespace to use it.
#[derive(Debug, Clone)]
pub struct Overlay(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Store,
    directories: Directories,
}

impl Overlay {
    /// Opens the snapshotter and discards what a crash left without a record.
    ///
    /// # Errors
    /// [`SnapshotError::Root`] if the store's path cannot be written as a mount option; [`SnapshotError::Io`] if the
    /// folder cannot be read; those of the store.
    pub fn new(store: &Store) -> Result<Self, SnapshotError> {
        let directories = Directories::open(store.root().join("snapshots"))?;
        let overlay = Self(Arc::new(Shared { store: store.clone(), directories }));
        overlay.cleanup()?;
        Ok(overlay)
    }

    /// The snapshotter as one namespace, and one lease if `space` has one, sees it.
    pub fn bind(&self, space: Space) -> Arc<dyn Snapshotter> {
        Arc::new(Bound::new(self.clone(), &space))
    }

    /// Discards the directories that no record of any namespace names. Costs one listing and one walk of the table; the
    /// files are unlinked later, by a thread of the store.
    ///
    /// # Errors
    /// Those of the store and of the folder; what could not be discarded is found again the next time.
    pub fn cleanup(&self) -> Result<(), SnapshotError> {
        // In this order: a directory listed now had its record before.
        let found = self.0.directories.list()?;
        let known = self.0.store.snapshot_numbers()?;
        let mut first_error = None;
        for number in found.into_iter().filter(|number| !known.contains(number)) {
            tracing::debug!(number, "discarding a directory that no snapshot owns");
            if let Err(error) = self.0.store.discard(&self.0.directories.of(number)) {
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(()), |error| Err(error.into()))
    }
}
