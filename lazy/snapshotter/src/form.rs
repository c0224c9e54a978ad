//! The form: overlay's, but that a committed snapshot may stand for a layer that was not unpacked.
//!
//! Such a snapshot's `fs` is empty and only lends its owner and mode to those that are made on it. What it stands for is
//! seen through one read-only mount of the merged tree of it and all below it ([`crate::shown`]), which takes their
//! place among the lower directories. It stands on nothing or on another of its kind, so below the highest of them there
//! are only layers of one merged tree; ordinary snapshots may stand on it.

use std::path::PathBuf;
use std::sync::Arc;

use snapshotters_contract::{Kind, LayerTarget, Mount, SnapshotError, Usage};
use snapshotters_directories::{Folder, Form, Stacked, bind_mount, overlay_mount};
use snapshotters_overlay::Layers as Ordinary;
use storage_content::SnapshotRecord;

use crate::layer::{self, Layer};
use crate::shown::Shown;

/// See the module.
#[derive(Debug)]
pub(crate) struct Layers {
    ordinary: Ordinary,
    shown: Arc<Shown>,
}

/// The part of a lineage that is not unpacked: all of it up to some snapshot, or nothing.
pub(crate) struct Split {
    /// Described layers, lowest first.
    pub(crate) described: Vec<Layer>,
    /// How many records of the lineage they are; the others are ordinary.
    pub(crate) count: usize,
}

impl Layers {
    pub(crate) fn new(shown: Arc<Shown>) -> Self {
        Self { ordinary: Ordinary, shown }
    }

    /// The directories below which an overlay on `lineage` (lowest first) stands, the highest first. Mounts what has to be.
    fn lower(&self, folder: &Folder, lineage: &[SnapshotRecord]) -> Result<Vec<PathBuf>, SnapshotError> {
        let split = split(folder, lineage)?;
        let mut lower = self.ordinary.layers(folder, &lineage[split.count..]);
        if let Some(top) = split.count.checked_sub(1) {
            lower.push(self.shown.show(&lineage[top].key, &split.described)?);
        }
        Ok(lower)
    }
}

/// What of `lineage` (lowest first) is described.
pub(crate) fn split(folder: &Folder, lineage: &[SnapshotRecord]) -> Result<Split, SnapshotError> {
    let is_described = |record: &SnapshotRecord| layer::is_described(&folder.of(record.number));
    let count = lineage.iter().rposition(is_described).map_or(0, |top| top + 1);
    let mut described = Vec::with_capacity(count);
    for record in &lineage[..count] {
        let path = folder.of(record.number);
        let layer = Layer::read(&path)?;
        described.push(layer.ok_or_else(|| SnapshotError::Missing { key: record.key.clone(), path })?);
    }
    Ok(Split { described, count })
}

impl Form for Layers {
    const NAME: &'static str = crate::NAME;

    fn make(&self, folder: &Folder, snapshot: &Stacked) -> Result<(), SnapshotError> {
        self.ordinary.make(folder, snapshot)
    }

    fn mounts(&self, folder: &Folder, snapshot: &Stacked) -> Result<Vec<Mount>, SnapshotError> {
        let Stacked { record, parents } = snapshot;
        if !parents.iter().any(|parent| layer::is_described(&folder.of(parent.number))) {
            return self.ordinary.mounts(folder, snapshot);
        }
        let lower = self.lower(folder, parents)?;
        let directory = folder.of(record.number);
        let mount = match (record.kind == Kind::Active, lower.as_slice()) {
            (true, lower) => {
                let files = self.ordinary.files(folder, record);
                overlay_mount(lower, Some((&files, &directory.join("work"))))?
            }
            (false, [only]) => bind_mount(only, true)?,
            (false, lower) => overlay_mount(lower, None)?,
        };
        Ok(vec![mount])
    }

    fn files(&self, folder: &Folder, record: &SnapshotRecord) -> PathBuf {
        self.ordinary.files(folder, record)
    }

    fn target(&self, folder: &Folder, snapshot: &Stacked) -> LayerTarget {
        self.ordinary.target(folder, snapshot)
    }

    fn layers(&self, folder: &Folder, lineage: &[SnapshotRecord]) -> Vec<PathBuf> {
        // Of layers that cannot be shown now the empty directories remain: nothing is invented.
        self.lower(folder, lineage).unwrap_or_else(|error| {
            tracing::warn!(%error, "layers that are not unpacked cannot be looked at");
            self.ordinary.layers(folder, lineage)
        })
    }

    fn record(&self, folder: &Folder, snapshot: &SnapshotRecord) -> Option<PathBuf> {
        self.ordinary.record(folder, snapshot)
    }

    fn seal(
        &self,
        folder: &Folder,
        snapshot: &Stacked,
        base: Option<&SnapshotRecord>,
        counted: Option<Usage>,
    ) -> Result<Usage, SnapshotError> {
        self.ordinary.seal(folder, snapshot, base, counted)
    }
}
