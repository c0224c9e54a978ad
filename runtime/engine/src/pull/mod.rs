//! Brings an image in: the one function that knows the order.
//!
//! `lease -> resolve -> manifest and config -> layers -> sync -> commit -> publish -> release`
//!
//! - The tag is read once; everything after is named by digest.
//! - Layers run side by side and in one pass each ([`layer`]); they are ordered only at commit.
//! - The image exists from the moment its name is written, which is after one `syncfs` of all that it stands on.
//! - Until then everything hangs on a lease marked ephemeral: a killed pull leaves its finished blobs and partial
//!   ingests for the next try, and one collection removes them if there is none.
//!
//! Dropping the future of [`Engine::pull`] cancels: downloads stop, workers end, unfinished snapshots are removed.

mod claims;
mod extraction;
mod feed;
mod layer;
mod lease;
mod progress;
mod resolve;
mod workers;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use snapshotters_contract::{CommittedName, Snapshotter};
use storage_content::{ErrorKind, Expected, ImageRecord, LabelChange, Resource, Space};
use storage_layer::LayerError;
use storage_model::{ChainId, Descriptor, Digest, Labels, Namespace, ProtectionDomain, Reference, chain_ids};
use storage_registry::{Client, Credentials, Notice};
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;

pub(crate) use claims::Claims;
use extraction::Extraction;
use layer::LayerJob;
use lease::PullLease;
use progress::{Clock, Meter, Part, Reporter};
pub use progress::{LayerState, Parts, PullEvent};
use resolve::Target;
use workers::Workers;

use crate::{Engine, EngineError};

/// What to pull, and how to speak to its registry.
#[derive(Debug, Clone, Default)]
pub struct PullRequest {
    /// Reference as the user wrote it.
    pub reference: String,
    /// `os/arch[/variant]`; empty is the host's.
    pub platform: String,
    /// Snapshotter; empty is the default one.
    pub snapshotter: String,
    /// Speak HTTP although the registry is not on loopback.
    pub plain_http: bool,
    /// Do not check the registry's certificate.
    pub skip_verify: bool,
    /// PEM files with more roots to trust.
    pub ca_files: Vec<PathBuf>,
    /// Directory of `hosts.toml` files instead of the engine's.
    pub hosts_dir: Option<PathBuf>,
    /// Name and password for this registry.
    pub credentials: Option<Credentials>,
    /// The user's Docker `config.json`, or its directory.
    pub docker_config: Option<PathBuf>,
}

/// What was pulled.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// Name the image has now.
    pub name: String,
    /// Digest the name stands for.
    pub digest: Digest,
    /// The unpacked tree; `None` for an image without layers.
    pub chain: Option<ChainId>,
    /// Bytes that came over the network.
    pub fetched_bytes: u64,
    /// Wall-clock time, in seconds.
    pub seconds: f64,
    /// Where the work went.
    pub parts: Parts,
}

/// Layers that are fetched and unpacked side by side, at most.
///
/// Each has up to four threads. More layers at once fill a long round trip better but make the largest layer, whose
/// inflate is serial, wait for its share of the cores; `bench/compare` shows four to be the best of 2, 3, 4, 6 and 8.
const LAYERS_AT_ONCE: usize = 4;

impl Engine {
    /// Pulls an image and publishes it under its whole name; tells of its progress through `events`.
    ///
    /// # Errors
    /// [`EngineError`], after which no image, no snapshot and no half-written blob is left; finished blobs and partial
    /// downloads stay until the next collection, so that a second try resumes.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the pull with the same guarantees.
    pub async fn pull(
        &self,
        namespace: &Namespace,
        request: PullRequest,
        events: Sender<PullEvent>,
    ) -> Result<Pulled, EngineError> {
        let begun = Instant::now();
        let reference: Reference = request
            .reference
            .parse()
            .map_err(|source| EngineError::Reference { text: request.reference.clone(), source })?;
        let lease = PullLease::take(self, namespace).await?;
        match self.pull_leased(&lease, reference, request, events).await {
            Ok(mut pulled) => {
                lease.release().await?;
                pulled.seconds = begun.elapsed().as_secs_f64();
                Ok(pulled)
            }
            Err(error) => {
                lease.clean_up(&error).await;
                Err(error)
            }
        }
    }

    async fn pull_leased(
        &self,
        lease: &PullLease,
        reference: Reference,
        request: PullRequest,
        events: Sender<PullEvent>,
    ) -> Result<Pulled, EngineError> {
        let clock = Arc::new(Clock::default());
        let client = self.client(&request, &events)?;
        let target =
            clock.span(Part::Resolve, resolve::target(&client, &reference, &request.platform)).await?;
        let pull = Pull {
            snapshotter: self.snapshotter(&request.snapshotter, lease.space.clone())?,
            reporter: Reporter::start(&reference, &target, events),
            engine: self.clone(),
            namespace: lease.space.namespace().clone(),
            space: lease.space.clone(),
            reference,
            target,
            client,
            clock: clock.clone(),
            lease: lease.name(),
            workers: lease.workers.clone(),
        };
        let (name, digest, chain) = pull.bring().await?;
        Ok(Pulled {
            name,
            digest,
            chain,
            fetched_bytes: pull.reporter.fetched_bytes() + pull.target.document_bytes(),
            seconds: 0.0,
            parts: clock.parts(),
        })
    }

    fn client(&self, request: &PullRequest, events: &Sender<PullEvent>) -> Result<Client, EngineError> {
        let hosts_dir = match &request.hosts_dir {
            Some(directory) => vec![directory.clone()],
            None => self.config().hosts_dirs.clone(),
        };
        let events = events.clone();
        Ok(Client::new(storage_registry::Config {
            hosts_dir,
            docker_config: request.docker_config.clone(),
            credentials: request.credentials.clone(),
            plain_http: request.plain_http,
            skip_verify: request.skip_verify,
            ca_files: request.ca_files.clone(),
            notices: Some(Arc::new(move |notice: &Notice| {
                // A full queue means a slow listener: a notice is worth less than the pull's pace.
                let _ = events.try_send(PullEvent::Message(notice.to_string()));
            })),
            ..storage_registry::Config::default()
        })?)
    }
}

/// One pull, from resolved to published.
struct Pull {
    engine: Engine,
    namespace: Namespace,
    space: Space,
    snapshotter: Arc<dyn Snapshotter>,
    client: Client,
    reference: Reference,
    target: Target,
    reporter: Reporter,
    clock: Arc<Clock>,
    /// The lease's id: names this pull.
    lease: String,
    workers: Workers,
}

/// One layer's place in the stack.
#[derive(Clone)]
struct Slot {
    index: usize,
    chain: ChainId,
    name: CommittedName,
    meter: Arc<Meter>,
}

impl Pull {
    async fn bring(&self) -> Result<(String, Digest, Option<ChainId>), EngineError> {
        let documents = self.store_documents();
        let slots = self.slots()?;
        let layers = self.bring_layers(slots);
        tokio::try_join!(documents, layers)?;
        self.publish().await
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

    /// Unpacks and commits every layer that is not here yet, waiting for other pulls that are bringing some of them.
    ///
    /// Each round claims in one step all that is missing and gives it up at its end, so that pulls which wait for one
    /// another cannot form a circle even when one of them fails. What this pull has extracted stays its own.
    async fn bring_layers(&self, slots: Vec<Slot>) -> Result<(), EngineError> {
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
        let (store, clock, space) = (self.engine.store().clone(), self.clock.clone(), self.space.clone());
        let layers = self.target.manifest.layers.clone();
        let diff_ids = self.target.config.rootfs.diff_ids.clone();
        let (snapshotter, reference) = (self.snapshotter.clone(), self.reference.to_string());
        blocking(move || {
            settle(&*snapshotter, &slots, &extracted, |slot, source| EngineError::Layer {
                reference: reference.clone(),
                digest: layers[slot.index].digest,
                source,
            })?;
            clock.time(Part::Sync, || store.sync())?;
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

    /// Stores the index, the manifest and the config, each pointing to what it keeps alive.
    async fn store_documents(&self) -> Result<(), EngineError> {
        let (space, documents) =
            (self.space.clone(), self.target.documents(&self.reference, self.snapshotter.name()));
        let working = self.workers.begin();
        blocking(move || {
            let _working = working;
            for (descriptor, bytes, labels) in documents {
                store_small(&space, &descriptor, &bytes, labels)?;
            }
            Ok(())
        })
        .await
    }

    /// Writes the image's name: from here on it exists.
    async fn publish(&self) -> Result<(String, Digest, Option<ChainId>), EngineError> {
        let (space, clock) = (self.space.clone(), self.clock.clone());
        let name = self.reference.to_string();
        let record = ImageRecord::new(name.clone(), self.target.top.clone(), Labels::new());
        blocking(move || clock.time(Part::Publish, || Ok(space.put_image(record)?))).await?;
        let chain = chain_ids(&self.target.config.rootfs.diff_ids).last().copied();
        Ok((name, self.target.top.digest, chain))
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

/// Label on a layer's blob: the diff ID it was seen to unpack to (containerd's name).
const UNCOMPRESSED: &str = "containerd.io/uncompressed";

fn store_small(
    space: &Space,
    descriptor: &Descriptor,
    bytes: &[u8],
    labels: Labels,
) -> Result<(), EngineError> {
    let expected = Expected::exactly(descriptor.digest, descriptor.size);
    match space.ingest(&format!("document-{}", descriptor.digest), expected) {
        Ok(mut ingest) => {
            ingest.truncate(0)?;
            ingest.write(bytes)?;
            match ingest.commit(expected, labels) {
                Ok(_) => Ok(()),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
                Err(error) => Err(error.into()),
            }
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let labels = labels.into_iter().map(|(key, value)| (key, Some(value))).collect();
            space.set_blob_labels(&descriptor.digest, LabelChange::Patch(labels))?;
            Ok(())
        }
        // Another pull is writing the very same bytes; its record and ours would be equal.
        Err(error) if error.kind() == ErrorKind::Unavailable => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Runs blocking work on tokio's threads for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => unreachable!("a blocking task is cancelled only before it starts, when the runtime ends"),
    }
}
