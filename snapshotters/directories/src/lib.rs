//! Snapshots as numbered directories: `snapshots/<number>/` below the store's root, for every snapshotter that keeps its
//! trees in such. What lies in one directory is the [`Form`]; everything else is the same for all and is here.
//!
//! The store's table says what there is; a directory only holds files. A snapshot's number is never given twice, so
//! nothing is ever renamed into place: a commit is one metadata transaction, and where the two disagree after a crash,
//! the table is right:
//! - record, no directory: the crash came between the two steps of prepare. Nobody was told, nothing was written; the
//!   directory is made when it is asked for. For a committed snapshot it is damage and said so.
//! - directory, no record: removed, collected, or never finished. [`Snapshots::new`] and [`Snapshots::cleanup`] discard it.
//!
//! Prepare writes the record first and makes the directory second; remove deletes the record first and the directory
//! second. So a directory that is seen without a record belongs to nobody, whoever else is at work.
//!
//! Not here: the table (`storage-content`), mounting (`storage-sys`), the promises (`snapshotters-contract`).
#![forbid(unsafe_code)]

mod bound;
mod folder;
mod form;
mod group;
mod mounts;
mod numbers;

use std::sync::Arc;

use snapshotters_contract::{SnapshotError, Snapshotter};
use storage_content::{Space, Store};

use bound::Bound;

pub use folder::{Folder, Top, create};
pub use form::{Form, Stacked};
pub use mounts::{bind_mount, overlay_mount, upper_mount};

/// A snapshotter of one form over one store. Cheap to clone; [`bind`](Self::bind) it to a namespace to use it.
#[derive(Debug)]
pub struct Snapshots<F: Form>(Arc<Shared<F>>);

#[derive(Debug)]
pub(crate) struct Shared<F> {
    pub(crate) form: F,
    pub(crate) folder: Folder,
}

impl<F: Form> Clone for Snapshots<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F: Form> Snapshots<F> {
    /// Opens the snapshotter and discards what a crash left without a record.
    ///
    /// # Errors
    /// [`SnapshotError::Root`] if the store's path cannot be written as a mount option; [`SnapshotError::Io`] if the
    /// folder cannot be read; those of the store.
    pub fn new(store: &Store) -> Result<Self, SnapshotError>
    where
        F: Default,
    {
        Self::with_form(store, F::default())
    }

    /// The same with a form that has to be told something first.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_form(store: &Store, form: F) -> Result<Self, SnapshotError> {
        let snapshots = Self(Arc::new(Shared { form, folder: Folder::open(store)? }));
        snapshots.cleanup()?;
        Ok(snapshots)
    }

    /// The folder its directories are in.
    pub fn folder(&self) -> &Folder {
        &self.0.folder
    }

    /// The snapshotter as one namespace, and one lease if `space` has one, sees it.
    pub fn bind(&self, space: Space) -> Arc<dyn Snapshotter> {
        Arc::new(Bound::new(Arc::clone(&self.0), &space))
    }

    /// Discards the directories that no record of any namespace or snapshotter names. Costs one listing and one walk of
    /// the table; the files are unlinked later, by a thread of the store.
    ///
    /// # Errors
    /// Those of the store and of the folder; what could not be discarded is found again the next time.
    pub fn cleanup(&self) -> Result<(), SnapshotError> {
        self.0.cleanup()
    }
}

impl<F: Form> Shared<F> {
    pub(crate) fn cleanup(&self) -> Result<(), SnapshotError> {
        let discarded = self.folder.discard_unowned();
        let swept = self.form.sweep(&self.folder);
        discarded.and(swept)
    }
}
