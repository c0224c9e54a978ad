//! Behind the readers' backs: brings in what is missing of images that are shown, and proves it.
//!
//! ```text
//! for each layer: blob -> content store (digest proved) -> tar read once (diff ID, table of contents) -> verified
//! all layers: the manifest keeps its blobs, so push, export and conversion work -> everything decoded into the cache
//! ```
//! Readers go first: while one waits for bytes, downloads here stand still ([`Gate`]). From the moment a blob is in the
//! store, the lazy server reads it there and asks no registry. One image is worked on once, whoever asks; what failed is
//! told in the status, tried again when the image is next used or the engine started, and costs its readers nothing.
//! An image that turns out to be another than it showed is marked, its mounts stay as they are, and nothing new is made
//! of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use snapshotters_contract::CommittedName;
use storage_model::{ChainId, Descriptor, DiffId, Digest, Labels, Namespace, chain_ids};
use tokio::sync::{mpsc, watch};

use super::LazyError;
use super::choice::Choice;
use super::prove::{Unproved, prove};
use crate::image::documents;
use crate::layers::{Origin, PlatformImage, Reporter, Task, UNCOMPRESSED, fetch_all};
use crate::work::{AfterFailure, WorkLease, blocking};
use crate::{Engine, EngineError};

/// How often it is asked whether a reader waits.
const LOOK: Duration = Duration::from_millis(50);

/// How long a download stands still for readers at once: one that never ended would never be complete.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often it is told how much is here.
const TOLD: Duration = Duration::from_millis(200);

/// Makes downloads wait while readers do.
#[derive(Debug)]
pub(crate) struct Gate {
    waiting: watch::Sender<bool>,
}

impl Gate {
    /// An open gate, and a task that closes it while a reader waits; the task ends with the gate.
    fn start(engine: &Engine) -> Arc<Self> {
        let gate = Arc::new(Self { waiting: watch::Sender::new(false) });
        let (watched, engine) = (Arc::downgrade(&gate), engine.clone());
        tokio::spawn(async move {
            let mut faults = 0;
            while watched.strong_count() > 0 {
                let look = engine.clone();
                let seen = blocking(move || Ok(look.waiting_readers())).await.unwrap_or_default();
                let busy = seen.1 > 0 || seen.0 > faults;
                faults = seen.0;
                let Some(gate) = watched.upgrade() else { break };
                gate.waiting.send_replace(busy);
                drop(gate);
                tokio::time::sleep(LOOK).await;
            }
        });
        gate
    }

    /// Ends when no reader waits, or after [`PATIENCE`].
    pub(crate) async fn turn(&self) {
        if *self.waiting.borrow() {
            let mut waiting = self.waiting.subscribe();
            // A gate that is gone keeps nobody.
            let _ = tokio::time::timeout(PATIENCE, waiting.wait_for(|waiting| !waiting)).await;
        }
    }
}

/// What is being completed, and how the last attempts ended.
#[derive(Debug, Default)]
pub(crate) struct Completions {
    table: Mutex<BTreeMap<Key, watch::Receiver<Progress>>>,
}

/// A namespace and the digest of an image's manifest.
type Key = (String, Digest);

/// How far one is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// It has ended; `failed` says how.
    pub(crate) ended: bool,
    /// Why it did not come to its end.
    pub(crate) failed: Option<String>,
}

impl Completions {
    /// How far the work on an image is; none if nobody began.
    pub(crate) fn of(&self, namespace: &Namespace, manifest: &Digest) -> Option<Progress> {
        let table = self.lock();
        table.get(&(namespace.to_string(), *manifest)).map(|progress| progress.borrow().clone())
    }

    /// How many are at work.
    pub(crate) fn running(&self) -> usize {
        self.lock().values().filter(|progress| !progress.borrow().ended).count()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, watch::Receiver<Progress>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An image to be completed.
#[derive(Clone)]
pub(crate) struct Work {
    pub(crate) namespace: Namespace,
    /// Name, for messages and leases.
    pub(crate) name: String,
    pub(crate) manifest: Descriptor,
    pub(crate) image: Arc<PlatformImage>,
    pub(crate) origin: Origin,
}

impl Engine {
    /// Bytes that readers of all mounts ever waited for, and how many requests are at work now.
    fn waiting_readers(&self) -> (u64, u64) {
        let mounts = self.lazy().shown().client().and_then(|client| client.status(None).ok());
        let mounts = mounts.unwrap_or_default();
        let faults = mounts.iter().map(|mount| mount.image.faults).sum();
        (faults, mounts.iter().map(|mount| mount.in_flight).sum())
    }

    /// Begins to complete an image unless somebody is at it, and returns where its progress is seen.
    pub(crate) fn complete_soon(&self, work: Work) -> watch::Receiver<Progress> {
        let key = (work.namespace.to_string(), work.manifest.digest);
        let mut table = self.completions().lock();
        if let Some(running) = table.get(&key).filter(|progress| !progress.borrow().ended) {
            return running.clone();
        }
        let (sender, receiver) = watch::channel(Progress::default());
        table.insert(key, receiver.clone());
        drop(table);
        let engine = self.clone();
        tokio::spawn(async move {
            let outcome = engine.complete(&work).await;
            let progress = match outcome {
                Ok(()) => Progress { ended: true, ..Progress::default() },
                Err(error) => {
                    engine.mark_liar(&work, &error).await;
                    tracing::warn!(image = work.name, %error, "an image that is shown lazily could not be completed");
                    Progress { ended: true, failed: Some(super::plan::words(&error)) }
                }
            };
            sender.send_replace(progress);
        });
        receiver
    }

    /// Completes the image that `image` means, telling how many bytes of how many are here; ends when all are proved.
    ///
    /// # Errors
    /// [`LazyError::NotLazy`] if it is not shown; [`LazyError::Incomplete`] with why it did not come to its end.
    ///
    /// # Cancel safety
    /// The work goes on without its listener.
    pub async fn fill(
        &self,
        namespace: &Namespace,
        image: &str,
        told: mpsc::Sender<(u64, u64)>,
    ) -> Result<u64, EngineError> {
        let (engine, named, text) = (self.clone(), namespace.clone(), image.to_owned());
        let (work, done) = blocking(move || {
            let work = engine.work_on(&named, &text)?;
            let work = work.ok_or(LazyError::NotLazy {
                name: text,
                mode: "it is unpacked, or only its content is here",
            })?;
            let done = engine.is_verified(&named, &work.image)?;
            Ok((work, done))
        })
        .await?;
        let total = work.image.manifest.layers.iter().map(|layer| layer.size).sum();
        if done {
            return Ok(total);
        }
        let name = work.name.clone();
        let mut progress = self.complete_soon(work);
        let mut ticks = tokio::time::interval(TOLD);
        let ended = loop {
            let ended =
                async { progress.wait_for(|progress| progress.ended).await.ok().map(|ended| ended.clone()) };
            tokio::select! {
                ended = ended => break ended.ok_or(EngineError::CalledOff)?,
                _ = ticks.tick() => {
                    let (engine, named, name) = (self.clone(), namespace.clone(), name.clone());
                    let status = blocking(move || engine.lazy_status(&named, &name)).await?;
                    if let Some(image) = status.first() {
                        let _ = told.try_send((image.bytes_present, image.bytes_total));
                    }
                }
            }
        };
        match ended.failed {
            None => Ok(total),
            Some(why) => Err(LazyError::Incomplete { name, why }.into()),
        }
    }

    async fn complete(&self, work: &Work) -> Result<(), EngineError> {
        let lease = WorkLease::take(self, &work.namespace, "complete", AfterFailure::Resume).await?;
        let outcome = self.complete_leased(&lease, work).await;
        lease.end(outcome).await
    }

    async fn complete_leased(&self, lease: &WorkLease, work: &Work) -> Result<(), EngineError> {
        lease.keep(work.manifest.digest).await?;
        let (events, _nobody) = mpsc::channel(1);
        let layers = &work.image.manifest.layers;
        let platform = work.image.config.platform();
        let reporter = Reporter::start(&work.name, work.manifest.digest, platform, layers, events);
        let task = Task {
            origin: Some(work.origin.clone()),
            gate: Some(Gate::start(self)),
            ..Task::local(self, lease, &work.name, reporter)
        };
        let chains = chain_ids(&work.image.config.rootfs.diff_ids);
        for (index, chain) in chains.iter().enumerate() {
            fetch_all(&task, vec![layers[index].clone()]).await?;
            self.prove_layer(&task, work, index, *chain).await?;
        }
        self.keep_layers(&task, work).await
    }

    /// Notes that an image is not what it showed, so that nothing new is made of it.
    async fn mark_liar(&self, work: &Work, error: &EngineError) {
        let difference = match error {
            EngineError::Lazy(LazyError::TwoFaced { difference, .. }) => difference.clone(),
            EngineError::DiffIdMismatch { .. } => error.to_string(),
            _ => return,
        };
        let (space, manifest) = (self.space(&work.namespace), work.manifest.digest);
        let marked = blocking(move || {
            let Some(choice) = Choice::read(&space, &manifest) else { return Ok(()) };
            documents::add_labels(&space, &manifest, Choice { lied: Some(difference), ..choice }.label())
        });
        if let Err(error) = marked.await {
            tracing::error!(image = work.name, %error, "an image that lies could not be marked");
        }
    }

    /// Proves one layer whose blob is here, and notes it.
    async fn prove_layer(
        &self,
        task: &Task,
        work: &Work,
        index: usize,
        chain: ChainId,
    ) -> Result<(), EngineError> {
        let (engine, space, image) = (self.clone(), task.space.clone(), work.image.clone());
        let name: CommittedName = storage_model::ProtectionDomain::Plain.snapshot_name(&chain).parse()?;
        let (reference, stop) = (work.name.clone(), StopOnDrop::default());
        let stopped = stop.0.clone();
        blocking(move || {
            let stack = engine.lazy().stack(&space, &name)?;
            let Some((layer, verified)) =
                stack.and_then(|mut stack| Some((stack.layers.pop()?, stack.verified.pop()?)))
            else {
                return Ok(());
            };
            if verified {
                return Ok(());
            }
            let toc = engine.lazy().shown().shelf().toc(&layer.toc)?;
            let expected: DiffId = image.config.rootfs.diff_ids[index];
            let blob = space.open_blob(&layer.blob)?;
            let proved = prove(blob, image.compressions[index], &toc, expected, &stopped);
            proved.map_err(|error| unproved(reference, layer.blob, error))?;
            engine.lazy().set_verified(&space, &name)?;
            let label = Labels::from([(UNCOMPRESSED.to_owned(), expected.to_string())]);
            documents::add_labels(&space, &layer.blob, label)
        })
        .await
    }

    /// Lets the manifest keep its layers' blobs, which are all here now.
    async fn keep_layers(&self, task: &Task, work: &Work) -> Result<(), EngineError> {
        let (space, manifest, image) = (task.space.clone(), work.manifest.digest, work.image.clone());
        blocking(move || {
            let document = storage_model::Document::Manifest(image.manifest.clone());
            documents::add_labels(&space, &manifest, documents::keeps(&document, |_| true))
        })
        .await
    }

    /// Goes on with every image of every namespace that is shown and not complete: to be called once, after a start. Returns
    /// when all of them are begun; a registry that does not answer keeps nobody.
    pub async fn complete_all(&self) {
        let engine = self.clone();
        let found = blocking(move || engine.incomplete()).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "images that are shown lazily could not be listed");
            Vec::new()
        });
        for work in found {
            self.complete_soon(work);
        }
    }

    fn incomplete(&self) -> Result<Vec<Work>, EngineError> {
        let mut found = Vec::new();
        for namespace in self.store().namespaces()? {
            let space = self.space(&namespace.name);
            for record in space.images()? {
                let Ok(Some(work)) = self.work_on(&namespace.name, &record.name) else { continue };
                let wanted =
                    Choice::read(&space, &work.manifest.digest).is_some_and(|choice| !choice.no_fill);
                if wanted && !self.is_verified(&namespace.name, &work.image)? {
                    found.push(work);
                }
            }
        }
        Ok(found)
    }

    /// What completing the image `name` takes; none if it is not shown lazily.
    pub(crate) fn work_on(&self, namespace: &Namespace, name: &str) -> Result<Option<Work>, EngineError> {
        let space = self.space(namespace);
        let record = crate::image::resolve::find(&space, name)?;
        let (manifest, image) = crate::image::read_with_manifest(&space, &record.name, &record.target, "")?;
        let Some(stack) = self.stack_of(namespace, &image)? else { return Ok(None) };
        let Some(origin) = stack.layers.iter().rev().find_map(|layer| layer.origins.first()) else {
            return Ok(None);
        };
        let options = super::publish::options(origin);
        let client = self.client(&options, |_| {})?;
        let reference = origin
            .reference
            .parse()
            .map_err(|source| EngineError::Reference { text: origin.reference.clone(), source })?;
        let origin = Origin { client, reference };
        Ok(Some(Work { namespace: namespace.clone(), name: record.name, manifest, image, origin }))
    }

    /// Whether every layer of a shown image is here and proved.
    pub(crate) fn is_verified(
        &self,
        namespace: &Namespace,
        image: &PlatformImage,
    ) -> Result<bool, EngineError> {
        let stack = self.stack_of(namespace, image)?;
        let space = self.space(namespace);
        Ok(stack.is_some_and(|stack| {
            stack.verified.iter().all(|verified| *verified)
                && stack.layers.iter().all(|layer| space.blob(&layer.blob).is_ok())
        }))
    }
}

/// Ends the proving of whoever lost interest.
#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn unproved(reference: String, digest: Digest, error: Unproved) -> EngineError {
    match error {
        Unproved::Layer(source) => EngineError::Layer { reference, digest, source },
        Unproved::CalledOff => EngineError::CalledOff,
        Unproved::DiffId { expected, actual } => {
            EngineError::DiffIdMismatch { reference, digest, expected, actual }
        }
        difference @ Unproved::Entry { .. } => {
            LazyError::TwoFaced { name: reference, layer: digest, difference: difference.to_string() }.into()
        }
    }
}
