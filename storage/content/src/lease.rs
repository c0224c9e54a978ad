//! Leases: what keeps things from being collected while someone works on them.
//!
//! A lease lists resources; a collection keeps each and everything reachable from it, or, for a flat lease
//! (`containerd.io/gc.flat`), the listed ones alone. It ends when it is deleted or when `containerd.io/gc.expire` has
//! passed. A lease labelled [`EPHEMERAL_LABEL`] ends with the process: the store drops it when it is opened.

use std::fmt;
use std::ops::ControlFlow;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use storage_model::{Digest, Labels, Namespace, validate_labels};

use crate::collect::Node;
use crate::metadata::key::{self, check_name};
use crate::metadata::record::nanos;
use crate::metadata::{Metadata, Record, Table};
use crate::space::Space;
use crate::{StoreError, Subject};

/// Label of a lease that must not outlive the process that made it.
pub const EPHEMERAL_LABEL: &str = "windlass.io/ephemeral";

/// Name of a lease: free text, because clients of containerd make it of random bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(String);

impl LeaseId {
    /// A name that no other lease has: time, process and a counter.
    pub fn random() -> Self {
        static COUNTER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let count = COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Self(format!("{nanos:x}-{:x}-{count:x}", std::process::id()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LeaseId {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        check_name(Subject::Lease, text)?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// Its labels.
    pub labels: Labels,
    /// When it was made.
    pub created: SystemTime,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LeaseRecord {
    pub(crate) labels: Labels,
    #[serde(with = "nanos")]
    created: SystemTime,
}

impl Record for LeaseRecord {
    const TABLE: Table = Table::Leases;
}

/// Kind of something a lease can keep, as containerd writes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKind {
    /// `content`: a blob, by digest.
    Content,
    /// `ingests`: an ingest, by reference.
    Ingests,
    /// `images`: an image, by name.
    Images,
    /// `snapshots/<snapshotter>`: a snapshot, by key.
    Snapshots(String),
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Content => f.write_str("content"),
            Self::Ingests => f.write_str("ingests"),
            Self::Images => f.write_str("images"),
            Self::Snapshots(snapshotter) => write!(f, "snapshots/{snapshotter}"),
        }
    }
}

/// Something a lease keeps. It needs not exist (yet).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// What it is.
    pub kind: ResourceKind,
    /// Its digest, reference, name or key.
    pub id: String,
}

impl Resource {
    /// A resource as a client writes it.
    ///
    /// # Errors
    /// [`StoreError::Resource`] if the kind is unknown, or the identifier cannot name one of that kind.
    pub fn parse(kind: &str, id: &str) -> Result<Self, StoreError> {
        let bad = || StoreError::Resource { kind: kind.to_owned(), id: id.chars().take(128).collect() };
        let found = match kind.split_once('/') {
            None if kind == "content" => ResourceKind::Content,
            None if kind == "ingests" => ResourceKind::Ingests,
            None if kind == "images" => ResourceKind::Images,
            Some(("snapshots", snapshotter)) if !snapshotter.is_empty() => {
                ResourceKind::Snapshots(snapshotter.to_owned())
            }
            _ => return Err(bad()),
        };
        if found == ResourceKind::Content && id.parse::<Digest>().is_err() {
            return Err(bad());
        }
        check_name(Subject::Lease, kind).and_then(|()| check_name(Subject::Lease, id)).map_err(|_| bad())?;
        Ok(Self { kind: found, id: id.to_owned() })
    }

    /// A blob.
    pub fn content(digest: &Digest) -> Self {
        Self { kind: ResourceKind::Content, id: digest.to_string() }
    }

    /// An ingest.
    pub fn ingest(reference: &str) -> Self {
        Self { kind: ResourceKind::Ingests, id: reference.to_owned() }
    }

    /// An image.
    pub fn image(name: &str) -> Self {
        Self { kind: ResourceKind::Images, id: name.to_owned() }
    }

    /// A snapshot.
    pub fn snapshot(snapshotter: &str, key: &str) -> Self {
        Self { kind: ResourceKind::Snapshots(snapshotter.to_owned()), id: key.to_owned() }
    }

    /// The thing in the graph of a collection.
    pub(crate) fn node(&self, namespace: &Namespace) -> Option<Node> {
        Some(match &self.kind {
            ResourceKind::Content => Node::blob(namespace, &self.id.parse().ok()?),
            ResourceKind::Ingests => Node::ingest(namespace, &self.id),
            ResourceKind::Images => Node::image(namespace, &self.id),
            ResourceKind::Snapshots(snapshotter) => Node::snapshot(namespace, snapshotter, &self.id),
        })
    }
}

/// Key of a resource in a lease.
pub(crate) fn resource_key(namespace: &Namespace, lease: &LeaseId, resource: &Resource) -> Vec<u8> {
    key::key(namespace, &[lease.as_str(), &resource.kind.to_string(), &resource.id])
}

/// Calls `visit` with every resource of every lease whose key begins with `prefix`.
pub(crate) fn walk_resources(
    metadata: &Metadata,
    prefix: &[u8],
    mut visit: impl FnMut(Namespace, LeaseId, Resource),
) -> Result<(), StoreError> {
    metadata.scan(Table::LeaseResources, prefix, |row, _| {
        if let Some((namespace, rest)) = key::split_namespace(row)
            && let Some([lease, kind, id]) = key::split_parts(rest).as_deref()
            && let Ok(resource) = Resource::parse(kind, id)
        {
            visit(namespace, LeaseId((*lease).to_owned()), resource);
        }
        Ok(ControlFlow::Continue(()))
    })
}

/// Calls `visit` with every lease whose key begins with `prefix` and whose record can be read.
pub(crate) fn walk(
    metadata: &Metadata,
    prefix: &[u8],
    mut visit: impl FnMut(Namespace, LeaseId, LeaseRecord),
) -> Result<(), StoreError> {
    metadata.walk_readable(prefix, |row, record: LeaseRecord| {
        if let Some((namespace, rest)) = key::split_namespace(row)
            && let Ok(id) = std::str::from_utf8(rest)
        {
            visit(namespace, LeaseId(id.to_owned()), record);
        }
        ControlFlow::Continue(())
    })
}

impl Space {
    /// Makes a lease, with a random name if none is given.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] if the name is taken; [`StoreError::Labels`] if a label is too long.
    pub fn create_lease(&self, id: Option<LeaseId>, labels: Labels) -> Result<Lease, StoreError> {
        validate_labels(&labels)?;
        let id = id.unwrap_or_else(LeaseId::random);
        let lease_key = key::key(&self.namespace, &[id.as_str()]);
        let record = LeaseRecord { labels, created: SystemTime::now() };
        self.change([Node::lease(&self.namespace, &id)], |transaction| {
            if transaction.lock::<LeaseRecord>(&lease_key)?.is_some() {
                return Err(StoreError::already_exists(Subject::Lease, &id));
            }
            transaction.put(&lease_key, &record)
        })?;
        Ok(Lease { id, labels: record.labels, created: record.created })
    }

    /// One lease.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none of that name.
    pub fn lease(&self, id: &LeaseId) -> Result<Lease, StoreError> {
        let record: Option<LeaseRecord> =
            self.store.0.metadata.get(&key::key(&self.namespace, &[id.as_str()]))?;
        let record = record.ok_or_else(|| StoreError::not_found(Subject::Lease, id))?;
        Ok(Lease { id: id.clone(), labels: record.labels, created: record.created })
    }

    /// Ends a lease. What only it kept goes with the next collection.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none of that name.
    pub fn delete_lease(&self, id: &LeaseId) -> Result<(), StoreError> {
        let lease_key = key::key(&self.namespace, &[id.as_str()]);
        self.delete(|transaction| {
            // Held against others: nobody adds a resource between the listing and the deletion.
            if transaction.lock::<LeaseRecord>(&lease_key)?.is_none() {
                return Err(StoreError::not_found(Subject::Lease, id));
            }
            transaction.delete_below(Table::LeaseResources, &key::prefix(&self.namespace, &[id.as_str()]))?;
            transaction.delete(Table::Leases, &lease_key)
        })
    }

    /// The leases of this namespace, by name.
    ///
    /// # Errors
    /// [`StoreError::Metadata`] if the records cannot be read; a single one that cannot is left out.
    pub fn leases(&self) -> Result<Vec<Lease>, StoreError> {
        let mut found = Vec::new();
        walk(&self.store.0.metadata, &key::namespace_prefix(&self.namespace), |_, id, record| {
            found.push(Lease { id, labels: record.labels, created: record.created });
        })?;
        Ok(found)
    }

    /// Makes a lease keep `resource`, whether or not it exists and whether or not the lease had it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such lease.
    pub fn add_resource(&self, id: &LeaseId, resource: &Resource) -> Result<(), StoreError> {
        let bound = self.leased(id);
        bound.change(resource.node(&self.namespace), |transaction| bound.join_lease(transaction, resource))
    }

    /// Makes a lease keep `resource` no longer. One it did not keep is fine.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such lease.
    pub fn delete_resource(&self, id: &LeaseId, resource: &Resource) -> Result<(), StoreError> {
        let lease_key = key::key(&self.namespace, &[id.as_str()]);
        self.delete(|transaction| {
            if transaction.share::<LeaseRecord>(&lease_key)?.is_none() {
                return Err(StoreError::not_found(Subject::Lease, id));
            }
            transaction.delete(Table::LeaseResources, &resource_key(&self.namespace, id, resource))
        })
    }

    /// What a lease keeps.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such lease.
    pub fn resources(&self, id: &LeaseId) -> Result<Vec<Resource>, StoreError> {
        self.lease(id)?;
        let mut found = Vec::new();
        let prefix = key::prefix(&self.namespace, &[id.as_str()]);
        walk_resources(&self.store.0.metadata, &prefix, |_, _, resource| found.push(resource))?;
        Ok(found)
    }
}

/// Drops the leases that ended with the process that made them.
pub(crate) fn drop_ephemeral(metadata: &Metadata) -> Result<u64, StoreError> {
    let mut ended = Vec::new();
    walk(metadata, &[], |namespace, id, record| {
        if record.labels.contains_key(EPHEMERAL_LABEL) {
            ended.push((namespace, id));
        }
    })?;
    if ended.is_empty() {
        return Ok(0);
    }
    metadata.transact(|transaction| {
        for (namespace, id) in &ended {
            transaction.delete_below(Table::LeaseResources, &key::prefix(namespace, &[id.as_str()]))?;
            transaction.delete(Table::Leases, &key::key(namespace, &[id.as_str()]))?;
        }
        Ok(())
    })?;
    Ok(ended.len() as u64)
}
