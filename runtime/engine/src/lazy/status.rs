//! What can be asked of images afterwards: how they are here and why, how much, and what their readers waited for.

use lazy_mount::MountStatus;
use lazy_snapshotter::StackId;
use storage_content::Space;
use storage_model::{Digest, Namespace};

use super::choice::Choice;
use super::complete::Progress;
use crate::layers::PlatformImage;
use crate::{Engine, EngineError};

/// How an image is here.
#[derive(Debug, Clone)]
pub struct LazyImage {
    /// Its name.
    pub name: String,
    /// Digest the name stands for.
    pub digest: Digest,
    /// `lazy`, `full` or `content`: shown, unpacked, neither.
    pub mode: &'static str,
    /// What was asked for; empty if nobody knows.
    pub asked: String,
    /// Why it is so.
    pub reasons: Vec<String>,
    /// Seconds to the first output as they were estimated, whole and lazy; 0 if they were not.
    pub estimated_seconds: (f64, f64),
    /// Compressed bytes of its layers.
    pub bytes_total: u64,
    /// Those that are here, or of a shown image as many as its files here are worth.
    pub bytes_present: u64,
    /// All of it is here and proved.
    pub verified: bool,
    /// It is being completed.
    pub filling: bool,
    /// Why that stopped.
    pub fill_error: Option<String>,
    /// Its layers, lowest first.
    pub layers: Vec<LazyLayer>,
    /// State of its mount; none if it is not mounted.
    pub mount: Option<MountStatus>,
    /// Reads in its recorded trace.
    pub trace_events: u64,
}

/// One layer of it.
#[derive(Debug, Clone)]
pub struct LazyLayer {
    /// Digest of the blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub bytes: u64,
    /// How it can be read in pieces; empty if it is unpacked.
    pub format: String,
    /// Its blob is in the store.
    pub present: bool,
    /// All its bytes were proved.
    pub verified: bool,
}

impl Engine {
    /// How the image that `image` means is here, or every image of `namespace` if it is empty.
    ///
    /// # Errors
    /// As [`Engine::image`] for one that is named; of all, those that cannot be read are left out.
    pub fn lazy_status(&self, namespace: &Namespace, image: &str) -> Result<Vec<LazyImage>, EngineError> {
        let space = self.space(namespace);
        let mounts = self.mounts_now();
        if !image.is_empty() {
            let record = crate::image::resolve::find(&space, image)?;
            return Ok(vec![self.status_of(namespace, &record, &mounts)?]);
        }
        let records = space.images()?;
        Ok(records.iter().filter_map(|record| self.status_of(namespace, record, &mounts).ok()).collect())
    }

    fn mounts_now(&self) -> Vec<MountStatus> {
        let client = self.lazy().shown().client();
        client.and_then(|client| client.status(None).ok()).unwrap_or_default()
    }

    fn status_of(
        &self,
        namespace: &Namespace,
        record: &storage_content::ImageRecord,
        mounts: &[MountStatus],
    ) -> Result<LazyImage, EngineError> {
        let space = self.space(namespace);
        let (manifest, image) = crate::image::read_with_manifest(&space, &record.name, &record.target, "")?;
        let stack = self.stack_of(namespace, &image)?;
        let choice = Choice::read(&space, &manifest.digest);
        let layers = layers(&space, &image, stack.as_ref());
        let bytes_total = layers.iter().map(|layer| layer.bytes).sum::<u64>();
        let blobs = layers.iter().filter(|layer| layer.present).map(|layer| layer.bytes).sum::<u64>();
        let id = stack.as_ref().map(|stack| StackId::of(&stack.layers));
        let mount = id.as_ref().and_then(|id| mounts.iter().find(|mount| mount.name == id.as_str())).cloned();
        let progress = self
            .completions()
            .of(namespace, &manifest.digest)
            .unwrap_or(Progress { ended: true, ..Progress::default() });
        let verified = match &stack {
            Some(_) => layers.iter().all(|layer| layer.verified && layer.present),
            None => layers.iter().all(|layer| layer.present),
        };
        let mode = match (&stack, image.chain()) {
            (Some(_), _) => "lazy",
            (None, Some(chain)) if self.is_unpacked_anywhere(namespace, &chain) => "full",
            (None, None) => "full",
            _ => "content",
        };
        Ok(LazyImage {
            name: record.name.clone(),
            digest: record.target.digest,
            mode,
            asked: choice.as_ref().map(|choice| choice.asked.clone()).unwrap_or_default(),
            estimated_seconds: choice.as_ref().map_or((0.0, 0.0), |c| (c.full_seconds, c.lazy_seconds)),
            bytes_present: present(blobs, bytes_total, mount.as_ref()),
            bytes_total,
            verified,
            filling: !progress.ended,
            fill_error: progress.failed.or(choice.as_ref().and_then(|choice| choice.lied.clone())),
            reasons: choice.map(|choice| choice.reasons).unwrap_or_default(),
            layers,
            trace_events: id
                .and_then(|id| self.lazy().shown().trace(&id))
                .map_or(0, |trace| trace.events.len() as u64),
            mount,
        })
    }

    fn is_unpacked_anywhere(&self, namespace: &Namespace, chain: &storage_model::ChainId) -> bool {
        let name = storage_model::ProtectionDomain::Plain.snapshot_name(chain);
        self.snapshotters().into_iter().any(|snapshotter| {
            self.snapshotter(snapshotter, self.space(namespace)).is_ok_and(|found| found.stat(&name).is_ok())
        })
    }

    /// What the lazy server counts, and what the engine knows, for Prometheus.
    ///
    /// # Errors
    /// [`crate::LazyError::Server`] if there is a server that does not answer; none that runs is no error.
    pub fn lazy_metrics(&self) -> Result<String, EngineError> {
        let mut text = match self.lazy().shown().client() {
            Some(client) => client.metrics().map_err(crate::LazyError::from)?,
            None => String::new(),
        };
        let mounts = self.mounts_now();
        text.push_str("# HELP windlass_lazy_mounts Images that are shown through a mount now.\n");
        text.push_str("# TYPE windlass_lazy_mounts gauge\n");
        text.push_str(&format!("windlass_lazy_mounts {}\n", mounts.len()));
        text.push_str("# HELP windlass_lazy_completing Images that are being completed now.\n");
        text.push_str("# TYPE windlass_lazy_completing gauge\n");
        text.push_str(&format!("windlass_lazy_completing {}\n", self.completions().running()));
        Ok(text)
    }
}

/// Compressed bytes that are here: whole blobs, or the share of the files that is in the cache, whichever is more.
fn present(blobs: u64, total: u64, mount: Option<&MountStatus>) -> u64 {
    let cached = mount.filter(|mount| mount.image.bytes_total > 0).map_or(0.0, |mount| {
        mount.image.bytes_present as f64 / mount.image.bytes_total as f64 * total as f64
    });
    blobs.max(cached as u64).min(total)
}

fn layers(space: &Space, image: &PlatformImage, stack: Option<&lazy_snapshotter::Stack>) -> Vec<LazyLayer> {
    let layer = |(index, layer): (usize, &storage_model::Descriptor)| LazyLayer {
        digest: layer.digest,
        bytes: layer.size,
        format: stack.map(|stack| stack.layers[index].format.clone()).unwrap_or_default(),
        present: space.blob(&layer.digest).is_ok(),
        verified: stack.is_none_or(|stack| stack.verified[index]),
    };
    image.manifest.layers.iter().enumerate().map(layer).collect()
}
