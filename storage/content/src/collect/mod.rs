//! Removes what nothing keeps: mark and sweep over all namespaces.
//!
//! Kept are leases that have not ended, images that have not expired, containers, blobs and snapshots labelled
//! `containerd.io/gc.root`, ingests younger than a day, and everything reachable from these: the target of an image, the
//! parent of a snapshot, the root of a container, what an ingest expects, and the labels `containerd.io/gc.ref.*` and
//! `gc.bref.*`. Removed is the rest: its records in one transaction, then its files. A crash in between leaves files
//! without records, which the next start (blobs) or the snapshotter (directories) removes.
//!
//! Changes go on beside it; [`gate`] says why none of them loses anything. They wait twice: while a moment is marked, and
//! during the sweep's transaction.
//!
//! Not here: the directories of snapshots, which [`Store::collect`] hands to its caller.

mod gate;
mod graph;
mod source;

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;
use std::time::SystemTime;

use storage_model::{Digest, Namespace};

pub(crate) use gate::Gate;
pub(crate) use graph::{EXPIRE_LABEL, Node};

use crate::StoreError;
use crate::blob::{self, BlobRecord};
use crate::ingest::Claim;
use crate::ingest_files;
use crate::metadata::{Table, Transaction, key};
use crate::snapshot::{self, SnapshotRecord};
use crate::store::Store;
use graph::{Marks, Thing};
use source::{Picture, facts_now};

/// A snapshot that a collection removed: its directory is to be removed now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedSnapshot {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its snapshotter.
    pub snapshotter: String,
    /// What it was.
    pub record: SnapshotRecord,
}

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs, counted per namespace.
    pub blobs: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Ingests.
    pub ingests: u64,
    /// Images that had expired.
    pub images: u64,
    /// Leases that had ended.
    pub leases: u64,
    /// Bytes of blobs and ingests; what snapshots took is for their snapshotter to say.
    pub freed_bytes: u64,
}

/// What a sweep's transaction took out, for the files to follow.
#[derive(Default)]
struct Swept {
    freed: Vec<(Digest, u64)>,
    snapshots: Vec<RemovedSnapshot>,
    collected: Collected,
}

impl Store {
    /// Removes what nothing keeps. `removed` is called with each removed snapshot, children before their parents, after its
    /// record is gone for good: its directory is the callee's to remove.
    ///
    /// One collection runs at a time; a second waits, so `removed` must not begin one. When it returns, the files are
    /// unlinked.
    ///
    /// # Errors
    /// [`StoreError::Record`] if a record cannot be read: nothing was removed, since what it kept is unknown.
    /// [`StoreError::Io`] or [`StoreError::Metadata`] if the disk refused; what is left goes with the next collection.
    pub fn collect(&self, removed: &mut dyn FnMut(RemovedSnapshot)) -> Result<Collected, StoreError> {
        let _one = self.0.collecting.lock().unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now();
        {
            let closed = self.0.gate.close();
            self.0.gate.watch(&closed);
        }
        let outcome = self.mark_and_sweep(now);
        self.0.gate.touched_since();
        let mut swept = outcome?;
        children_first(&mut swept.snapshots);
        swept.snapshots.into_iter().for_each(removed);
        for (digest, size) in &swept.freed {
            self.discard_content(digest)?;
            swept.collected.freed_bytes += size;
        }
        self.0.trash.empty();
        self.0.metadata.keep_room();
        tracing::debug!(collected = ?swept.collected, "collection done");
        Ok(swept.collected)
    }

    fn mark_and_sweep(&self, now: SystemTime) -> Result<Swept, StoreError> {
        let ingests = ingest_files::list(&self.0.layout)?;
        let picture = Picture::take(&self.0.metadata, &ingests, now)?;
        let mut marks = Marks::default();
        let known = |node: &Node| Ok::<_, StoreError>(picture.facts.get(node).cloned());
        marks.mark(picture.roots.iter().cloned(), known, &picture.kept_by)?;
        if picture.removable.iter().all(|node| marks.keeps(node)) {
            return Ok(Swept::default());
        }
        let _closed = self.0.gate.close();
        let touched = self.0.gate.touched_since();
        marks.mark(touched, |node| facts_now(&self.0.metadata, node, now), &picture.kept_by)?;
        let garbage: Vec<&Node> = picture.removable.iter().filter(|node| !marks.keeps(node)).collect();
        let mut swept = self.0.metadata.transact_deletion(|transaction| self.sweep(transaction, &garbage))?;
        let dead: HashSet<&Node> = garbage.into_iter().collect();
        for found in &ingests {
            let node = Node::ingest(&found.namespace, &found.info.reference);
            if dead.contains(&node)
                && let Some(_claim) = Claim::take(self, &found.id)
            {
                swept.collected.freed_bytes += found.status().offset;
                self.0.trash.discard(&found.directory)?;
                swept.collected.ingests += 1;
            }
        }
        Ok(swept)
    }

    /// Deletes the records of `garbage`.
    fn sweep(&self, transaction: &Transaction<'_>, garbage: &[&Node]) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        for Node { namespace, thing } in garbage {
            match thing {
                Thing::Blob(digest) => {
                    if transaction.lock::<BlobRecord>(&key::blob(namespace, digest))?.is_some() {
                        let freed = blob::release(transaction, namespace, digest)?;
                        swept.freed.extend(freed.map(|size| (*digest, size)));
                        swept.collected.blobs += 1;
                    }
                }
                Thing::Snapshot { snapshotter, key: name } => {
                    let record =
                        transaction.lock::<SnapshotRecord>(&key::snapshot(namespace, snapshotter, name))?;
                    if let Some(record) = record {
                        snapshot::unlink(transaction, namespace, snapshotter, &record)?;
                        let (namespace, snapshotter) = (namespace.clone(), snapshotter.clone());
                        swept.snapshots.push(RemovedSnapshot { namespace, snapshotter, record });
                        swept.collected.snapshots += 1;
                    }
                }
                Thing::Image(name) => {
                    transaction.delete(Table::Images, &key::key(namespace, &[name]))?;
                    swept.collected.images += 1;
                }
                Thing::Lease(id) => {
                    transaction.delete_below(Table::LeaseResources, &key::prefix(namespace, &[id]))?;
                    transaction.delete(Table::Leases, &key::key(namespace, &[id]))?;
                    swept.collected.leases += 1;
                }
                Thing::Ingest(_) | Thing::Container(_) => {}
            }
        }
        Ok(swept)
    }
}

/// Orders snapshots so that each comes before the one it stands on.
fn children_first(snapshots: &mut [RemovedSnapshot]) {
    let place = |one: &RemovedSnapshot, key: &str| Node::snapshot(&one.namespace, &one.snapshotter, key);
    let parents: HashMap<Node, Option<Node>> = snapshots
        .iter()
        .map(|one| {
            let parent = one.record.parent.as_deref().map(|parent| place(one, parent));
            (place(one, &one.record.key), parent)
        })
        .collect();
    let depth = |one: &RemovedSnapshot| {
        let mut depth = 0_usize;
        let mut at = parents.get(&place(one, &one.record.key));
        while let Some(Some(parent)) = at {
            depth += 1;
            at = parents.get(parent);
        }
        std::cmp::Reverse(depth)
    };
    snapshots.sort_by_cached_key(depth);
}
