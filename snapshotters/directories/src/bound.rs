//! A snapshotter bound to one namespace: each call of the contract in terms of the table, the folder and the form.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use snapshotters_contract::{
    ActiveKey, CommittedName, Info, Kind, LabelChange, LayerTarget, Mount, SnapshotError, Snapshotter, Tree,
    Usage,
};
use storage_content::{NewSnapshot, SnapshotRecord, SnapshotTable, Space, StoreError};
use storage_model::Labels;

use crate::Shared;
use crate::form::{Form, Stacked};

/// See [`crate::Snapshots::bind`].
#[derive(Debug)]
pub(crate) struct Bound<F> {
    shared: Arc<Shared<F>>,
    table: SnapshotTable,
}

impl<F: Form> Bound<F> {
    pub(crate) fn new(shared: Arc<Shared<F>>, space: &Space) -> Self {
        Self { shared, table: space.snapshots(F::NAME) }
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
        let number = record.number;
        self.mounts_of(record).inspect_err(|_| self.take_back(key, number))
    }

    fn take_back(&self, key: &ActiveKey, number: u64) {
        // Somebody may have removed it meanwhile, and made another.
        let ours = self.table.get(key.as_str()).is_ok_and(|record| record.number == number);
        if ours && let Err(error) = self.remove(key.as_str()) {
            tracing::warn!(%key, %error, "a snapshot that could not be made keeps its key until it is removed");
        }
    }

    fn mounts_of(&self, record: SnapshotRecord) -> Result<Vec<Mount>, SnapshotError> {
        let stacked = self.made(record)?;
        self.shared.form.mounts(&self.shared.folder, &stacked)
    }

    fn stacked(&self, record: SnapshotRecord) -> Result<Stacked, SnapshotError> {
        let parents = match &record.parent {
            Some(parent) => self.table.lineage(parent)?,
            None => Vec::new(),
        };
        Ok(Stacked { record, parents })
    }

    /// A snapshot whose directory is there: a prepare that was cut short may have left none.
    fn made(&self, record: SnapshotRecord) -> Result<Stacked, SnapshotError> {
        let stacked = self.stacked(record)?;
        let _held = self.shared.folder.lock(stacked.record.number);
        self.still_there(&stacked.record)?;
        self.shared.form.make(&self.shared.folder, &stacked)?;
        Ok(stacked)
    }

    /// The record of an active snapshot.
    fn active(&self, key: &ActiveKey) -> Result<SnapshotRecord, SnapshotError> {
        let record = self.table.get(key.as_str())?;
        if record.kind != Kind::Active {
            return Err(SnapshotError::NotActive { key: record.key, kind: record.kind });
        }
        Ok(record)
    }

    /// Looks again, now that its number is held: it may have been committed or removed meanwhile, and then its directory
    /// is not to be touched.
    fn still_there(&self, record: &SnapshotRecord) -> Result<(), SnapshotError> {
        let now = self.table.get(&record.key)?;
        if now.number == record.number && now.kind == record.kind {
            return Ok(());
        }
        Err(SnapshotError::NotFound { key: record.key.clone() })
    }

    /// What a snapshot on nothing is to be put on. Refuses, before any work is done, what the table would refuse after it.
    fn base(
        &self,
        record: &SnapshotRecord,
        rebase: Option<&CommittedName>,
    ) -> Result<Option<SnapshotRecord>, SnapshotError> {
        let Some(rebase) = rebase else { return Ok(None) };
        let (key, name) = (record.key.clone(), rebase.to_string());
        match &record.parent {
            Some(parent) if *parent == name => return Ok(None),
            Some(parent) => {
                return Err(StoreError::Rebase { key, parent: parent.clone(), rebase: name }.into());
            }
            None => {}
        }
        let base = self.table.get(rebase.as_str())?;
        if base.kind != Kind::Committed {
            return Err(StoreError::RebaseNotCommitted { key, rebase: name, kind: base.kind }.into());
        }
        Ok(Some(base))
    }

    /// A committed snapshot and all it stands on, lowest first.
    fn lineage(&self, name: &CommittedName) -> Result<Vec<SnapshotRecord>, SnapshotError> {
        let lineage = self.table.lineage(name.as_str())?;
        match lineage.last() {
            Some(record) if record.kind == Kind::Committed => Ok(lineage),
            _ => Err(SnapshotError::NotFound { key: name.to_string() }),
        }
    }
}

impl<F: Form> Snapshotter for Bound<F> {
    fn name(&self) -> &'static str {
        F::NAME
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
        self.mounts_of(record)
    }

    fn commit_with_usage(
        &self,
        key: &ActiveKey,
        name: &CommittedName,
        rebase: Option<&CommittedName>,
        labels: &Labels,
        counted: Option<Usage>,
    ) -> Result<(), SnapshotError> {
        let Shared { form, folder } = &*self.shared;
        let record = self.active(key)?;
        let number = record.number;
        let _held = folder.lock(number);
        self.still_there(&record)?;
        // Asked before the work, and decided by the table after it.
        if self.table.get(name.as_str()).is_ok() {
            return Err(SnapshotError::AlreadyExists { key: name.to_string() });
        }
        let base = self.base(&record, rebase)?;
        let stacked = self.stacked(record)?;
        // If prepare was cut short there may be nothing yet to be committed.
        form.make(folder, &stacked)?;
        let usage = form.seal(folder, &stacked, base.as_ref(), counted)?;
        let rebase = rebase.map(CommittedName::as_str);
        self.table.commit(key.as_str(), name.as_str(), rebase, usage, labels.clone())?;
        form.sealed(folder, number);
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
            None => self.shared.folder.usage(&self.shared.form.files(&self.shared.folder, &record)),
        }
    }

    fn walk(&self, visit: &mut dyn FnMut(Info) -> ControlFlow<()>) -> Result<(), SnapshotError> {
        Ok(self.table.walk(&mut |record| visit(record.into()))?)
    }

    fn remove(&self, key: &str) -> Result<(), SnapshotError> {
        let folder = &self.shared.folder;
        let record = self.table.remove(key)?;
        let _held = folder.lock(record.number);
        if let Err(error) = folder.discard(&folder.of(record.number)) {
            tracing::warn!(key, %error, "the files of a removed snapshot stay until the next cleanup");
        }
        Ok(())
    }

    fn cleanup(&self) -> Result<(), SnapshotError> {
        self.shared.cleanup()
    }

    fn layer_target(&self, key: &ActiveKey) -> Result<LayerTarget, SnapshotError> {
        let stacked = self.made(self.active(key)?)?;
        Ok(self.shared.form.target(&self.shared.folder, &stacked))
    }

    fn layers(&self, name: &CommittedName) -> Result<Vec<PathBuf>, SnapshotError> {
        Ok(self.shared.form.layers(&self.shared.folder, &self.lineage(name)?))
    }

    fn trees(&self, name: &CommittedName) -> Result<Vec<Tree>, SnapshotError> {
        let Shared { form, folder } = &*self.shared;
        let tree = |record: &SnapshotRecord| Tree {
            name: record.key.clone(),
            files: form.files(folder, record),
            record: form.record(folder, record),
        };
        Ok(self.lineage(name)?.iter().rev().map(tree).collect())
    }
}
