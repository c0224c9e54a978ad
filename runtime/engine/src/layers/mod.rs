//! Layers: from a registry or from the store's own blobs into snapshots, each in one pass.
//!
//! [`Stack`] brings all layers of one image for one snapshotter; [`fetch_all`] brings blobs without unpacking them. A
//! [`Task`] is what all of it shares within one operation. Who asks is not known here: a pull has an [`Origin`], an
//! unpack or an import has none, and then a blob that is not here is an error that names it.

mod claims;
mod extraction;
mod feed;
mod layer;
mod progress;
mod source;
mod stack;

use std::sync::Arc;

use storage_content::{Space, SyncMark};
use storage_model::{
    ChainId, Compression, Descriptor, ImageConfig, LayerKind, Manifest, Reference, chain_ids, media,
};
use storage_registry::Client;

pub(crate) use claims::Claims;
pub(crate) use layer::fetch_all;
pub(crate) use progress::{Clock, Part, Reporter};
pub use progress::{LayerState, Parts, PullEvent};
pub(crate) use source::{SOURCE_PREFIX, repositories, source_label};
pub(crate) use stack::Stack;

use crate::lazy::Gate;
use crate::work::{WorkLease, Workers};
use crate::{Engine, EngineError};

/// Layers that are fetched and unpacked side by side when nobody says how many.
///
/// Each has up to five threads, of which one or two are busy: four layers keep two cores and a long round trip filled.
/// More would share the cores with the largest layer, whose inflate is serial and decides the end.
pub(crate) const LAYERS_AT_ONCE: usize = 4;

/// Label on a layer's blob: the diff ID it was seen to unpack to (containerd's name).
pub(crate) const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// Where blobs come from that are not here.
#[derive(Clone)]
pub(crate) struct Origin {
    pub(crate) client: Client,
    pub(crate) reference: Reference,
}

/// What the layers of one operation share.
#[derive(Clone)]
pub(crate) struct Task {
    pub(crate) engine: Engine,
    /// Bound to the operation's lease.
    pub(crate) space: Space,
    /// The lease's name: makes keys of extractions unique.
    pub(crate) lease: Arc<str>,
    pub(crate) workers: Workers,
    /// Name of the image, for messages.
    pub(crate) name: Arc<str>,
    /// None: nothing is fetched.
    pub(crate) origin: Option<Origin>,
    pub(crate) clock: Arc<Clock>,
    /// Before the first byte was written: a sync that failed since, for whomever, is this operation's failure too.
    pub(crate) mark: SyncMark,
    pub(crate) reporter: Arc<Reporter>,
    /// Layers brought side by side, at least 1.
    pub(crate) at_once: usize,
    /// Others go first; none: nobody does.
    pub(crate) gate: Option<Arc<Gate>>,
}

impl Task {
    /// A task without an origin, under `lease`.
    pub(crate) fn local(engine: &Engine, lease: &WorkLease, name: &str, reporter: Reporter) -> Self {
        Self {
            engine: engine.clone(),
            space: lease.space.clone(),
            lease: lease.name(),
            workers: lease.workers.clone(),
            name: name.into(),
            origin: None,
            clock: Arc::new(Clock::default()),
            mark: engine.store().sync_mark(),
            reporter: Arc::new(reporter),
            at_once: LAYERS_AT_ONCE,
            gate: None,
        }
    }
}

/// An image of one platform, read but for its layers.
#[derive(Debug, Clone)]
pub(crate) struct PlatformImage {
    pub(crate) manifest: Box<Manifest>,
    pub(crate) config: ImageConfig,
    /// How each layer is compressed, in the manifest's order.
    pub(crate) compressions: Vec<Compression>,
}

impl PlatformImage {
    /// Reads what `config` says of `manifest`'s layers.
    ///
    /// # Errors
    /// [`EngineError::Config`] if the bytes are no config of that many layers; [`EngineError::LayerType`] if a layer is
    /// none that can be unpacked.
    pub(crate) fn read(name: &str, manifest: Box<Manifest>, config: &[u8]) -> Result<Self, EngineError> {
        let compressions = compressions(name, &manifest)?;
        let config = ImageConfig::parse(config, manifest.layers.len()).map_err(|source| {
            EngineError::Config { reference: name.to_owned(), digest: manifest.config.digest, source }
        })?;
        Ok(Self { manifest, config, compressions })
    }

    /// Identity of the unpacked tree; none for an image without layers.
    pub(crate) fn chain(&self) -> Option<ChainId> {
        chain_ids(&self.config.rootfs.diff_ids).last().copied()
    }
}

/// How each layer of `manifest` is compressed.
///
/// # Errors
/// [`EngineError::LayerType`] for the first that is no tar we can unpack.
pub(crate) fn compressions(name: &str, manifest: &Manifest) -> Result<Vec<Compression>, EngineError> {
    let compression = |layer: &Descriptor| {
        let refuse = |hint| EngineError::LayerType {
            reference: name.to_owned(),
            digest: layer.digest,
            media_type: layer.media_type.chars().take(128).collect(),
            hint,
        };
        match media::layer_kind(&layer.media_type) {
            LayerKind::Tar(compression) => Ok(compression),
            LayerKind::Encrypted => Err(refuse(": it is encrypted, and decryption is not built yet")),
            LayerKind::Foreign => Err(refuse(": this is an artifact, not an image that can run")),
        }
    };
    manifest.layers.iter().map(compression).collect()
}
