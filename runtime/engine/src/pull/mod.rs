//! Brings an image in: the one function that knows the order.
//!
//! `lease -> resolve -> documents -> layers -> sync -> commit -> publish -> release`
//!
//! - The tag is read once; everything after is named by digest.
//! - Layers run side by side and in one pass each ([`crate::layers`]); they are ordered only at commit.
//! - The image exists from the moment its name is written, which is after one `syncfs` of all that it stands on.
//! - Until then everything hangs on a lease marked ephemeral: a killed pull leaves its finished blobs and partial
//!   ingests for the next try, and one collection removes them if there is none.
//!
//! Dropping the future of [`Engine::pull`] cancels: downloads stop, workers end, unfinished snapshots are removed.

mod resolve;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use storage_content::ImageRecord;
use storage_model::{ChainId, Digest, Labels, Namespace, Reference};
use storage_registry::{Client, Credentials, Notice};
use tokio::sync::mpsc::Sender;

use resolve::Selection;
pub(crate) use resolve::Target;

use crate::image::documents::store_small;
use crate::layers::{Clock, LAYERS_AT_ONCE, Origin, Part, Parts, PullEvent, Reporter, Task, fetch_all};
use crate::lazy::{LazyMode, Ways};
use crate::work::{AfterFailure, WorkLease, blocking};
use crate::{Engine, EngineError};

/// What to pull, and how to speak to its registry.
#[derive(Debug, Clone, Default)]
pub struct PullRequest {
    /// Reference as the user wrote it.
    pub reference: String,
    /// `os/arch[/variant]`; empty is the host's, unless `platforms` names some.
    pub platform: String,
    /// Further platforms; each is unpacked.
    pub platforms: Vec<String>,
    /// Every platform of the index, and what else it lists. Only the host's is unpacked.
    pub all_platforms: bool,
    /// Content only: nothing is unpacked.
    pub no_unpack: bool,
    /// Labels of the image.
    pub labels: Labels,
    /// Layers brought side by side; 0 is the engine's choice.
    pub max_concurrent_downloads: usize,
    /// Snapshotter; empty is the default one.
    pub snapshotter: String,
    /// Whether the image may be shown before it has arrived.
    pub lazy: LazyMode,
    /// Of an image that is shown so, bring nothing in but what is read.
    pub no_fill: bool,
    /// How the registry is spoken to.
    pub registry: RegistryOptions,
}

/// How a registry is spoken to.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
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
    /// The unpacked tree; `None` for an image without layers, or when nothing was unpacked.
    pub chain: Option<ChainId>,
    /// Snapshotter that has it.
    pub snapshotter: &'static str,
    /// Why the image is shown before it has arrived, or is not; a sentence each.
    pub lazy_reasons: Vec<String>,
    /// Bytes that came over the network.
    pub fetched_bytes: u64,
    /// Wall-clock time, in seconds.
    pub seconds: f64,
    /// Where the work went.
    pub parts: Parts,
}

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
        let pulled = self.pull_once(namespace, &reference, &request, events.clone()).await;
        let mut pulled = match pulled {
            Err(error)
                if self.heal_after(&error, (namespace, &request.reference), &request.registry).await =>
            {
                self.pull_once(namespace, &reference, &request, events).await?
            }
            pulled => pulled?,
        };
        self.note_use(namespace, &pulled.name).await;
        pulled.seconds = begun.elapsed().as_secs_f64();
        Ok(pulled)
    }

    async fn pull_once(
        &self,
        namespace: &Namespace,
        reference: &Reference,
        request: &PullRequest,
        events: Sender<PullEvent>,
    ) -> Result<Pulled, EngineError> {
        let lease = WorkLease::take(self, namespace, "pull", AfterFailure::Resume).await?;
        let pulled = self.pull_leased(&lease, reference.clone(), request.clone(), events).await;
        lease.end(pulled).await
    }

    async fn pull_leased(
        &self,
        lease: &WorkLease,
        reference: Reference,
        request: PullRequest,
        events: Sender<PullEvent>,
    ) -> Result<Pulled, EngineError> {
        let mark = self.store().sync_mark();
        let clock = Arc::new(Clock::default());
        let selection = Selection::new(&request)?;
        let client = self.client(&request.registry, {
            let events = events.clone();
            move |text| {
                // A full queue means a slow listener: a notice is worth less than the pull's pace.
                let _ = events.try_send(PullEvent::Message(text));
            }
        })?;
        let asked = Instant::now();
        let target = clock.span(Part::Resolve, resolve::target(&client, &reference, &selection)).await?;
        // A tag, and documents one after the other: each waits for one answer.
        self.paces().answered(reference.registry(), asked.elapsed() / (target.answers() + 1));
        let name = reference.to_string();
        let reporter =
            Reporter::start(&name, target.top.digest, target.platform.clone(), &target.layers(), events);
        let task = Task {
            origin: Some(Origin { client, reference }),
            clock: clock.clone(),
            mark,
            at_once: match request.max_concurrent_downloads {
                0 => LAYERS_AT_ONCE,
                count => count,
            },
            ..Task::local(self, lease, &name, reporter)
        };
        let ordinary = self.snapshotter(&request.snapshotter, task.space.clone())?.name();
        let ways = Ways::choose(&task, &target, &request, ordinary).await?;
        bring(&task, &target, &request, &ways).await?;
        publish(&task, &target, request.labels.clone()).await?;
        ways.complete(&task, &target, &request);
        Ok(Pulled {
            name,
            digest: target.top.digest,
            chain: target.images.first().and_then(|image| image.chain()),
            snapshotter: target
                .images
                .first()
                .map_or(ordinary, |image| ways.snapshotter(&image.manifest.config.digest)),
            lazy_reasons: ways.reasons(),
            fetched_bytes: task.reporter.fetched_bytes() + target.document_bytes(),
            seconds: 0.0,
            parts: clock.parts(),
        })
    }

    /// A client that speaks to registries as `options` say, and tells `listen` what people may want to read.
    pub(crate) fn client(
        &self,
        options: &RegistryOptions,
        listen: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<Client, EngineError> {
        let hosts_dir = match &options.hosts_dir {
            Some(directory) => vec![directory.clone()],
            None => self.config().hosts_dirs.clone(),
        };
        Ok(Client::new(storage_registry::Config {
            hosts_dir,
            docker_config: options.docker_config.clone(),
            credentials: options.credentials.clone(),
            plain_http: options.plain_http,
            skip_verify: options.skip_verify,
            ca_files: options.ca_files.clone(),
            notices: Some(Arc::new(move |notice: &Notice| listen(notice.to_string()))),
            ..storage_registry::Config::default()
        })?)
    }
}

/// Brings documents and layers, side by side.
async fn bring(task: &Task, target: &Target, request: &PullRequest, ways: &Ways) -> Result<(), EngineError> {
    let documents = store_documents(task, target, ways);
    let layers = async {
        for image in &target.images {
            ways.bring(task, image, request).await?;
        }
        fetch_all(task, target.content.clone()).await
    };
    tokio::try_join!(documents, layers)?;
    Ok(())
}

/// Stores the indexes, manifests and configs, each pointing to what it keeps alive.
async fn store_documents(task: &Task, target: &Target, ways: &Ways) -> Result<(), EngineError> {
    let Some(origin) = &task.origin else { return Ok(()) };
    let (space, documents) = (task.space.clone(), target.documents(&origin.reference, ways));
    let working = task.workers.begin();
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
async fn publish(task: &Task, target: &Target, labels: Labels) -> Result<(), EngineError> {
    let (space, clock) = (task.space.clone(), task.clock.clone());
    let record = ImageRecord::new(task.name.to_string(), target.top.clone(), labels);
    blocking(move || clock.time(Part::Publish, || Ok(space.put_image(record).map(drop)?))).await
}
