//! The layers of one image: which are missing, who brings them, and how they are put on top of one another.
//!
//! `claim what is missing -> extract side by side -> settle -> one syncfs -> commit, lowest first`
//!
//! Nothing of it can be seen before it is committed, and nothing is committed before all of it is on the disk.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use snapshotters_contract::{CommittedName, Snapshotter};
use storage_content::{LabelChange, Resource};
use storage_layer::LayerError;
use storage_model::{ChainId, Compression, ProtectionDomain, chain_ids};
use tokio::task::JoinSet;

use super::extraction::Extraction;
use super::layer::{LayerJob, Unpacking};
use super::progress::{LayerState, Meter, Part};
use super::{PlatformImage, Task, UNCOMPRESSED, source_label};
use crate::EngineError;
use crate::work::blocking;

/// One layer's place in the stack.
#[derive(Clone)]
struct Slot {
    index: usize,
    chain: ChainId,
    name: CommittedName,
    meter: Arc<Meter>,
}

/// The layers of one image for one snapshotter.
pub(crate) struct Stack {
    task: Task,
    image: Arc<PlatformImage>,
    snapshotter: Arc<dyn Snapshotter>,
}

impl Stack {
    pub(crate) fn new(task: &Task, image: &Arc<PlatformImage>, snapshotter: &Arc<dyn Snapshotter>) -> Self {
        Self { task: task.clone(), image: image.clone(), snapshotter: snapshotter.clone() }
    }

    /// Unpacks and commits every layer that is not here yet, waiting for others that are bringing some of them.
    ///
    /// Each round claims in one step all that is missing and gives it up at its end, so that those which wait for
    /// one another cannot form a circle even when one of them fails. What this one has extracted stays its own.
    pub(crate) async fn bring(&self) -> Result<(), EngineError> {
        let slots = self.slots()?;
        let mut extracted = BTreeMap::new();
        loop {
            let missing = self.only_missing(slots.clone()).await?;
            let keys = missing.iter().map(|slot| (self.task.space.namespace().clone(), slot.name.clone()));
            let claim = self.task.engine.claims().claim(self.snapshotter.name(), keys);
            // Looked at again under the claim: another pull may have published in between.
            let missing = self.only_missing(missing).await?;
            let ours =
                missing.iter().filter(|slot| claim.holds(&slot.name) && !extracted.contains_key(&slot.index));
            extracted.extend(self.extract(ours.cloned().collect()).await?);
            claim.wait_for_others().await;
            let missing = self.only_missing(missing).await?;
            if missing.iter().all(|slot| extracted.contains_key(&slot.index)) {
                return self.commit(slots, extracted).await;
            }
        }
    }

    /// Those of `slots` that are not both unpacked and backed by their blob in this namespace.
    ///
    /// A chain ID alone is not proof: an image may list diff IDs it does not hold. A snapshot is reused only where the
    /// blob behind it is held too, and was seen to unpack to that diff ID.
    async fn only_missing(&self, slots: Vec<Slot>) -> Result<Vec<Slot>, EngineError> {
        let (space, snapshotter, image) =
            (self.task.space.clone(), self.snapshotter.clone(), self.image.clone());
        let origin = self.task.origin.clone();
        blocking(move || {
            let mut missing = Vec::new();
            for slot in slots {
                // Leased first, looked at afterwards: what is found now cannot be collected any more.
                if let Some(lease) = space.lease_id() {
                    space.add_resource(lease, &Resource::snapshot(snapshotter.name(), slot.name.as_str()))?;
                }
                let digest = &image.manifest.layers[slot.index].digest;
                let diff_id = image.config.rootfs.diff_ids[slot.index].to_string();
                let blob = space.pin_blob(digest).ok();
                // A plain layer's digest is its diff ID: to hold it is the proof.
                let plain =
                    image.compressions[slot.index] == Compression::None && digest.to_string() == diff_id;
                let proved = blob.filter(|blob| plain || blob.labels.get(UNCOMPRESSED) == Some(&diff_id));
                if let Some(blob) = proved
                    && snapshotter.stat(slot.name.as_str()).is_ok()
                {
                    slot.meter.set(LayerState::Exists);
                    let origin = origin.as_ref();
                    if let Some((key, value)) =
                        origin.and_then(|origin| source_label(&blob.labels, &origin.reference))
                    {
                        space.set_blob_labels(digest, LabelChange::set(key, value))?;
                    }
                } else {
                    missing.push(slot);
                }
            }
            Ok(missing)
        })
        .await
    }

    /// Fetches and unpacks `slots` side by side, the largest first: their inflate is serial, so it decides the end.
    async fn extract(&self, mut slots: Vec<Slot>) -> Result<BTreeMap<usize, Extraction>, EngineError> {
        slots.sort_by_key(|slot| std::cmp::Reverse(self.image.manifest.layers[slot.index].size));
        let mut waiting = slots.into_iter();
        let mut running = JoinSet::new();
        let mut done = BTreeMap::new();
        let mut failed = None;
        loop {
            while failed.is_none()
                && running.len() < self.task.at_once
                && let Some(slot) = waiting.next()
            {
                let (job, how) = self.job(&slot);
                running.spawn(async move { (slot.index, job.unpack(how).await) });
            }
            match running.join_next().await {
                None => return failed.map_or(Ok(done), Err),
                Some(Ok((index, Ok(extraction)))) => {
                    done.insert(index, extraction);
                }
                Some(Ok((_, Err(error)))) => {
                    // The others are told to stop and end with errors of their own; the first is the cause.
                    self.task.workers.stop();
                    failed.get_or_insert(error);
                }
                Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
            }
        }
    }

    fn job(&self, slot: &Slot) -> (LayerJob, Unpacking) {
        let job = LayerJob::new(&self.task, self.image.manifest.layers[slot.index].clone());
        let how = Unpacking {
            snapshotter: self.snapshotter.clone(),
            compression: self.image.compressions[slot.index],
            diff_id: self.image.config.rootfs.diff_ids[slot.index],
            chain: slot.chain,
        };
        (job, how)
    }

    /// Makes what was extracted durable, then commits it, lowest first.
    async fn commit(
        &self,
        slots: Vec<Slot>,
        extracted: BTreeMap<usize, Extraction>,
    ) -> Result<(), EngineError> {
        if extracted.is_empty() {
            return Ok(());
        }
        let (store, mark) = (self.task.engine.store().clone(), self.task.mark);
        let (clock, space) = (self.task.clock.clone(), self.task.space.clone());
        let (image, snapshotter, name) =
            (self.image.clone(), self.snapshotter.clone(), self.task.name.to_string());
        blocking(move || {
            settle(&*snapshotter, &slots, &extracted, |slot, source| EngineError::Layer {
                reference: name.clone(),
                digest: image.manifest.layers[slot.index].digest,
                source,
            })?;
            clock.time(Part::Sync, || store.sync_since(mark))?;
            let begun = Instant::now();
            let mut extracted = extracted;
            for slot in &slots {
                let parent = slot.index.checked_sub(1).map(|below| &slots[below].name);
                if let Some(extraction) = extracted.remove(&slot.index) {
                    extraction.commit(&slot.name, parent)?;
                    let diff_id = image.config.rootfs.diff_ids[slot.index].to_string();
                    let label = LabelChange::set(UNCOMPRESSED, diff_id);
                    space.set_blob_labels(&image.manifest.layers[slot.index].digest, label)?;
                    slot.meter.set(LayerState::Done);
                }
            }
            clock.add(Part::Publish, begun.elapsed());
            Ok(())
        })
        .await
    }

    fn slots(&self) -> Result<Vec<Slot>, EngineError> {
        let chains = chain_ids(&self.image.config.rootfs.diff_ids);
        chains
            .into_iter()
            .enumerate()
            .map(|(index, chain)| {
                let name = ProtectionDomain::Plain.snapshot_name(&chain).parse()?;
                let meter = self.task.reporter.meter(&self.image.manifest.layers[index]);
                Ok(Slot { index, chain, name, meter })
            })
            .collect()
    }
}

/// Gives the directories that layers only imply the attributes they have further down; lowest layer first.
fn settle(
    snapshotter: &dyn Snapshotter,
    slots: &[Slot],
    extracted: &BTreeMap<usize, Extraction>,
    failed: impl Fn(&Slot, LayerError) -> EngineError,
) -> Result<(), EngineError> {
    let mut lowers: Vec<PathBuf> = Vec::new();
    for slot in slots {
        match extracted.get(&slot.index) {
            Some(extraction) => {
                extraction.settle(&lowers).map_err(|error| failed(slot, error))?;
                lowers.insert(0, extraction.path().to_owned());
            }
            None => lowers = snapshotter.layers(&slot.name)?,
        }
    }
    Ok(())
}
