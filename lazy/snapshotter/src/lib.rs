//! The snapshotter of images that are not unpacked: a committed snapshot stands for a layer whose table of contents is
//! here, and is seen through a FUSE mount that fetches what is read.
//!
//! ```text
//! describe (elsewhere) -> add_layer: table on the shelf, layer.json, commit     the image exists, no byte of it fetched
//! prepare / view / mounts: merged index of the stack -> mount -> overlay(lower = that mount, upper, work)
//! the last snapshot on a stack is removed -> its mount goes
//! ```
//! - A stack of layers has one mount for all containers, images and namespaces, named by its contents ([`StackId`]).
//! - Ordinary snapshots live beside and above: what is prepared, written and committed here is overlay's, and the
//!   contract's suite runs on it. Only what stands on nothing or on another described layer can be described.
//! - What is shown was verified piece by piece against the image's manifest; that the pieces are the tar its config
//!   speaks of is proved when all bytes are here, and noted with the layer ([`Lazy::set_verified`]).
//!
//! Not here: finding out what is in a layer (`lazy-fetch`), whether to be lazy at all (the engine), the mount itself
//! (`lazy-mount`).
#![forbid(unsafe_code)]

mod bound;
mod form;
mod layer;
mod shelf;
mod shown;

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use lazy_index::Toc;
use snapshotters_contract::{ActiveKey, CommittedName, SnapshotError, Snapshotter, Usage};
use snapshotters_directories::{Folder, Snapshots, Top};
use storage_content::{ErrorKind, SnapshotRecord, Space, Store};
use storage_model::Labels;

use bound::Bound;
use form::{Layers, split};
use shelf::Named;

pub use layer::Layer;
pub use lazy_fetch::{Access, Origin};
pub use shelf::{Hold, Known, Shelf, StackId};
pub use shown::{Places, Shown, TRACE_BYTES_MAX};

/// Name of this snapshotter.
pub const NAME: &str = "lazy";

/// The snapshotter over one store. Cheap to clone; [`bind`](Self::bind) it to a namespace to use it.
#[derive(Debug, Clone)]
pub struct Lazy(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) snapshots: Snapshots<Layers>,
    pub(crate) shown: Arc<Shown>,
}

/// A committed stack of described layers.
#[derive(Debug, Clone)]
pub struct Stack {
    /// Its name among mounts.
    pub id: StackId,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
    /// How many of them were read whole and proved; the lowest first.
    pub verified: Vec<bool>,
}

impl Lazy {
    /// Opens the snapshotter and discards what a crash left. Nothing is mounted, and no registry is asked.
    ///
    /// # Errors
    /// Those of the folder and of the store.
    pub fn open(store: &Store, places: Places) -> Result<Self, SnapshotError> {
        let shown = Arc::new(Shown::new(store.root(), places)?);
        let snapshots = Snapshots::with_form(store, Layers::new(shown.clone()))?;
        Ok(Self(Arc::new(Inner { store: store.clone(), snapshots, shown })))
    }

    /// The snapshotter as one namespace, and one lease if `space` has one, sees it.
    pub fn bind(&self, space: Space) -> Arc<dyn Snapshotter> {
        let ordinary = self.0.snapshots.bind(space.clone());
        Arc::new(Bound { lazy: self.clone(), ordinary, space })
    }

    /// What shows stacks.
    pub fn shown(&self) -> &Shown {
        &self.0.shown
    }

    /// Makes the committed snapshot `name` on `parent`, which stands for `layer`. Its blob need not be here.
    ///
    /// `toc` must have been proved to be what the image says of `layer.blob`: what it says is what will be shown.
    ///
    /// # Errors
    /// [`SnapshotError::AlreadyExists`] if `name` is taken; [`SnapshotError::NotFound`] if there is no `parent`; kind
    /// `FailedPrecondition` if `parent` is an ordinary snapshot. Nothing is left then.
    pub fn add_layer(
        &self,
        space: &Space,
        name: &CommittedName,
        parent: Option<&CommittedName>,
        layer: Layer,
        toc: &Toc,
        labels: &Labels,
    ) -> Result<(), SnapshotError> {
        let held = self.0.shown.shelf().hold();
        let layer = Layer { toc: self.0.shown.shelf().put_toc(&held, toc)?, ..layer };
        if let Some(parent) = parent
            && self.stack(space, parent)?.is_none()
        {
            return Err(SnapshotError::Io {
                action: "stand for a layer on the unpacked snapshot",
                path: parent.as_str().into(),
                source: std::io::ErrorKind::Unsupported.into(),
            });
        }
        let ordinary = self.0.snapshots.bind(space.clone());
        let key = making(name)?;
        // One that a crash left has the same key; whoever is at work on it now loses the race below.
        match ordinary.remove(key.as_str()) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        ordinary.prepare(&key, None, &Labels::new())?;
        let made = self
            .describe(space, &key, &layer, toc)
            .and_then(|usage| ordinary.commit_with_usage(&key, name, parent, labels, Some(usage)));
        if made.is_err()
            && let Err(error) = ordinary.remove(key.as_str())
        {
            tracing::warn!(%key, %error, "a layer that could not be added stays until the next cleanup");
        }
        made
    }

    /// Writes what the active snapshot `key` will stand for.
    fn describe(
        &self,
        space: &Space,
        key: &ActiveKey,
        layer: &Layer,
        toc: &Toc,
    ) -> Result<Usage, SnapshotError> {
        let record = space.snapshots(NAME).get(key.as_str())?;
        let directory = self.folder().of(record.number);
        if let Some(root) = toc.entries.iter().rev().find(|entry| entry.path.is_empty()) {
            Top::new(root.uid, root.gid, root.mode).give_durably(&directory.join("fs"))?;
        }
        layer.write(&directory)?;
        // A committed snapshot without its description would be an ordinary, empty one: its name has to be there too.
        if let Some(folder) = directory.parent() {
            let synced = storage_sys::durable::sync_directory(folder);
            synced.map_err(|source| SnapshotError::io("sync", folder, source))?;
        }
        self.folder().usage(&directory)
    }

    /// What the committed snapshot `name` stands for; none if it, or what is below it, is unpacked.
    ///
    /// # Errors
    /// [`SnapshotError::NotFound`]; [`SnapshotError::Io`] if a description is damaged.
    pub fn stack(&self, space: &Space, name: &CommittedName) -> Result<Option<Stack>, SnapshotError> {
        let lineage = space.snapshots(NAME).lineage(name.as_str())?;
        let split = split(self.folder(), &lineage)?;
        if split.count != lineage.len() {
            return Ok(None);
        }
        let is_verified = |record: &SnapshotRecord| layer::is_verified(&self.folder().of(record.number));
        let verified = lineage.iter().map(is_verified).collect();
        Ok(Some(Stack { id: StackId::of(&split.described), layers: split.described, verified }))
    }

    /// Notes durably that the layer of `name` was read whole: blob digest, diff ID and table of contents are proved.
    ///
    /// # Errors
    /// [`SnapshotError::NotFound`]; [`SnapshotError::Io`].
    pub fn set_verified(&self, space: &Space, name: &CommittedName) -> Result<(), SnapshotError> {
        let record = space.snapshots(NAME).get(name.as_str())?;
        layer::set_verified(&self.folder().of(record.number))
    }

    /// Frees what removed, collected and never finished snapshots of all namespaces left: directories, tables, indexes,
    /// and mounts of stacks that no snapshot stands on any more.
    ///
    /// # Errors
    /// The first there was; what could not be freed is found again the next time.
    pub fn cleanup(&self) -> Result<(), SnapshotError> {
        let directories = self.0.snapshots.cleanup();
        let hidden = self.0.shown.hide_unless(|| self.in_use());
        let swept = self.0.shown.shelf().sweep(|| self.named());
        directories.and(hidden).and(swept)
    }

    /// Whether the active snapshot or view `key` stands on a mount of ours.
    pub(crate) fn is_shown_below(&self, space: &Space, key: &str) -> bool {
        let lineage = space.snapshots(NAME).lineage(key);
        lineage.is_ok_and(|lineage| {
            let active = lineage.last().is_some_and(|record| record.usage.is_none());
            active && split(self.folder(), &lineage).is_ok_and(|split| split.count > 0)
        })
    }

    /// Takes away the mounts that no active snapshot or view stands on.
    pub(crate) fn hide_unused(&self) {
        if let Err(error) = self.0.shown.hide_unless(|| self.in_use()) {
            tracing::warn!(%error, "a tree that nobody uses stays mounted until the next cleanup");
        }
    }

    fn folder(&self) -> &Folder {
        self.0.snapshots.folder()
    }

    /// Stacks that active snapshots and views of any namespace stand on.
    fn in_use(&self) -> Result<HashSet<StackId>, SnapshotError> {
        let mut used = HashSet::new();
        self.each_lineage(
            |record| record.usage.is_none(),
            |split| {
                if split.count > 0 {
                    used.insert(StackId::of(&split.described));
                }
            },
        )?;
        Ok(used)
    }

    /// Tables and stacks that committed snapshots of any namespace name.
    fn named(&self) -> Result<Named, SnapshotError> {
        let mut named = Named::default();
        self.each_lineage(
            |_| true,
            |split| {
                named.tocs.extend(split.described.iter().map(|layer| layer.toc));
                if split.count > 0 {
                    named.stacks.insert(StackId::of(&split.described));
                }
            },
        )?;
        Ok(named)
    }

    fn each_lineage(
        &self,
        wanted: impl Fn(&SnapshotRecord) -> bool,
        mut visit: impl FnMut(form::Split),
    ) -> Result<(), SnapshotError> {
        for namespace in self.0.store.namespaces()? {
            let table = self.0.store.space(&namespace.name).snapshots(NAME);
            let mut keys = Vec::new();
            table.walk(&mut |record| {
                if wanted(&record) {
                    keys.push(record.key);
                }
                ControlFlow::Continue(())
            })?;
            for key in keys {
                match table.lineage(&key) {
                    Ok(lineage) => visit(split(self.folder(), &lineage)?),
                    // Gone meanwhile.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

/// Key of the active snapshot that becomes `name`.
fn making(name: &CommittedName) -> Result<ActiveKey, SnapshotError> {
    format!("describing {name}").parse()
}
