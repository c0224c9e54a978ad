//! The form: each directory holds what one snapshot changes.

use std::path::{Path, PathBuf};

use snapshotters_contract::{Kind, LayerTarget, Mount, SnapshotError, Usage, WhiteoutForm};
use snapshotters_directories::{Folder, Form, Stacked, Top, bind_mount, create, overlay_mount, upper_mount};
use storage_content::{SnapshotRecord, Store};
use storage_sys::mount::LAYERS_MAX;

/// What a snapshot changes.
const FILES: &str = "fs";

/// The record of what was unpacked.
const RECORD: &str = "tree";

/// See the crate.
#[derive(Debug, Default)]
pub struct Layers;

fn files(folder: &Folder, number: u64) -> PathBuf {
    folder.of(number).join(FILES)
}

fn work(folder: &Folder, number: u64) -> PathBuf {
    folder.of(number).join("work")
}

fn record(folder: &Folder, number: u64) -> PathBuf {
    folder.of(number).join(RECORD)
}

/// Where a layer is recorded that a client has unpacked into `target`, a path out of its mounts; none if that is not the
/// directory of a snapshot in `store`.
pub fn record_beside(store: &Store, target: &Path) -> Option<PathBuf> {
    let number = target.parent()?;
    let ours = number.parent()? == store.root().join("snapshots") && target.file_name()? == FILES;
    ours.then(|| number.join(RECORD))
}

impl Form for Layers {
    const NAME: &'static str = crate::NAME;

    fn make(&self, folder: &Folder, snapshot: &Stacked) -> Result<(), SnapshotError> {
        let Stacked { record, parents } = snapshot;
        if parents.len() > LAYERS_MAX {
            let (key, count) = (record.key.clone(), parents.len());
            return Err(SnapshotError::TooManyLayers { key, count, max: LAYERS_MAX });
        }
        let top = match parents.last() {
            Some(parent) => Top::of_committed(files(folder, parent.number), &parent.key)?,
            None => Top::EMPTY,
        };
        if record.kind == Kind::View && !parents.is_empty() {
            // It shows what others hold.
            return Ok(());
        }
        let files = files(folder, record.number);
        if files.symlink_metadata().is_ok() {
            return Ok(());
        }
        folder.make(record.number)?;
        if !parents.is_empty() {
            create(&work(folder, record.number), 0o711)?;
        }
        folder.make_for_upper_mount(record)?;
        folder.appear(&files, |new| top.give(new))
    }

    /// A bind where there is one directory, an overlay where there are several.
    fn mounts(&self, folder: &Folder, snapshot: &Stacked) -> Result<Vec<Mount>, SnapshotError> {
        let Stacked { record, parents } = snapshot;
        let own = files(folder, record.number);
        let lower: Vec<PathBuf> = parents.iter().rev().map(|parent| files(folder, parent.number)).collect();
        let mount = match (record.kind == Kind::Active, lower.as_slice()) {
            (true, []) => match upper_mount(&folder.of(record.number), &own)? {
                Some(mount) => mount,
                None => bind_mount(&own, false)?,
            },
            (true, lower) => overlay_mount(lower, Some((&own, &work(folder, record.number))))?,
            (false, []) => bind_mount(&own, true)?,
            (false, [only]) => bind_mount(only, true)?,
            (false, lower) => overlay_mount(lower, None)?,
        };
        Ok(vec![mount])
    }

    fn files(&self, folder: &Folder, record: &SnapshotRecord) -> PathBuf {
        files(folder, record.number)
    }

    fn target(&self, folder: &Folder, snapshot: &Stacked) -> LayerTarget {
        let number = snapshot.record.number;
        LayerTarget {
            path: files(folder, number),
            whiteouts: WhiteoutForm::Overlay,
            record: Some(record(folder, number)),
        }
    }

    fn layers(&self, folder: &Folder, lineage: &[SnapshotRecord]) -> Vec<PathBuf> {
        lineage.iter().rev().map(|record| files(folder, record.number)).collect()
    }

    fn record(&self, folder: &Folder, snapshot: &SnapshotRecord) -> Option<PathBuf> {
        Some(record(folder, snapshot.number))
    }

    fn seal(
        &self,
        folder: &Folder,
        snapshot: &Stacked,
        base: Option<&SnapshotRecord>,
        counted: Option<Usage>,
    ) -> Result<Usage, SnapshotError> {
        let files = files(folder, snapshot.record.number);
        if let Some(base) = base {
            inherit_top(folder, base, &files)?;
        }
        match counted {
            Some(usage) => Ok(usage),
            None => folder.count_and_sync(&files),
        }
    }
}

/// A layer that was unpacked on nothing and says nothing about its top directory shows its new parent's.
fn inherit_top(folder: &Folder, base: &SnapshotRecord, own: &Path) -> Result<(), SnapshotError> {
    let top = Top::of_committed(files(folder, base.number), &base.key)?;
    if top != Top::EMPTY && Top::read(own)? == Top::EMPTY {
        top.give_durably(own)?;
    }
    Ok(())
}
