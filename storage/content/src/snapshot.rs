//! The table of snapshots: names, kinds, parents. The directories belong to the snapshotters, by number.
//!
//! A snapshot is active or a view (made by [`SnapshotTable::insert`]) or committed (made of an active one by
//! [`SnapshotTable::commit`]); only a committed one may be a parent, and none with children can be removed. Active keys and
//! committed names share one space of names. A number is never given twice, not even after a crash, so a directory that
//! was left behind is never mistaken for a new snapshot's.

use std::fmt;
use std::ops::ControlFlow;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use storage_model::{Labels, Namespace, validate_labels};

use crate::change::Change;
use crate::collect::Node;
use crate::label::LabelChange;
use crate::lease::Resource;
use crate::metadata::key::{self, check_name};
use crate::metadata::record::nanos;
use crate::metadata::{Metadata, Record, Table, Transaction};
use crate::space::Space;
use crate::{StoreError, Subject};

/// What a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotKind {
    /// Writable; can be committed.
    Active,
    /// Read-only; cannot be committed.
    View,
    /// Immutable; can be a parent.
    Committed,
}

impl fmt::Display for SnapshotKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::View => "a view",
            Self::Committed => "committed",
        })
    }
}

/// What a snapshot takes, without its parents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Disk space in bytes.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// Its number, unique for ever over all snapshotters and namespaces: the name of its directory.
    pub number: u64,
    /// What it is.
    pub kind: SnapshotKind,
    /// Its key, or its name if it is committed.
    pub key: String,
    /// Name of the committed snapshot it stands on.
    pub parent: Option<String>,
    /// Its labels.
    pub labels: Labels,
    /// When it was made; for a committed one, when it was committed.
    #[serde(with = "nanos")]
    pub created: SystemTime,
    /// When its labels last changed.
    #[serde(with = "nanos")]
    pub updated: SystemTime,
    /// What it takes, recorded when it was committed; none before.
    pub usage: Option<Usage>,
}

impl Record for SnapshotRecord {
    const TABLE: Table = Table::Snapshots;
}

/// The snapshots of one snapshotter in one namespace.
#[derive(Debug, Clone)]
pub struct SnapshotTable {
    space: Space,
    snapshotter: String,
}

impl Space {
    /// The snapshots of `snapshotter` in this namespace. The name is checked when something is inserted.
    pub fn snapshots(&self, snapshotter: &str) -> SnapshotTable {
        SnapshotTable { space: self.clone(), snapshotter: snapshotter.to_owned() }
    }
}

impl SnapshotTable {
    /// Name of the snapshotter.
    pub fn snapshotter(&self) -> &str {
        &self.snapshotter
    }

    /// Makes an active snapshot or a view, on `parent` or on nothing. It joins the lease of the view it was made through.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] if the key is taken, whatever its kind; [`StoreError::NotFound`] if there is no such
    /// parent; [`StoreError::ParentNotCommitted`] if it is not committed;
    /// [`StoreError::Name`] or [`StoreError::Labels`] if a name or label is not valid.
    pub fn insert(
        &self,
        kind: NewSnapshot,
        key: &str,
        parent: Option<&str>,
        labels: Labels,
    ) -> Result<SnapshotRecord, StoreError> {
        check_name(Subject::Snapshotter, &self.snapshotter)?;
        check_name(Subject::Snapshot, key)?;
        validate_labels(&labels)?;
        let now = SystemTime::now();
        let record = SnapshotRecord {
            number: self.space.store.0.numbers.next(&self.space.store.0.metadata)?,
            kind: kind.kind(),
            key: key.to_owned(),
            parent: parent.map(str::to_owned),
            labels,
            created: now,
            updated: now,
            usage: None,
        };
        self.space.change(self.nodes([Some(key), parent]), |transaction| {
            if self.lock(transaction, key)?.is_some() {
                return Err(StoreError::already_exists(Subject::Snapshot, key));
            }
            if let Some(parent) = parent {
                let found = self.share(transaction, parent)?;
                let found = found.ok_or_else(|| StoreError::not_found(Subject::Snapshot, parent))?;
                if found.kind != SnapshotKind::Committed {
                    let (parent, kind) = (parent.to_owned(), found.kind);
                    return Err(StoreError::ParentNotCommitted { parent, kind });
                }
            }
            self.link(transaction, &record)?;
            self.space.join_lease(transaction, &self.resource(key))
        })?;
        // Of views nothing is told: containerd says nothing of them, and they change nothing for anybody.
        if record.kind == SnapshotKind::Active {
            self.tell(|snapshotter| Change::SnapshotPrepared {
                snapshotter,
                key: key.to_owned(),
                parent: record.parent.clone(),
            });
        }
        Ok(record)
    }

    /// Makes the active snapshot `key` the committed snapshot `name`, with these labels alone. One that stands on nothing
    /// may be put on `rebase` in the same step. It takes the key's place in the lease of the view it was made through.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such key, or no such parent to put it on; [`StoreError::NotActive`] if it is
    /// not active; [`StoreError::AlreadyExists`] if the name is taken; [`StoreError::Rebase`] if it stands on another
    /// parent than `rebase`; [`StoreError::RebaseNotCommitted`] if `rebase` is not committed.
    pub fn commit(
        &self,
        key: &str,
        name: &str,
        rebase: Option<&str>,
        usage: Usage,
        labels: Labels,
    ) -> Result<SnapshotRecord, StoreError> {
        check_name(Subject::Snapshot, name)?;
        validate_labels(&labels)?;
        let record = self.space.change(self.nodes([Some(name), rebase]), |transaction| {
            let before = self.lock(transaction, key)?;
            if self.lock(transaction, name)?.is_some() {
                return Err(StoreError::already_exists(Subject::Snapshot, name));
            }
            let before = before.ok_or_else(|| StoreError::not_found(Subject::Snapshot, key))?;
            if before.kind != SnapshotKind::Active {
                return Err(StoreError::NotActive { key: key.to_owned(), kind: before.kind });
            }
            let parent = self.commit_parent(transaction, &before, rebase)?;
            self.unlink(transaction, &before)?;
            let now = SystemTime::now();
            let after = SnapshotRecord {
                number: before.number,
                kind: SnapshotKind::Committed,
                key: name.to_owned(),
                parent,
                labels: labels.clone(),
                created: now,
                updated: now,
                usage: Some(usage),
            };
            self.link(transaction, &after)?;
            self.space.leave_lease(transaction, &self.resource(key))?;
            self.space.join_lease(transaction, &self.resource(name))?;
            Ok(after)
        })?;
        self.tell(|snapshotter| Change::SnapshotCommitted {
            snapshotter,
            key: key.to_owned(),
            name: name.to_owned(),
        });
        Ok(record)
    }

    /// The parent a committed snapshot gets.
    fn commit_parent(
        &self,
        transaction: &Transaction<'_>,
        before: &SnapshotRecord,
        rebase: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        let Some(rebase) = rebase else { return Ok(before.parent.clone()) };
        if let Some(parent) = before.parent.as_ref().filter(|parent| *parent != rebase) {
            let (key, parent) = (before.key.clone(), parent.clone());
            return Err(StoreError::Rebase { key, parent, rebase: rebase.to_owned() });
        }
        let found = self.share(transaction, rebase)?;
        let found = found.ok_or_else(|| StoreError::not_found(Subject::Snapshot, rebase))?;
        if found.kind != SnapshotKind::Committed {
            let key = before.key.clone();
            return Err(StoreError::RebaseNotCommitted { key, rebase: rebase.to_owned(), kind: found.kind });
        }
        Ok(Some(rebase.to_owned()))
    }

    /// Removes a snapshot that nothing stands on. Its directory is the caller's to remove afterwards.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none; [`StoreError::HasChildren`] if others stand on it.
    pub fn remove(&self, key: &str) -> Result<SnapshotRecord, StoreError> {
        let record = self.space.change([], |transaction| {
            // Held against others: nobody is made on it between the look at its children and the removal.
            let record = self.lock(transaction, key)?;
            let record = record.ok_or_else(|| StoreError::not_found(Subject::Snapshot, key))?;
            let children = self.children(key)?;
            if let Some(child) = children.first() {
                let (key, children, child) = (key.to_owned(), children.len(), child.clone());
                return Err(StoreError::HasChildren { key, children, child });
            }
            self.unlink(transaction, &record)?;
            self.space.leave_lease(transaction, &self.resource(key))?;
            Ok(record)
        })?;
        self.tell(|snapshotter| Change::SnapshotRemoved { snapshotter, key: key.to_owned() });
        Ok(record)
    }

    /// A snapshot, of any kind.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none.
    pub fn get(&self, key: &str) -> Result<SnapshotRecord, StoreError> {
        let record = self.space.store.0.metadata.get(&self.key(key))?;
        record.ok_or_else(|| StoreError::not_found(Subject::Snapshot, key))
    }

    /// A snapshot, added to the lease of this view in the same step: it cannot be collected in between.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none, or if the lease is gone.
    pub fn pin(&self, key: &str) -> Result<SnapshotRecord, StoreError> {
        self.space.change(self.nodes([Some(key)]), |transaction| {
            let record = self.share(transaction, key)?;
            let record = record.ok_or_else(|| StoreError::not_found(Subject::Snapshot, key))?;
            self.space.join_lease(transaction, &self.resource(key))?;
            Ok(record)
        })
    }

    /// Changes the labels of a snapshot.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none; [`StoreError::Labels`] if a label is too long.
    pub fn update_labels(&self, key: &str, change: LabelChange) -> Result<SnapshotRecord, StoreError> {
        self.space.change(self.nodes([Some(key)]), |transaction| {
            let record = self.lock(transaction, key)?;
            let mut record = record.ok_or_else(|| StoreError::not_found(Subject::Snapshot, key))?;
            change.apply(&mut record.labels)?;
            record.updated = SystemTime::now();
            transaction.put(&self.key(key), &record)?;
            Ok(record)
        })
    }

    /// Calls `visit` with every snapshot, in no promised order, until it breaks. `visit` may use the store.
    ///
    /// # Errors
    /// [`StoreError::Metadata`] if the records cannot be read; a single one that cannot is left out.
    pub fn walk(&self, visit: &mut dyn FnMut(SnapshotRecord) -> ControlFlow<()>) -> Result<(), StoreError> {
        let prefix = key::prefix(&self.space.namespace, &[&self.snapshotter]);
        self.space.store.0.metadata.walk_readable(&prefix, |_, record| visit(record))
    }

    /// A snapshot and everything it stands on, lowest first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none.
    pub fn lineage(&self, key: &str) -> Result<Vec<SnapshotRecord>, StoreError> {
        let mut chain = vec![self.get(key)?];
        while let Some(parent) = chain.last().and_then(|record| record.parent.as_deref()) {
            let parent = self.get(parent)?;
            chain.push(parent);
        }
        chain.reverse();
        Ok(chain)
    }

    /// Keys of those that stand directly on a snapshot.
    ///
    /// # Errors
    /// [`StoreError::Metadata`] if the records cannot be read.
    pub fn children(&self, key: &str) -> Result<Vec<String>, StoreError> {
        let prefix = key::children(&self.space.namespace, &self.snapshotter, key);
        let mut found = Vec::new();
        self.space.store.0.metadata.scan(Table::SnapshotChildren, &prefix, |row, _| {
            found.push(String::from_utf8_lossy(&row[prefix.len()..]).into_owned());
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    fn tell(&self, change: impl FnOnce(String) -> Change) {
        self.space.store.tell(&self.space.namespace, || change(self.snapshotter.clone()));
    }

    fn key(&self, key: &str) -> Vec<u8> {
        key::snapshot(&self.space.namespace, &self.snapshotter, key)
    }

    fn resource(&self, key: &str) -> Resource {
        Resource::snapshot(&self.snapshotter, key)
    }

    fn nodes<const N: usize>(&self, keys: [Option<&str>; N]) -> Vec<Node> {
        let node = |key| Node::snapshot(&self.space.namespace, &self.snapshotter, key);
        keys.into_iter().flatten().map(node).collect()
    }

    fn lock(&self, transaction: &Transaction<'_>, key: &str) -> Result<Option<SnapshotRecord>, StoreError> {
        transaction.lock(&self.key(key))
    }

    fn share(&self, transaction: &Transaction<'_>, key: &str) -> Result<Option<SnapshotRecord>, StoreError> {
        transaction.share(&self.key(key))
    }

    fn link(&self, transaction: &Transaction<'_>, record: &SnapshotRecord) -> Result<(), StoreError> {
        link(transaction, &self.space.namespace, &self.snapshotter, record)
    }

    fn unlink(&self, transaction: &Transaction<'_>, record: &SnapshotRecord) -> Result<(), StoreError> {
        unlink(transaction, &self.space.namespace, &self.snapshotter, record)
    }
}

/// Writes a snapshot and the edge from its parent.
fn link(
    transaction: &Transaction<'_>,
    namespace: &Namespace,
    snapshotter: &str,
    record: &SnapshotRecord,
) -> Result<(), StoreError> {
    if let Some(parent) = &record.parent {
        let edge = key::child(namespace, snapshotter, parent, &record.key);
        transaction.mark(Table::SnapshotChildren, &edge)?;
    }
    transaction.put(&key::snapshot(namespace, snapshotter, &record.key), record)
}

/// Deletes a snapshot and the edge from its parent.
pub(crate) fn unlink(
    transaction: &Transaction<'_>,
    namespace: &Namespace,
    snapshotter: &str,
    record: &SnapshotRecord,
) -> Result<(), StoreError> {
    if let Some(parent) = &record.parent {
        let edge = key::child(namespace, snapshotter, parent, &record.key);
        transaction.delete(Table::SnapshotChildren, &edge)?;
    }
    transaction.delete(Table::Snapshots, &key::snapshot(namespace, snapshotter, &record.key))
}

/// Calls `visit` with every snapshot of the store: namespace, snapshotter, record.
pub(crate) fn walk_all(
    metadata: &Metadata,
    mut visit: impl FnMut(Namespace, &str, SnapshotRecord) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    metadata.walk(&[], |row, record: SnapshotRecord| match place(row) {
        Some((namespace, snapshotter)) => visit(namespace, snapshotter, record),
        None => ControlFlow::Continue(()),
    })
}

/// Like [`walk_all`], and leaves out what cannot be read.
pub(crate) fn walk_readable(
    metadata: &Metadata,
    mut visit: impl FnMut(Namespace, &str, SnapshotRecord) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    metadata.walk_readable(&[], |row, record: SnapshotRecord| match place(row) {
        Some((namespace, snapshotter)) => visit(namespace, snapshotter, record),
        None => ControlFlow::Continue(()),
    })
}

/// Namespace and snapshotter in the key of a snapshot.
pub(crate) fn place(row: &[u8]) -> Option<(Namespace, &str)> {
    let (namespace, rest) = key::split_namespace(row)?;
    Some((namespace, std::str::from_utf8(rest.split(|byte| *byte == 0).next()?).ok()?))
}

/// What can be inserted: a committed snapshot can only be made of an active one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewSnapshot {
    /// A writable one.
    Active,
    /// A read-only one.
    View,
}

impl NewSnapshot {
    fn kind(self) -> SnapshotKind {
        match self {
            Self::Active => SnapshotKind::Active,
            Self::View => SnapshotKind::View,
        }
    }
}
