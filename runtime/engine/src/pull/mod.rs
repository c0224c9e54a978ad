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
mod stack;
mod workers;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use snapshotters_contract::Snapshotter;
use storage_content::{ErrorKind, Expected, ImageRecord, LabelChange, Space, SyncMark};
use storage_model::{ChainId, Descriptor, Digest, Labels, Namespace, Reference, chain_ids};
use storage_registry::{Client, Credentials, Notice};
use tokio::sync::mpsc::Sender;

pub(crate) use claims::Claims;
use lease::PullLease;
use progress::{Clock, Part, Reporter};
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
            mark: self.store().sync_mark(),
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
    /// Before the first byte was written: a sync that failed since, for whomever, is this pull's failure too.
    mark: SyncMark,
    /// The lease's id: names this pull.
    lease: String,
    workers: Workers,
}

impl Pull {
    async fn bring(&self) -> Result<(String, Digest, Option<ChainId>), EngineError> {
        let documents = self.store_documents();
        let layers = self.bring_layers();
        tokio::try_join!(documents, layers)?;
        self.publish().await
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
