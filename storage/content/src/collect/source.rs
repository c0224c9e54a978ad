//! What the store says of each node: read as a whole for a collection, or one by one.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::time::SystemTime;

use storage_model::Namespace;

use super::expiry::{INGEST_KEPT, expired};
use super::graph::{Facts, Node};
use crate::StoreError;
use crate::blob::{BlobRecord, digest_of};
use crate::container::ContainerRecord;
use crate::image::ImageRecord;
use crate::ingest_files::Found;
use crate::lease::{self, LeaseId, LeaseRecord};
use crate::metadata::{Metadata, Record, key, record};
use crate::snapshot::{self, SnapshotRecord};
use crate::thing::Thing;

/// Everything a collection looks at, as it was at one moment.
#[derive(Default)]
pub(crate) struct Picture {
    pub(crate) facts: HashMap<Node, Facts>,
    /// Those whose back references name a node.
    pub(crate) kept_by: HashMap<Node, Vec<Node>>,
    /// Those that a collection may remove.
    pub(crate) removable: Vec<Node>,
    /// Those that keep and need no keeper.
    pub(crate) roots: Vec<Node>,
    /// Namespaces with a record that cannot be read: what it keeps is unknown, so everything of theirs stays.
    pub(crate) guarded: HashSet<Namespace>,
}

impl Picture {
    /// Reads the whole store. The tables are read one after the other while changes go on, so the picture may mix earlier
    /// and later states; every change since `Gate::watch` is in the touched nodes, which makes that harmless.
    pub(crate) fn take(metadata: &Metadata, ingests: &[Found], now: SystemTime) -> Result<Self, StoreError> {
        let mut picture = Self::default();
        picture.take_leases(metadata, now)?;
        picture.read(metadata, |picture, row, record: ImageRecord| {
            if let Some((namespace, _)) = key::split_namespace(row) {
                let facts = image_facts(&namespace, &record, now);
                picture.add(Node::image(&namespace, &record.name), facts, expired(&record.labels, now));
            }
        })?;
        picture.read(metadata, |picture, row, record: ContainerRecord| {
            if let Some((namespace, _)) = key::split_namespace(row) {
                let node = Node::container(&namespace, record.id.as_str());
                picture.add(node, container_facts(&namespace, &record), false);
            }
        })?;
        picture.read(metadata, |picture, row, record: BlobRecord| {
            if let Some((namespace, rest)) = key::split_namespace(row)
                && let Some(digest) = digest_of(rest)
            {
                picture.add(Node::blob(&namespace, &digest), blob_facts(&namespace, &record), true);
            }
        })?;
        picture.read(metadata, |picture, row, record: SnapshotRecord| {
            if let Some((namespace, snapshotter)) = snapshot::place(row) {
                let facts = snapshot_facts(&namespace, snapshotter, &record);
                picture.add(Node::snapshot(&namespace, snapshotter, &record.key), facts, true);
            }
        })?;
        for found in ingests {
            picture.add(
                Node::ingest(&found.namespace, &found.info.reference),
                ingest_facts(found, now),
                true,
            );
        }
        picture.guard();
        Ok(picture)
    }

    /// Shows every record of a table to `add`, and guards the namespaces of those that cannot be read.
    fn read<R: Record>(
        &mut self,
        metadata: &Metadata,
        mut add: impl FnMut(&mut Self, &[u8], R),
    ) -> Result<(), StoreError> {
        metadata.scan(R::TABLE, &[], |row, value| {
            match (record::decode(row, value), key::split_namespace(row)) {
                (Ok(record), _) => add(self, row, record),
                (Err(error), Some((namespace, _))) => {
                    tracing::warn!(%error, %namespace, "nothing of the namespace is collected");
                    self.guarded.insert(namespace);
                }
                (Err(error), None) => return Err(error),
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    fn guard(&mut self) {
        if self.guarded.is_empty() {
            return;
        }
        let guarded = &self.guarded;
        self.removable.retain(|node| !guarded.contains(&node.namespace));
        let kept = self.facts.keys().filter(|node| guarded.contains(&node.namespace));
        self.roots.extend(kept.cloned());
    }

    fn take_leases(&mut self, metadata: &Metadata, now: SystemTime) -> Result<(), StoreError> {
        self.read(metadata, |picture, row, record: LeaseRecord| {
            if let Some((namespace, rest)) = key::split_namespace(row)
                && let Some(id) = std::str::from_utf8(rest).ok().and_then(|id| id.parse().ok())
            {
                let mut facts = Facts::of_labels(&namespace, &record.labels);
                let ended = expired(&record.labels, now);
                facts.root = !ended;
                picture.add(Node::lease(&namespace, &id), facts, ended);
            }
        })?;
        lease::walk_resources(metadata, &[], |namespace, id, resource| {
            if let Some(facts) = self.facts.get_mut(&Node::lease(&namespace, &id)) {
                facts.firm.extend(resource.node(&namespace));
            }
        })
    }

    /// Makes images that are there look as if they were not, though a lease still keeps the ones it lists.
    pub(crate) fn leave_out(&mut self, images: &HashSet<Node>) {
        self.roots.retain(|node| !images.contains(node));
        // One that has expired can be removed already.
        let lasting = |node: &&Node| self.facts.get(node).is_some_and(|facts| facts.root);
        self.removable.extend(images.iter().filter(lasting).cloned());
    }

    fn add(&mut self, node: Node, facts: Facts, removable: bool) {
        if facts.root {
            self.roots.push(node.clone());
        }
        if removable {
            self.removable.push(node.clone());
        }
        for keeper in &facts.back_references {
            self.kept_by.entry(keeper.clone()).or_default().push(node.clone());
        }
        self.facts.insert(node, facts);
    }
}

/// What the store says of one node now; none if it is not there.
pub(crate) fn facts_now(
    metadata: &Metadata,
    node: &Node,
    now: SystemTime,
) -> Result<Option<Facts>, StoreError> {
    match read_facts(metadata, node, now) {
        // Its namespace is guarded: everything there is marked already.
        Err(StoreError::Record { .. }) => Ok(None),
        other => other,
    }
}

fn read_facts(metadata: &Metadata, node: &Node, now: SystemTime) -> Result<Option<Facts>, StoreError> {
    let namespace = &node.namespace;
    Ok(match &node.thing {
        Thing::Blob(digest) => {
            let record: Option<BlobRecord> = metadata.get(&key::blob(namespace, digest))?;
            record.map(|record| blob_facts(namespace, &record))
        }
        Thing::Snapshot { snapshotter, key: name } => {
            let record: Option<SnapshotRecord> =
                metadata.get(&key::snapshot(namespace, snapshotter, name))?;
            record.map(|record| snapshot_facts(namespace, snapshotter, &record))
        }
        Thing::Image(name) => {
            let record: Option<ImageRecord> = metadata.get(&key::key(namespace, &[name]))?;
            record.map(|record| image_facts(namespace, &record, now))
        }
        Thing::Container(id) => {
            let record: Option<ContainerRecord> = metadata.get(&key::key(namespace, &[id]))?;
            record.map(|record| container_facts(namespace, &record))
        }
        Thing::Lease(id) => lease_facts(metadata, namespace, &id.parse()?)?,
        // What is being written has touched what it expects too.
        Thing::Ingest(_) => None,
    })
}

fn lease_facts(
    metadata: &Metadata,
    namespace: &Namespace,
    id: &LeaseId,
) -> Result<Option<Facts>, StoreError> {
    let record: Option<LeaseRecord> = metadata.get(&key::key(namespace, &[id.as_str()]))?;
    let Some(record) = record else { return Ok(None) };
    let mut facts = Facts::of_labels(namespace, &record.labels);
    lease::walk_resources(metadata, &key::prefix(namespace, &[id.as_str()]), |_, _, resource| {
        facts.firm.extend(resource.node(namespace));
    })?;
    Ok(Some(facts))
}

fn blob_facts(namespace: &Namespace, record: &BlobRecord) -> Facts {
    Facts { bytes: record.size, ..Facts::of_labels(namespace, &record.labels) }
}

fn image_facts(namespace: &Namespace, record: &ImageRecord, now: SystemTime) -> Facts {
    let mut facts = Facts::of_labels(namespace, &record.labels);
    facts.root = !expired(&record.labels, now);
    facts.firm.push(Node::blob(namespace, &record.target.digest));
    facts
}

fn container_facts(namespace: &Namespace, record: &ContainerRecord) -> Facts {
    let mut facts = Facts::of_labels(namespace, &record.labels);
    facts.root = true;
    if !record.snapshot_key.is_empty() {
        facts.firm.push(Node::snapshot(namespace, &record.snapshotter, &record.snapshot_key));
    }
    facts
}

fn snapshot_facts(namespace: &Namespace, snapshotter: &str, record: &SnapshotRecord) -> Facts {
    let mut facts = Facts::of_labels(namespace, &record.labels);
    facts.bytes = record.usage.map_or(0, |usage| usage.bytes);
    facts.firm.extend(record.parent.iter().map(|parent| Node::snapshot(namespace, snapshotter, parent)));
    facts
}

fn ingest_facts(found: &Found, now: SystemTime) -> Facts {
    let age = now.duration_since(found.info.started).unwrap_or_default();
    let expected = found.info.expected.digest.iter();
    Facts {
        root: age < INGEST_KEPT,
        firm: expected.map(|digest| Node::blob(&found.namespace, digest)).collect(),
        bytes: found.status().offset,
        ..Facts::default()
    }
}
