//! Namespaces: users of one store who do not see each other's things.
//!
//! Any namespace can be used without asking; it is recorded when something is first written in it, as in containerd.

use std::ops::ControlFlow;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use storage_model::{Labels, Namespace, validate_labels};

use crate::change::Change;
use crate::ingest;
use crate::label::LabelChange;
use crate::metadata::record::nanos;
use crate::metadata::{Record, Table, key};
use crate::store::Store;
use crate::{StoreError, Subject};

/// A namespace that has a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// Its name.
    pub name: Namespace,
    /// Its labels.
    pub labels: Labels,
    /// When it was first written to, or created.
    pub created: SystemTime,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NamespaceRecord {
    labels: Labels,
    #[serde(with = "nanos")]
    created: SystemTime,
}

impl Record for NamespaceRecord {
    const TABLE: Table = Table::Namespaces;
}

impl NamespaceRecord {
    pub(crate) fn new(labels: Labels) -> Self {
        Self { labels, created: SystemTime::now() }
    }

    fn named(self, name: &Namespace) -> NamespaceInfo {
        NamespaceInfo { name: name.clone(), labels: self.labels, created: self.created }
    }
}

impl Store {
    /// The namespaces that have a record, by name.
    ///
    /// # Errors
    /// [`StoreError::Metadata`] if the records cannot be read; a single one that cannot is left out.
    pub fn namespaces(&self) -> Result<Vec<NamespaceInfo>, StoreError> {
        let mut found = Vec::new();
        self.0.metadata.walk_readable(&[], |key, record: NamespaceRecord| {
            if let Some((name, _)) = key::split_namespace(key) {
                found.push(record.named(&name));
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// One namespace.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if nothing was ever written in it.
    pub fn namespace(&self, name: &Namespace) -> Result<NamespaceInfo, StoreError> {
        let record: Option<NamespaceRecord> = self.0.metadata.get(&key::key(name, &[]))?;
        Ok(record.ok_or_else(|| StoreError::not_found(Subject::Namespace, name))?.named(name))
    }

    /// Records a namespace before anything is written in it.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] if it has a record; [`StoreError::Labels`] if a label is too long.
    pub fn create_namespace(&self, name: &Namespace, labels: Labels) -> Result<NamespaceInfo, StoreError> {
        validate_labels(&labels)?;
        let record = NamespaceRecord::new(labels);
        let name_key = key::key(name, &[]);
        {
            let _open = self.0.gate.enter([]);
            self.0.metadata.transact(|transaction| {
                if transaction.lock::<NamespaceRecord>(&name_key)?.is_some() {
                    return Err(StoreError::already_exists(Subject::Namespace, name));
                }
                transaction.put(&name_key, &record)
            })?;
        }
        self.tell(name, || Change::NamespaceCreated { labels: record.labels.clone() });
        Ok(record.named(name))
    }

    /// Changes the labels of a namespace.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it has no record; [`StoreError::Labels`] if a label is too long.
    pub fn update_namespace(
        &self,
        name: &Namespace,
        change: &LabelChange,
    ) -> Result<NamespaceInfo, StoreError> {
        let name_key = key::key(name, &[]);
        let record = {
            let _open = self.0.gate.enter([]);
            self.0.metadata.transact(|transaction| {
                let mut record = transaction
                    .lock::<NamespaceRecord>(&name_key)?
                    .ok_or_else(|| StoreError::not_found(Subject::Namespace, name))?;
                change.apply(&mut record.labels)?;
                transaction.put(&name_key, &record)?;
                Ok(record)
            })?
        };
        self.tell(name, || Change::NamespaceUpdated { labels: record.labels.clone() });
        Ok(record.named(name))
    }

    /// Deletes an empty namespace. Its leases and its unfinished ingests go with it.
    ///
    /// # Errors
    /// [`StoreError::NamespaceNotEmpty`] names what is left; [`StoreError::NotFound`] if it has no record.
    pub fn delete_namespace(&self, name: &Namespace) -> Result<(), StoreError> {
        self.delete_empty(name)?;
        self.tell(name, || Change::NamespaceDeleted);
        Ok(())
    }

    fn delete_empty(&self, name: &Namespace) -> Result<(), StoreError> {
        // Alone in the store: nobody writes in the namespace between the look and the deletion.
        let _alone = self.0.gate.close();
        self.namespace(name)?;
        let left = self.left_in(name)?;
        if !left.is_empty() {
            return Err(StoreError::NamespaceNotEmpty { namespace: name.to_string(), left });
        }
        let prefix = key::namespace_prefix(name);
        self.0.metadata.transact_deletion(|transaction| {
            transaction.delete_below(Table::LeaseResources, &prefix)?;
            transaction.delete_below(Table::Leases, &prefix)?;
            transaction.delete(Table::Namespaces, &key::key(name, &[]))
        })?;
        self.known_namespaces().remove(name);
        ingest::discard_namespace(self, name)
    }

    /// What keeps a namespace from being deleted, in words; empty if nothing does.
    fn left_in(&self, name: &Namespace) -> Result<String, StoreError> {
        let prefix = key::namespace_prefix(name);
        let kinds = [
            (Table::Images, "images"),
            (Table::Blobs, "blobs"),
            (Table::Containers, "containers"),
            (Table::Snapshots, "snapshots"),
        ];
        let mut words = Vec::new();
        for (table, noun) in kinds {
            let mut count = 0_u64;
            self.0.metadata.scan(table, &prefix, |_, _| {
                count += 1;
                Ok(ControlFlow::Continue(()))
            })?;
            if count > 0 {
                let noun = if count == 1 { &noun[..noun.len() - 1] } else { noun };
                words.push(format!("{count} {noun}"));
            }
        }
        let writing = ingest::writers_in(self, name)?;
        if writing > 0 {
            words.push(format!("{writing} ingests being written"));
        }
        Ok(words.join(", "))
    }

    pub(crate) fn namespace_is_known(&self, name: &Namespace) -> bool {
        self.known_namespaces().contains(name)
    }

    pub(crate) fn namespace_becomes_known(&self, name: &Namespace) {
        self.known_namespaces().insert(name.clone());
    }

    fn known_namespaces(&self) -> std::sync::MutexGuard<'_, std::collections::HashSet<Namespace>> {
        self.0.namespaces.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
