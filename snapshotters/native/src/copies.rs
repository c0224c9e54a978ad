//! The form: each directory holds a whole tree.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use snapshotters_contract::{Kind, LayerTarget, Mount, SnapshotError, Usage, WhiteoutForm};
use snapshotters_directories::{Folder, Form, Stacked, Top, bind_mount, upper_mount};
use storage_content::SnapshotRecord;
use storage_sys::clone::{clone_tree, has_whiteouts, merge_layer};

/// See the crate.
#[derive(Debug, Default)]
pub struct Copies;

/// The whole tree of a snapshot, made of its parent's.
fn whole(folder: &Folder, number: u64) -> PathBuf {
    folder.of(number).join("fs")
}

/// What lies in a snapshot that stands on nothing.
fn diff(folder: &Folder, number: u64) -> PathBuf {
    folder.of(number).join("diff")
}

/// The tree of a committed snapshot.
fn committed(folder: &Folder, number: u64) -> PathBuf {
    let whole = whole(folder, number);
    if whole.symlink_metadata().is_ok() { whole } else { diff(folder, number) }
}

impl Form for Copies {
    const NAME: &'static str = crate::NAME;

    fn make(&self, folder: &Folder, snapshot: &Stacked) -> Result<(), SnapshotError> {
        let Stacked { record, parents } = snapshot;
        let number = record.number;
        let Some(parent) = parents.last() else {
            let diff = diff(folder, number);
            if diff.symlink_metadata().is_err() {
                folder.make(number)?;
                folder.make_for_upper_mount(record)?;
            }
            return folder.appear(&diff, |new| Top::EMPTY.give(new));
        };
        let tree = committed(folder, parent.number);
        // Asked first: what is missing is said in better words than a copy's.
        Top::of_committed(tree.clone(), &parent.key)?;
        if record.kind == Kind::View {
            return Ok(());
        }
        folder.make(number)?;
        folder.appear(&whole(folder, number), |new| {
            copy(&tree, new)?;
            // It counts as whole from its rename on, so it is whole on the disk before.
            folder.sync()
        })
    }

    fn mounts(&self, folder: &Folder, snapshot: &Stacked) -> Result<Vec<Mount>, SnapshotError> {
        let Stacked { record, parents } = snapshot;
        let number = record.number;
        let mount = match (record.kind == Kind::Active, parents.last()) {
            (true, Some(_)) => bind_mount(&whole(folder, number), false)?,
            (true, None) => {
                let diff = diff(folder, number);
                match upper_mount(&folder.of(number), &diff)? {
                    Some(mount) => mount,
                    None => bind_mount(&diff, false)?,
                }
            }
            (false, Some(parent)) => bind_mount(&committed(folder, parent.number), true)?,
            (false, None) => bind_mount(&diff(folder, number), true)?,
        };
        Ok(vec![mount])
    }

    fn files(&self, folder: &Folder, record: &SnapshotRecord) -> PathBuf {
        match (record.kind, &record.parent) {
            (Kind::Committed, _) => committed(folder, record.number),
            (_, Some(_)) => whole(folder, record.number),
            (_, None) => diff(folder, record.number),
        }
    }

    fn target(&self, folder: &Folder, snapshot: &Stacked) -> LayerTarget {
        let number = snapshot.record.number;
        let (path, whiteouts) = if snapshot.parents.is_empty() {
            (diff(folder, number), WhiteoutForm::Overlay)
        } else {
            (whole(folder, number), WhiteoutForm::Apply)
        };
        LayerTarget { path, whiteouts, record: None }
    }

    /// One whole tree is all an overlay of it needs.
    fn layers(&self, folder: &Folder, lineage: &[SnapshotRecord]) -> Vec<PathBuf> {
        lineage.last().map(|record| committed(folder, record.number)).into_iter().collect()
    }

    fn record(&self, _: &Folder, _: &SnapshotRecord) -> Option<PathBuf> {
        None
    }

    fn seal(
        &self,
        folder: &Folder,
        snapshot: &Stacked,
        base: Option<&SnapshotRecord>,
        counted: Option<Usage>,
    ) -> Result<Usage, SnapshotError> {
        let number = snapshot.record.number;
        let whole = whole(folder, number);
        if !snapshot.parents.is_empty() {
            return match counted {
                // It is for the layer; a copy is counted whole.
                Some(_) => folder.usage(&whole),
                None => folder.count_and_sync(&whole),
            };
        }
        // Of a commit that came to nothing, perhaps on another parent.
        folder.discard_if_there(&whole)?;
        let diff = diff(folder, number);
        let below = base.map(|base| committed(folder, base.number));
        if let (Some(tree), Some(base)) = (&below, base) {
            Top::of_committed(tree.clone(), &base.key)?;
        } else if !deletes(&diff)? {
            return match counted {
                Some(usage) => Ok(usage),
                None => folder.count_and_sync(&diff),
            };
        }
        folder.appear(&whole, |new| stack(below.as_deref(), &diff, new))?;
        folder.count_and_sync(&whole)
    }

    fn sealed(&self, folder: &Folder, number: u64) {
        let diff = diff(folder, number);
        if whole(folder, number).symlink_metadata().is_err() {
            return;
        }
        // The second names of its files go; the files stay.
        if let Err(error) = folder.discard_if_there(&diff) {
            tracing::warn!(number, %error, "what a committed snapshot was made of stays until the next cleanup");
        }
    }

    fn sweep(&self, folder: &Folder) -> Result<(), SnapshotError> {
        let store = folder.store();
        for namespace in store.namespaces()? {
            let table = store.space(&namespace.name).snapshots(crate::NAME);
            table.walk(&mut |record| {
                if record.kind == Kind::Committed {
                    self.sealed(folder, record.number);
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(())
    }
}

fn deletes(diff: &Path) -> Result<bool, SnapshotError> {
    has_whiteouts(diff).map_err(|source| SnapshotError::io("look for deletions in", diff, source))
}

fn copy(tree: &Path, new: &Path) -> Result<(), SnapshotError> {
    clone_tree(tree, new).map_err(|source| SnapshotError::io("copy the parent's files to", new, source))?;
    Ok(())
}

/// Makes the whole tree of what a snapshot on nothing holds, and of the parent it is put on.
fn stack(tree: Option<&Path>, diff: &Path, new: &Path) -> Result<(), SnapshotError> {
    if let Some(tree) = tree {
        copy(tree, new)?;
    }
    merge_layer(diff, new).map_err(|source| SnapshotError::io("put together", new, source))?;
    // A layer that says nothing about its top directory shows its parent's.
    let top = Top::read(diff)?;
    if tree.is_none() || top != Top::EMPTY { top.give(new) } else { Ok(()) }
}
