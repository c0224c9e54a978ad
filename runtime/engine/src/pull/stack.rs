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
use storage_model::{ChainId, ProtectionDomain, chain_ids};
use tokio::task::JoinSet;

use super::extraction::Extraction;
use super::layer::LayerJob;
use super::progress::{LayerState, Meter, Part};
use super::{Pull, blocking};
use crate::EngineError;

/// Layers that are fetched and unpacked side by side, at most.
///
/// Each has up to five threads, of which one or two are busy: four layers keep two cores and a long round trip filled.
/// More would share the cores with the largest layer, whose inflate is serial and decides the end.
const LAYERS_AT_ONCE: usize = 4;

/// Label on a layer's blob: the diff ID it was seen to unpack to (containerd's name).
const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// One layer's place in the stack.
#[derive(Clone)]
struct Slot {
    index: usize,
    chain: ChainId,
    name: CommittedName,
    meter: Arc<Meter>,
}

impl Pull {
    /// Unpacks and commits every layer that is not here yet, waiting for other pulls that are bringing some of them.
    ///
    /// Each round claims in one step all that is missing and gives it up at its end, so that pulls which wait for one
    /// another cannot form a circle even when one of them fails. What this pull has extracted stays its own.
    pub(super) async fn bring_layers(&self) -> Result<(), EngineError> {
        let slots = self.slots()?;
        let mut extracted = BTreeMap::new();
        loop {
            let missing = self.only_missing(slots.clone()).await?;
            let keys = missing.iter().map(|slot| (self.namespace.clone(), slot.name.clone()));
            let claim = self.engine.claims().claim(self.snapshotter.name(), keys);
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
        let (space, snapshotter) = (self.space.clone(), self.snapshotter.clone());
        let layers = self.target.manifest.layers.clone();
        let diff_ids = self.target.config.rootfs.diff_ids.clone();
        blocking(move || {
            let mut missing = Vec::new();
            for slot in slots {
                // Leased first, looked at afterwards: what is found now cannot be collected any more.
                if let Some(lease) = space.lease_id() {
                    space.add_resource(lease, &Resource::snapshot(snapshotter.name(), slot.name.as_str()))?;
                }
                let proved = space.pin_blob(&layers[slot.index].digest).is_ok_and(|blob| {
                    blob.labels.get(UNCOMPRESSED) == Some(&diff_ids[slot.index].to_string())
                });
                if proved && snapshotter.stat(slot.name.as_str()).is_ok() {
                    slot.meter.set(LayerState::Exists);
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
        slots.sort_by_key(|slot| std::cmp::Reverse(self.target.manifest.layers[slot.index].size));
        let mut waiting = slots.into_iter();
        let mut running = JoinSet::new();
        let mut done = BTreeMap::new();
        let mut failed = None;
        loop {
            while failed.is_none()
                && running.len() < LAYERS_AT_ONCE
                && let Some(slot) = waiting.next()
            {
                let job = self.job(&slot);
                running.spawn(async move { (slot.index, job.run().await) });
            }
            match running.join_next().await {
                None => return failed.map_or(Ok(done), Err),
                Some(Ok((index, Ok(extraction)))) => {
                    done.insert(index, extraction);
                }
                Some(Ok((_, Err(error)))) => {
                    // The others are told to stop and end with errors of their own; the first is the cause.
                    self.workers.stop();
                    failed.get_or_insert(error);
                }
                Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
            }
        }
    }

    fn job(&self, slot: &Slot) -> LayerJob {
        LayerJob {
            reference: self.reference.clone(),
            descriptor: self.target.manifest.layers[slot.index].clone(),
            compression: self.target.compressions[slot.index],
            diff_id: self.target.config.rootfs.diff_ids[slot.index],
            chain: slot.chain,
            client: self.client.clone(),
            space: self.space.clone(),
            pull: self.lease.clone(),
            workers: self.workers.clone(),
            snapshotter: self.snapshotter.clone(),
            flight: self.engine.claims().blob(&self.target.manifest.layers[slot.index].digest),
            meter: slot.meter.clone(),
            clock: self.clock.clone(),
        }
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
        let (store, mark) = (self.engine.store().clone(), self.mark);
        let (clock, space) = (self.clock.clone(), self.space.clone());
        let layers = self.target.manifest.layers.clone();
        let diff_ids = self.target.config.rootfs.diff_ids.clone();
        let (snapshotter, reference) = (self.snapshotter.clone(), self.reference.to_string());
        blocking(move || {
            settle(&*snapshotter, &slots, &extracted, |slot, source| EngineError::Layer {
                reference: reference.clone(),
                digest: layers[slot.index].digest,
                source,
            })?;
            clock.time(Part::Sync, || store.sync_since(mark))?;
            let begun = Instant::now();
            let mut extracted = extracted;
            for slot in &slots {
                let parent = slot.index.checked_sub(1).map(|below| &slots[below].name);
                if let Some(extraction) = extracted.remove(&slot.index) {
                    extraction.commit(&slot.name, parent)?;
                    let label = LabelChange::set(UNCOMPRESSED, diff_ids[slot.index].to_string());
                    space.set_blob_labels(&layers[slot.index].digest, label)?;
                    slot.meter.set(LayerState::Done);
                }
            }
            clock.add(Part::Publish, begun.elapsed());
            Ok(())
        })
        .await
    }

    fn slots(&self) -> Result<Vec<Slot>, EngineError> {
        let chains = chain_ids(&self.target.config.rootfs.diff_ids);
        chains
            .into_iter()
            .enumerate()
            .map(|(index, chain)| {
                let name = ProtectionDomain::Plain.snapshot_name(&chain).parse()?;
                Ok(Slot { index, chain, name, meter: self.reporter.meter(index) })
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
