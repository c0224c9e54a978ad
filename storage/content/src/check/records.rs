//! Can every record be read, and do those agree that say the same thing twice.
//!
//! Said twice are: who has a blob (one record a namespace, and a count with the bytes), and what stands on a snapshot (the
//! parent in its record, and an edge from the parent). Records change in transactions that keep both right; a
//! difference is damage, or a fault of ours.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use storage_model::{Digest, Namespace};

use super::{CheckPhase, Finding, Pass, Problem, Suspect};
use crate::StoreError;
use crate::blob::{BlobRecord, ContentRecord, digest_of};
use crate::container::ContainerRecord;
use crate::image::ImageRecord;
use crate::lease::LeaseRecord;
use crate::metadata::{Record, Table, key, record};
use crate::namespace::NamespaceRecord;
use crate::snapshot::{self, SnapshotRecord};
use crate::thing::Thing;

impl Pass<'_> {
    pub(super) fn check_records(&mut self) {
        self.check_table(|_, _: NamespaceRecord| ());
        self.check_table(|_, _: ImageRecord| ());
        self.check_table(|_, _: LeaseRecord| ());
        self.check_table(|_, _: ContainerRecord| ());
        self.check_holders();
        self.check_edges();
        self.progress(CheckPhase::Records, 0, 0);
    }

    /// Reads a whole table: what cannot be read is found, the rest is shown to `visit`.
    fn check_table<R: Record>(&mut self, mut visit: impl FnMut(&[u8], R)) {
        let mut findings = Vec::new();
        let mut objects = 0;
        let outcome = self.store.0.metadata.scan(R::TABLE, &[], |row, value| {
            objects += 1;
            match record::decode(row, value) {
                Ok(record) => visit(row, record),
                Err(error) => findings.push(unreadable::<R>(row, error)),
            }
            Ok(ControlFlow::Continue(()))
        });
        self.summary.objects += objects;
        if let Err(error) = outcome {
            findings.push(unreadable::<R>(&[], error));
        }
        findings.into_iter().for_each(|finding| self.found(finding));
    }

    fn check_holders(&mut self) {
        let mut found: HashMap<Digest, u32> = HashMap::new();
        self.check_table(|row, _: BlobRecord| {
            if let Some(digest) = key::split_namespace(row).and_then(|(_, rest)| digest_of(rest)) {
                *found.entry(digest).or_default() += 1;
            }
        });
        let mut suspects = Vec::new();
        self.check_table(|row, content: ContentRecord| {
            if let Some(digest) = digest_of(row)
                && found.remove(&digest) != Some(content.holders)
            {
                suspects.push(digest);
            }
        });
        suspects.extend(found.into_keys());
        for digest in suspects {
            if let Some((holders, namespaces)) = self.holders_differ(&digest) {
                let problem =
                    Problem::Holders { holders, found: namespaces.len().try_into().unwrap_or(u32::MAX) };
                let (suspect, images) = (Suspect::Thing(Thing::Blob(digest)), self.needs.of(&digest));
                self.found(Finding { suspect, namespaces, problem, images });
            }
        }
    }

    /// Counted and real holders of a blob now, if they differ.
    fn holders_differ(&self, digest: &Digest) -> Option<(u32, Vec<Namespace>)> {
        let _alone = self.store.0.gate.close();
        let content: Option<ContentRecord> = self.store.0.metadata.get(digest.as_bytes()).ok()?;
        let holders = content.map_or(0, |content| content.holders);
        let namespaces = self.store.holders_of(digest);
        (namespaces.len() as u64 != u64::from(holders)).then_some((holders, namespaces))
    }

    fn check_edges(&mut self) {
        let mut numbers: HashMap<u64, String> = HashMap::new();
        let mut twice = Vec::new();
        // Edges that should be: row of the edge, and what it is about.
        let mut edges: BTreeMap<Vec<u8>, Edge> = BTreeMap::new();
        self.check_table(|row, record: SnapshotRecord| {
            let Some((namespace, snapshotter)) = snapshot::place(row) else { return };
            if let Some(parent) = &record.parent {
                let row = key::child(&namespace, snapshotter, parent, &record.key);
                let thing = Thing::snapshot(snapshotter, &record.key);
                edges.insert(row, Edge { namespace: namespace.clone(), thing, parent: parent.clone() });
            }
            if let Some(other) = numbers.insert(record.number, record.key.clone()) {
                twice.push((namespace, Thing::snapshot(snapshotter, record.key), record.number, other));
            }
        });
        for (namespace, thing, number, other) in twice {
            let problem = Problem::NumberTwice { number, other };
            let suspect = Suspect::Thing(thing);
            self.found(Finding { suspect, namespaces: vec![namespace], problem, images: Vec::new() });
        }
        let mut wrong = Vec::new();
        let _ = self.store.0.metadata.scan(Table::SnapshotChildren, &[], |row, _| {
            if edges.remove(row).is_none() {
                wrong.extend(Edge::of_row(row));
            }
            Ok(ControlFlow::Continue(()))
        });
        wrong.extend(edges.into_values());
        for edge in wrong {
            if self.edge_differs(&edge) {
                let Edge { namespace, thing, parent } = edge;
                let (suspect, problem) = (Suspect::Thing(thing), Problem::Edge { parent });
                self.found(Finding { suspect, namespaces: vec![namespace], problem, images: Vec::new() });
            }
        }
    }

    /// Whether the edge and the record differ now.
    fn edge_differs(&self, edge: &Edge) -> bool {
        let Thing::Snapshot { snapshotter, key: name } = &edge.thing else { return false };
        let _alone = self.store.0.gate.close();
        let metadata = &self.store.0.metadata;
        let row = key::child(&edge.namespace, snapshotter, &edge.parent, name);
        let listed = metadata.contains(Table::SnapshotChildren, &row).unwrap_or(false);
        let record: Option<SnapshotRecord> =
            metadata.get(&key::snapshot(&edge.namespace, snapshotter, name)).unwrap_or_default();
        let stands = record.is_some_and(|record| record.parent.as_deref() == Some(&edge.parent));
        listed != stands
    }
}

/// An edge from a snapshot to one that stands on it.
struct Edge {
    namespace: Namespace,
    /// What stands on the parent.
    thing: Thing,
    parent: String,
}

impl Edge {
    fn of_row(row: &[u8]) -> Option<Self> {
        let (namespace, rest) = key::split_namespace(row)?;
        match key::split_parts(rest)?.as_slice() {
            [snapshotter, _, parent, child] => Some(Self {
                namespace,
                thing: Thing::snapshot(*snapshotter, *child),
                parent: (*parent).to_owned(),
            }),
            _ => None,
        }
    }
}

fn unreadable<R: Record>(row: &[u8], error: StoreError) -> Finding {
    let suspect = Suspect::Record { table: R::TABLE.name(), key: row.escape_ascii().to_string() };
    let namespaces = key::split_namespace(row).map(|(namespace, _)| namespace).into_iter().collect();
    let problem = match error {
        StoreError::Record { source, .. } => Problem::Record(source),
        other => Problem::Unreadable(other),
    };
    Finding { suspect, namespaces, problem, images: Vec::new() }
}
