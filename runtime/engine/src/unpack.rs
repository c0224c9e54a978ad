//! Unpacks an image that is here: on demand for run and mount, and when asked.
//!
//! The same one-pass layer work as a pull's, fed from the store's own blobs. Layers that are unpacked already cost a look.

use std::sync::Arc;
use std::time::Instant;

use snapshotters_contract::Snapshotter;
use storage_model::{ChainId, Labels, Namespace, ProtectionDomain};
use tokio::sync::mpsc::{self, Sender};

use crate::image::{self, documents};
use crate::layers::{PlatformImage, PullEvent, Reporter, Stack, Task};
use crate::pull::RegistryOptions;
use crate::work::{AfterFailure, WorkLease, blocking};
use crate::{Engine, EngineError, Image};

/// What to unpack.
#[derive(Debug, Clone, Default)]
pub struct UnpackRequest {
    /// The image, as [`Engine::resolve_image`] takes it.
    pub image: String,
    /// `os/arch[/variant]`; empty is this machine's, or one that is here.
    pub platform: String,
    /// Snapshotter; empty is the default one.
    pub snapshotter: String,
}

/// What was unpacked.
#[derive(Debug, Clone)]
pub struct UnpackedImage {
    /// The image, read for its platform.
    pub image: Image,
    /// Name of the snapshotter.
    pub snapshotter: &'static str,
    /// Wall-clock time, in seconds.
    pub seconds: f64,
}

impl Engine {
    /// Unpacks an image that is here for a snapshotter and tells of its progress through `events`.
    ///
    /// # Errors
    /// [`ImageError::Absent`] if a layer is not here; else as [`Engine::image`] and [`Engine::pull`]. What was committed
    /// stays until the next collection, unless the image keeps it. Stored content that turns out damaged is fetched again
    /// first, from where it came.
    ///
    /// # Cancel safety
    /// Dropping the future cancels with the same guarantees.
    pub async fn unpack(
        &self,
        namespace: &Namespace,
        request: UnpackRequest,
        events: Sender<PullEvent>,
    ) -> Result<UnpackedImage, EngineError> {
        let outcome = self.unpack_once(namespace, &request, events.clone()).await;
        match outcome {
            Err(error)
                if self
                    .heal_after(&error, (namespace, &request.image), &RegistryOptions::default())
                    .await =>
            {
                self.unpack_once(namespace, &request, events).await
            }
            outcome => outcome,
        }
    }

    async fn unpack_once(
        &self,
        namespace: &Namespace,
        request: &UnpackRequest,
        events: Sender<PullEvent>,
    ) -> Result<UnpackedImage, EngineError> {
        let begun = Instant::now();
        let named = self.snapshotter(&request.snapshotter, self.space(namespace))?.name();
        let (image, home) = self.find_image(namespace, request).await?;
        let snapshotter = if request.snapshotter.is_empty() { home } else { named };
        let request = &UnpackRequest { snapshotter: snapshotter.to_owned(), ..request.clone() };
        if !self.is_unpacked(namespace, &image, snapshotter).await? {
            let lease = WorkLease::take(self, namespace, "unpack", AfterFailure::Discard).await?;
            let outcome = self.unpack_leased(&lease, request, &image, events).await;
            lease.end(outcome).await?;
        }
        self.note_use(namespace, &image.record.name).await;
        Ok(UnpackedImage { image, snapshotter, seconds: begun.elapsed().as_secs_f64() })
    }

    /// The same without progress: what run and mount do first.
    ///
    /// # Errors
    /// As [`Engine::unpack`].
    pub async fn ensure_unpacked(
        &self,
        namespace: &Namespace,
        image: &str,
        platform: &str,
        snapshotter: &str,
    ) -> Result<UnpackedImage, EngineError> {
        let request = UnpackRequest {
            image: image.to_owned(),
            platform: platform.to_owned(),
            snapshotter: snapshotter.to_owned(),
        };
        let (events, _nobody) = mpsc::channel(1);
        self.unpack(namespace, request, events).await
    }

    /// Notes that an image is used now: those used longest ago are let go first when there is no room.
    pub(crate) async fn note_use(&self, namespace: &Namespace, name: &str) {
        let (space, name) = (self.space(namespace), name.to_owned());
        if let Err(error) = blocking(move || Ok(space.mark_image_used(&name)?)).await {
            tracing::debug!(%error, "the use of an image was not noted");
        }
    }

    /// The image, and the snapshotter that has it, for who names none.
    async fn find_image(
        &self,
        namespace: &Namespace,
        request: &UnpackRequest,
    ) -> Result<(Image, &'static str), EngineError> {
        let (engine, namespace, request) = (self.clone(), namespace.clone(), request.clone());
        blocking(move || {
            let image = engine.image_for(&namespace, &request.image, &request.platform)?;
            let home = engine.home_of(&namespace, &image)?;
            Ok((image, home))
        })
        .await
    }

    /// Whether the tree is here and the image keeps it. A look only: nothing is kept by it.
    ///
    /// A tree that another image keeps, or that an unpack made which did not get to its last step, is not enough: it
    /// goes with that image, or with the next collection.
    async fn is_unpacked(
        &self,
        namespace: &Namespace,
        image: &Image,
        snapshotter: &str,
    ) -> Result<bool, EngineError> {
        let Some(chain) = image.chain else { return Ok(true) };
        let space = self.space(namespace);
        let snapshotter = self.snapshotter(snapshotter, space.clone())?;
        let config = image.manifest.config.digest;
        blocking(move || {
            let (key, value) = documents::keeps_snapshot(snapshotter.name(), &chain);
            let keeps = space.blob(&config)?.labels.get(&key) == Some(&value);
            Ok(keeps && snapshotter.stat(&ProtectionDomain::Plain.snapshot_name(&chain)).is_ok())
        })
        .await
    }

    async fn unpack_leased(
        &self,
        lease: &WorkLease,
        request: &UnpackRequest,
        image: &Image,
        events: Sender<PullEvent>,
    ) -> Result<(), EngineError> {
        lease.keep(image.record.target.digest).await?;
        let name = &image.record.name;
        let (space, target, platform) =
            (lease.space.clone(), image.record.target.clone(), request.platform.clone());
        let read = {
            let name = name.clone();
            blocking(move || image::read(&space, &name, &target, &platform)).await?
        };
        let layers = &read.manifest.layers;
        let platform = read.config.platform();
        let reporter = Reporter::start(name, image.record.target.digest, platform, layers, events);
        let task = Task::local(self, lease, name, reporter);
        let snapshotter = self.snapshotter(&request.snapshotter, lease.space.clone())?;
        unpack_image(&task, &read, &snapshotter).await?;
        Ok(())
    }
}

/// Unpacks an image whose blobs are here, and lets its config keep the tree.
pub(crate) async fn unpack_image(
    task: &Task,
    image: &Arc<PlatformImage>,
    snapshotter: &Arc<dyn Snapshotter>,
) -> Result<Option<ChainId>, EngineError> {
    Stack::new(task, image, snapshotter).bring().await?;
    let Some(chain) = image.chain() else { return Ok(None) };
    let (space, config) = (task.space.clone(), image.manifest.config.digest);
    let label = Labels::from([documents::keeps_snapshot(snapshotter.name(), &chain)]);
    blocking(move || documents::add_labels(&space, &config, label)).await?;
    Ok(Some(chain))
}
