//! Removes what nothing keeps: mark and sweep over all namespaces.
//!
//! Kept are leases that have not ended, images that have not expired, containers, blobs and snapshots labelled
//! `containerd.io/gc.root`, ingests younger than a day, and everything reachable from these: the target of an image, the
//! parent of a snapshot, the root of a container, what an ingest expects, and the labels `containerd.io/gc.ref.*` and
//! `gc.bref.*`. Removed is the rest ([`Plan`] says what that would be): its records in batches, each in one transaction,
//! whoever refers before what it refers to ([`order`]), and one sync for all; then its files. A crash in between leaves files without records,
//! which the next start (blobs) or the snapshotter (directories) removes. Files of blobs whose records were lost to damage
//! (`rebuild`), and that nobody has fetched again since, go too.
//!
//! A record that cannot be read may keep anything: nothing of its namespace is removed until it is repaired
//! ([`Store::repair_records`]); other namespaces are collected as always.
//!
//! Changes go on beside it; [`gate`] says why none of them loses anything. They wait while a moment is marked, and during
//! the transaction of a batch.
//!
//! Not here: the directories of snapshots, which [`Store::collect`] hands to its caller.

mod expiry;
mod gate;
mod graph;
mod order;
mod plan;
mod source;
mod survey;
mod why;

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::SystemTime;

use storage_model::{Digest, Namespace};

pub(crate) use expiry::expires;
pub(crate) use gate::Gate;
pub(crate) use graph::{EXPIRE_LABEL, Node};
pub use plan::{DoomReason, Doomed, Plan};
pub use why::KeeperChain;

use crate::StoreError;
use crate::blob::{self, BlobRecord};
use crate::change::Change;
use crate::image;
use crate::ingest::Claim;
use crate::ingest_files::Found;
use crate::metadata::{Durability, Table, Transaction, key};
use crate::snapshot::{self, SnapshotRecord};
use crate::store::Store;
use crate::thing::Thing;
use survey::Survey;

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
    /// Bytes of blobs and ingests.
    pub freed_bytes: u64,
    /// Bytes that the snapshots took when they were committed; those never committed count as nothing.
    pub snapshot_bytes: u64,
}

impl Collected {
    fn count(&mut self, doomed: &Doomed) {
        let (counter, bytes) = match doomed.thing {
            Thing::Blob(_) => (&mut self.blobs, &mut self.freed_bytes),
            Thing::Ingest(_) => (&mut self.ingests, &mut self.freed_bytes),
            Thing::Snapshot { .. } => (&mut self.snapshots, &mut self.snapshot_bytes),
            Thing::Image(_) => (&mut self.images, &mut self.freed_bytes),
            Thing::Lease(_) => (&mut self.leases, &mut self.freed_bytes),
            Thing::Container(_) => return,
        };
        *counter += 1;
        *bytes += doomed.bytes;
    }
}

/// Things swept in one transaction, which others wait for: 1,000 take about 10 ms (`examples/figures.rs`).
const BATCH: usize = 1000;

/// What the sweep took out, for the files and the news to follow.
#[derive(Default)]
struct Swept {
    doomed: Vec<Doomed>,
    /// Blobs whose bytes nobody holds any more, and their sizes.
    freed: Vec<(Digest, u64)>,
    snapshots: Vec<RemovedSnapshot>,
}

impl Store {
    /// Removes what nothing keeps. `removed` is called with each removed snapshot, children before their parents, after its
    /// record is gone for good: its directory is the callee's to remove.
    ///
    /// One collection runs at a time; a second waits, so `removed` must not begin one. When it returns, the files are
    /// unlinked.
    ///
    /// # Errors
    /// [`StoreError::Io`] or [`StoreError::Metadata`] if the disk refused; what is left goes with the next collection.
    pub fn collect(&self, removed: &mut dyn FnMut(RemovedSnapshot)) -> Result<Collected, StoreError> {
        Ok(self.collect_listed(removed)?.totals)
    }

    /// Like [`Store::collect`], and lists what went.
    ///
    /// # Errors
    /// Those of [`Store::collect`].
    pub fn collect_listed(&self, removed: &mut dyn FnMut(RemovedSnapshot)) -> Result<Plan, StoreError> {
        let mut swept = Swept::default();
        let outcome = {
            let _one = self.alone_collecting();
            let now = SystemTime::now();
            let outcome = self.mark_and_sweep(now, &mut swept);
            if outcome.is_ok() {
                *self.0.collected.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
            }
            // What was swept before a failure is gone for good too, and its files go.
            outcome.and(self.remove_files(&mut swept, removed))
        };
        for doomed in &swept.doomed {
            self.tell_doomed(doomed);
        }
        outcome?;
        let plan = Plan::of(swept.doomed);
        tracing::debug!(collected = ?plan.totals, "collection done");
        Ok(plan)
    }

    fn alone_collecting(&self) -> MutexGuard<'_, ()> {
        self.0.collecting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark_and_sweep(&self, now: SystemTime, swept: &mut Swept) -> Result<(), StoreError> {
        let watch = self.0.gate.watch();
        let mut survey = Survey::take(self, now, &HashSet::new())?;
        let order = survey.unmarked();
        for batch in order.chunks(BATCH) {
            let (_closed, touched) = watch.close();
            survey.mark_touched(self, touched)?;
            let garbage: Vec<&Node> = batch.iter().filter(|node| !survey.marks.keeps(node)).collect();
            let records = self.0.metadata.transact_deletion_with(Durability::Written, |transaction| {
                sweep(transaction, &garbage, &survey)
            })?;
            swept.doomed.extend(records.doomed);
            swept.freed.extend(records.freed);
            swept.snapshots.extend(records.snapshots);
            for node in garbage {
                if let Some(found) = survey.ingest(node) {
                    swept.doomed.extend(self.sweep_ingest(node, found)?);
                }
            }
        }
        Ok(())
    }

    /// Removes an ingest, unless someone writes to it.
    fn sweep_ingest(&self, node: &Node, found: &Found) -> Result<Option<Doomed>, StoreError> {
        let Some(_claim) = Claim::take(self, &found.id) else { return Ok(None) };
        let bytes = found.status().offset;
        self.0.trash.discard(&found.directory)?;
        Ok(Some(Doomed::new(node, bytes, DoomReason::Expired)))
    }

    fn remove_files(
        &self,
        swept: &mut Swept,
        removed: &mut dyn FnMut(RemovedSnapshot),
    ) -> Result<(), StoreError> {
        if !swept.doomed.is_empty() {
            // Records before files: from here on no power cut brings a record back.
            self.0.metadata.sync()?;
        }
        std::mem::take(&mut swept.snapshots).into_iter().for_each(removed);
        let outcome = swept.freed.iter().try_for_each(|(digest, size)| self.discard_content(digest, *size));
        let outcome = outcome.and_then(|()| self.discard_strays());
        self.0.trash.empty();
        self.0.metadata.keep_room();
        outcome
    }

    /// Removes the files of blobs that lost their records, if records were lost.
    fn discard_strays(&self) -> Result<(), StoreError> {
        if !self.0.strays.load(Ordering::Acquire) {
            return Ok(());
        }
        for digest in self.0.layout.blob_digests()? {
            let _here = self.0.digests.lock(std::iter::once(&digest));
            if !self.0.metadata.contains(Table::Content, digest.as_bytes())? {
                tracing::warn!(%digest, "the file of a blob that lost its record is removed");
                self.0.trash.discard(&self.blob_path(&digest))?;
            }
        }
        self.0.strays.store(false, Ordering::Release);
        Ok(())
    }

    fn tell_doomed(&self, doomed: &Doomed) {
        let change = match doomed.thing.clone() {
            Thing::Blob(digest) => Change::ContentDeleted { digest },
            Thing::Snapshot { snapshotter, key } => Change::SnapshotRemoved { snapshotter, key },
            Thing::Image(name) => Change::ImageDeleted { name },
            Thing::Ingest(_) | Thing::Container(_) | Thing::Lease(_) => return,
        };
        self.tell(&doomed.namespace, || change);
    }
}

/// Deletes the records of `garbage`.
fn sweep(transaction: &Transaction<'_>, garbage: &[&Node], survey: &Survey) -> Result<Swept, StoreError> {
    let mut swept = Swept::default();
    for node in garbage {
        let namespace = &node.namespace;
        let bytes = match &node.thing {
            Thing::Blob(digest) => {
                if transaction.lock::<BlobRecord>(&key::blob(namespace, digest))?.is_none() {
                    continue;
                }
                let freed = blob::release(transaction, namespace, digest)?;
                swept.freed.extend(freed.map(|size| (*digest, size)));
                freed.unwrap_or(0)
            }
            Thing::Snapshot { snapshotter, key: name } => {
                let snapshot_key = key::snapshot(namespace, snapshotter, name);
                let Some(record) = transaction.lock::<SnapshotRecord>(&snapshot_key)? else { continue };
                snapshot::unlink(transaction, namespace, snapshotter, &record)?;
                let bytes = record.usage.map_or(0, |usage| usage.bytes);
                let (namespace, snapshotter) = (namespace.clone(), snapshotter.clone());
                swept.snapshots.push(RemovedSnapshot { namespace, snapshotter, record });
                bytes
            }
            Thing::Image(name) => {
                image::remove(transaction, &key::key(namespace, &[name]))?;
                0
            }
            Thing::Lease(id) => {
                transaction.delete_below(Table::LeaseResources, &key::prefix(namespace, &[id]))?;
                transaction.delete(Table::Leases, &key::key(namespace, &[id]))?;
                0
            }
            Thing::Ingest(_) | Thing::Container(_) => continue,
        };
        swept.doomed.push(Doomed::new(node, bytes, survey.reason(node)));
    }
    Ok(swept)
}
