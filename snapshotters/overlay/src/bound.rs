//! The snapshotter bound to one namespace: each call of the contract in terms of the table and the directories.

use std::ops::ControlFlow;
use std::path::PathBuf;

use snapshotters_contract::{
    ActiveKey, CommittedName, Info, Kind, LabelChange, LayerTarget, Mount, SnapshotError, Snapshotter, Usage,
    WhiteoutForm,
};
use storage_content::{NewSnapshot, SnapshotRecord, SnapshotTable, Space};
use storage_model::Labels;

use crate::directories::Directories;
use crate::stack::{Own, Stack};
use crate::{NAME, Overlay};

/// See [`Overlay::bind`].
#[derive(Debug)]
pub(crate) struct Bound {
    overlay: Overlay,
    table: SnapshotTable,
}

impl Bound {
    pub(crate) fn new(overlay: Overlay, space: &Space) -> Self {
        Self { overlay, table: space.snapshots(NAME) }
    }

    fn directories(&self) -> &Directories {
        &self.overlay.0.directories
    }

    /// Record first, directory second; if the second fails the first is taken back.
    fn begin(
        &self,
        kind: NewSnapshot,
        key: &ActiveKey,
        parent: Option<&CommittedName>,
        labels: &Labels,
    ) -> Result<Vec<Mount>, SnapshotError> {
        let parent = parent.map(CommittedName::as_str);
        let record = self.table.insert(kind, key.as_str(), parent, labels.clone())?;
        self.stack(&record).and_then(|stack| stack.mounts()).inspect_err(|_| {
            if let Err(error) = self.remove(key.as_str()) {
                tracing::warn!(%key, %error, "a snapshot that could not be made keeps its key until it is removed");
            }
        })
    }

    /// The directories a snapshot is mounted from. Makes its own if they are absent.
    fn stack(&self, record: &SnapshotRecord) -> Result<Stack, SnapshotError> {
        let directories = self.directories();
        let parents = match &record.parent {
            Some(parent) => self.table.lineage(parent)?,
            None => Vec::new(),
        };
        Stack::check(&record.key, parents.len())?;
        let top = match parents.last() {
            Some(parent) => Some(directories.top(parent.number, &parent.key)?),
            None => None,
        };
        let files = directories.files(record.number);
        let own = if record.kind == Kind::Active {
            directories.make(record.number, top, !parents.is_empty())?;
            Own::Writable(files, directories.work(record.number))
        } else {
            if parents.is_empty() {
                directories.make(record.number, top, false)?;
            }
            Own::ReadOnly(files)
        };
        let lower = parents.iter().rev().map(|parent| directories.files(parent.number)).collect();
        Ok(Stack { lower, own })
    }

    /// The record of an active snapshot.
    fn active(&self, key: &ActiveKey) -> Result<SnapshotRecord, SnapshotError> {
        let record = self.table.get(key.as_str())?;
        if record.kind != Kind::Active {
            return Err(SnapshotError::NotActive { key: record.key, kind: record.kind });
        }
        Ok(record)
    }

    /// A layer that was unpacked on nothing and says nothing about its top directory shows its new parent's.
    fn inherit_top(
        &self,
        record: &SnapshotRecord,
        rebase: Option<&CommittedName>,
    ) -> Result<(), SnapshotError> {
        let (None, Some(rebase)) = (&record.parent, rebase) else { return Ok(()) };
        let parent = self.table.get(rebase.as_str())?;
        if parent.kind != Kind::Committed {
            // The table refuses it in better words.
            return Ok(());
        }
        let top = self.directories().top(parent.number, &parent.key)?;
        self.directories().inherit_top(record.number, top)
    }
}

impl Snapshotter for Bound {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(
        &self,
        key: &ActiveKey,
        parent: Option<&CommittedName>,
        labels: &Labels,
    ) -> Result<Vec<Mount>, SnapshotError> {
        self.begin(NewSnapshot::Active, key, parent, labels)
    }

    fn view(
        &self,
        key: &ActiveKey,
        parent: Option<&CommittedName>,
        labels: &Labels,
    ) -> Result<Vec<Mount>, SnapshotError> {
        self.begin(NewSnapshot::View, key, parent, labels)
    }

    fn mounts(&self, key: &ActiveKey) -> Result<Vec<Mount>, SnapshotError> {
        let record = self.table.get(key.as_str())?;
        if record.kind == Kind::Committed {
            return Err(SnapshotError::NotMountable { key: record.key, kind: record.kind });
        }
        self.stack(&record)?.mounts()
    }

    fn commit_with_usage(
        &self,
        key: &ActiveKey,
        name: &CommittedName,
        rebase: Option<&CommittedName>,
        labels: &Labels,
        counted: Option<Usage>,
    ) -> Result<(), SnapshotError> {
        let record = self.active(key)?;
        // Asked before the work, and decided by the table after it.
        if self.table.get(name.as_str()).is_ok() {
            return Err(SnapshotError::AlreadyExists { key: name.to_string() });
        }
        self.inherit_top(&record, rebase)?;
        let usage = match counted {
            Some(usage) => usage,
            None => {
                // If prepare was cut short there may be nothing yet to be committed.
                self.stack(&record)?;
                let usage = self.directories().usage(record.number)?;
                self.overlay.0.store.sync()?;
                usage
            }
        };
        let rebase = rebase.map(CommittedName::as_str);
        self.table.commit(key.as_str(), name.as_str(), rebase, usage, labels.clone())?;
        Ok(())
    }

    fn stat(&self, key: &str) -> Result<Info, SnapshotError> {
        Ok(self.table.get(key)?.into())
    }

    fn update(&self, key: &str, change: LabelChange) -> Result<Info, SnapshotError> {
        Ok(self.table.update_labels(key, change)?.into())
    }

    fn usage(&self, key: &str) -> Result<Usage, SnapshotError> {
        let record = self.table.get(key)?;
        match record.usage {
            Some(usage) => Ok(usage),
            None => self.directories().usage(record.number),
        }
    }

    fn walk(&self, visit: &mut dyn FnMut(Info) -> ControlFlow<()>) -> Result<(), SnapshotError> {
        Ok(self.table.walk(&mut |record| visit(record.into()))?)
    }

    fn remove(&self, key: &str) -> Result<(), SnapshotError> {
        let record = self.table.remove(key)?;
        if let Err(error) = self.overlay.0.store.discard(&self.directories().of(record.number)) {
            tracing::warn!(key, %error, "the files of a removed snapshot stay until the next cleanup");
        }
        Ok(())
    }

    fn cleanup(&self) -> Result<(), SnapshotError> {
        self.overlay.cleanup()
    }

    fn layer_target(&self, key: &ActiveKey) -> Result<LayerTarget, SnapshotError> {
        let record = self.active(key)?;
        self.stack(&record)?;
        Ok(LayerTarget { path: self.directories().files(record.number), whiteouts: WhiteoutForm::Overlay })
    }

    fn layers(&self, name: &CommittedName) -> Result<Vec<PathBuf>, SnapshotError> {
        let lineage = self.table.lineage(name.as_str())?;
        if lineage.last().is_none_or(|record| record.kind != Kind::Committed) {
            return Err(SnapshotError::NotFound { key: name.to_string() });
        }
        Ok(lineage.iter().rev().map(|record| self.directories().files(record.number)).collect())
    }
}
