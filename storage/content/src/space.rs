//! One namespace of a store, optionally bound to a lease.

use storage_model::Namespace;

use crate::collect::Node;
use crate::lease::{LeaseId, LeaseRecord, Resource, resource_key};
use crate::metadata::{Durability, Table, Transaction, key};
use crate::namespace::NamespaceRecord;
use crate::store::Store;
use crate::{StoreError, Subject};

/// The view of one namespace. Clones are cheap.
///
/// Bound to a lease ([`Space::leased`]), everything created through it joins that lease in the same transaction, so a
/// collection never sees it without its keeper.
#[derive(Debug, Clone)]
pub struct Space {
    pub(crate) store: Store,
    pub(crate) namespace: Namespace,
    pub(crate) lease: Option<LeaseId>,
}

impl Space {
    pub(crate) fn new(store: Store, namespace: Namespace) -> Self {
        Self { store, namespace, lease: None }
    }

    /// The same view, bound to `lease`. The lease is looked up when something is created: it fails with
    /// [`StoreError::NotFound`] if the lease is gone by then.
    #[must_use]
    pub fn leased(&self, lease: &LeaseId) -> Self {
        Self { lease: Some(lease.clone()), ..self.clone() }
    }

    /// The namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The lease that what is created joins.
    pub fn lease_id(&self) -> Option<&LeaseId> {
        self.lease.as_ref()
    }

    /// Runs a transaction that writes in this namespace. `touched` is what a running collection must keep because of it:
    /// everything the transaction creates, changes or leases.
    pub(crate) fn change<T>(
        &self,
        touched: impl IntoIterator<Item = Node>,
        body: impl FnMut(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.change_with(Durability::Synced, touched, body)
    }

    /// Like [`Space::change`], as durable as it says.
    pub(crate) fn change_with<T>(
        &self,
        durability: Durability,
        touched: impl IntoIterator<Item = Node>,
        mut body: impl FnMut(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let inner = &self.store.0;
        let _open = inner.gate.enter(touched);
        let known = self.store.namespace_is_known(&self.namespace);
        let value = inner.metadata.transact_with(durability, |transaction| {
            if !known {
                self.record_namespace(transaction)?;
            }
            body(transaction)
        })?;
        if !known {
            self.store.namespace_becomes_known(&self.namespace);
        }
        Ok(value)
    }

    /// Like [`Space::change_with`], for a `body` that changes only what is there: it makes no namespace.
    pub(crate) fn change_known<T>(
        &self,
        durability: Durability,
        touched: impl IntoIterator<Item = Node>,
        body: impl FnMut(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let inner = &self.store.0;
        let _open = inner.gate.enter(touched);
        inner.metadata.transact_with(durability, body)
    }

    /// Runs a transaction that only deletes in this namespace. It goes through on a full disk too.
    pub(crate) fn delete<T>(
        &self,
        body: impl FnMut(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let inner = &self.store.0;
        let _open = inner.gate.enter([]);
        inner.metadata.transact_deletion(body)
    }

    /// Adds `resource` to the lease of this view, if it has one.
    pub(crate) fn join_lease(
        &self,
        transaction: &Transaction<'_>,
        resource: &Resource,
    ) -> Result<(), StoreError> {
        let Some(lease) = &self.lease else { return Ok(()) };
        let lease_key = key::key(&self.namespace, &[lease.as_str()]);
        if transaction.share::<LeaseRecord>(&lease_key)?.is_none() {
            return Err(StoreError::not_found(Subject::Lease, lease));
        }
        transaction.mark(Table::LeaseResources, &resource_key(&self.namespace, lease, resource))
    }

    /// Takes `resource` out of the lease of this view, if it has one.
    pub(crate) fn leave_lease(
        &self,
        transaction: &Transaction<'_>,
        resource: &Resource,
    ) -> Result<(), StoreError> {
        let Some(lease) = &self.lease else { return Ok(()) };
        transaction.delete(Table::LeaseResources, &resource_key(&self.namespace, lease, resource))
    }

    fn record_namespace(&self, transaction: &Transaction<'_>) -> Result<(), StoreError> {
        let namespace_key = key::key(&self.namespace, &[]);
        match transaction.lock::<NamespaceRecord>(&namespace_key) {
            Ok(None) => transaction.put(&namespace_key, &NamespaceRecord::new(storage_model::Labels::new())),
            // One that cannot be read is there, and no reason not to work in the namespace.
            Ok(Some(_)) | Err(StoreError::Record { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
