//! SOCI: an index beside an image whose layers stay as they are.
//!
//! ```text
//! each gzip or plain layer -> zTOC -> blob;  zTOCs -> SOCI index -> blob
//! version 2: index digest -> annotation of the manifest;  both versions: the index stands beside the manifest in the image's
//! ```
//! Layers that SOCI cannot describe (zstd, sparse files) are left out of the index and told; they are fetched as a whole.

use std::sync::Arc;

use lazy_build::BuildError;
use lazy_build::soci::{self, EMPTY, SPAN_BYTES, Version, ZTOC_TYPE};
use lazy_index::soci::{IMAGE_MANIFEST_DIGEST, INDEX_DIGEST, INDEX_V1, INDEX_V2};
use serde_json::{Value, json};
use storage_content::Space;
use storage_model::{
    Compression, Descriptor, DiffId, Digest, Document, ImageConfig, Labels, LayerKind, Platform, media,
};

use super::documents::typed;
use crate::EngineError;
use crate::image::contents::{Member, is_bound};
use crate::image::documents::{keeps, parse, store_small};
use crate::transfer::{Board, TransferKind, TransferState};
use crate::work::{WorkLease, blocking};

/// The index of one image.
#[derive(Debug, Clone)]
pub(super) struct Beside {
    version: Version,
    index: Descriptor,
    platform: Platform,
}

impl Beside {
    /// What the manifest has to say of it.
    pub(super) fn annotation(&self) -> Option<(&'static str, String)> {
        (self.version == Version::Two).then(|| (INDEX_DIGEST, self.index.digest.to_string()))
    }

    /// The platform of the image, for an index that has to be made for the two.
    pub(super) fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Its entry in the index of the image whose manifest is `manifest`.
    pub(super) fn entry(&self, manifest: &Descriptor) -> Value {
        let kind = match self.version {
            Version::One => INDEX_V1,
            Version::Two => INDEX_V2,
        };
        json!({
            "mediaType": media::OCI_MANIFEST,
            "artifactType": kind,
            "digest": self.index.digest.to_string(),
            "size": self.index.size,
            "platform": self.platform,
            "annotations": {IMAGE_MANIFEST_DIGEST: manifest.digest.to_string()},
        })
    }
}

/// The zTOCs of an image, each with its layer.
#[derive(Debug, Clone)]
pub(super) struct Described {
    ztocs: Vec<(Descriptor, Descriptor)>,
    platform: Platform,
}

/// Describes the layers of an image; `None` if not one of them can be described.
///
/// # Errors
/// [`EngineError::MakeLazy`] or [`EngineError::DiffIdMismatch`] if a layer is damaged; [`EngineError::Store`].
pub(super) async fn describe(
    lease: &WorkLease,
    board: &Arc<Board>,
    image: &str,
    member: &Member,
    config: &ImageConfig,
) -> Result<Option<Described>, EngineError> {
    let mut ztocs = Vec::new();
    for (layer, diff_id) in member.manifest.layers.iter().zip(&config.rootfs.diff_ids) {
        let LayerKind::Tar(compression) = media::layer_kind(&layer.media_type) else { continue };
        if is_bound(layer) {
            continue;
        }
        let (space, board, image) = (lease.space.clone(), board.clone(), image.to_owned());
        let (mut layer, diff_id, working) = (layer.clone(), *diff_id, lease.workers.begin());
        let described = layer.clone();
        let ztoc = blocking(move || {
            let _working = working;
            ztoc(&space, &board, image, &described, diff_id, compression)
        });
        if let Some(ztoc) = ztoc.await? {
            // By the type that the manifest will have.
            layer.media_type = typed(&layer.media_type, true).to_owned();
            ztocs.push((layer, ztoc));
        }
    }
    if ztocs.is_empty() {
        board.say("no layer of the image can be described by SOCI: it has no index");
        return Ok(None);
    }
    let platform =
        Platform::normalized(&config.os, &config.architecture, config.variant.as_deref().unwrap_or_default());
    Ok(Some(Described { ztocs, platform: member.descriptor.platform.clone().unwrap_or(platform) }))
}

impl Described {
    /// Stores the index, which in version 1 says that it is about `image`.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub(super) async fn index(
        self,
        lease: &WorkLease,
        name: &str,
        version: Version,
        image: &Descriptor,
    ) -> Result<Beside, EngineError> {
        let bytes = soci::index(version, image, &self.ztocs);
        let index = Descriptor::of(media::OCI_MANIFEST, &bytes);
        let (space, stored, name) = (lease.space.clone(), index.clone(), name.to_owned());
        blocking(move || {
            store_small(&space, &Descriptor::of("", EMPTY), EMPTY, Labels::new())?;
            let document: Document = parse(&name, &stored, &bytes)?;
            store_small(&space, &stored, &bytes, keeps(&document, |_| true))
        })
        .await?;
        Ok(Beside { version, index, platform: self.platform })
    }
}

fn ztoc(
    space: &Space,
    board: &Board,
    reference: String,
    layer: &Descriptor,
    expected: DiffId,
    compression: Compression,
) -> Result<Option<Descriptor>, EngineError> {
    let digest = layer.digest;
    let item = board.item(digest.to_string(), TransferKind::Layer, layer.size);
    item.set(TransferState::Converting);
    let made = soci::ztoc(&space.open_blob(&digest)?, compression, SPAN_BYTES);
    item.set(TransferState::Done);
    let made = match made {
        Ok(made) => made,
        Err(error) if error.is_inexpressible() => {
            board.say(match error {
                BuildError::NotSeekable { .. } => format!("layer {digest} is zstd, which SOCI does not know"),
                error => format!("layer {digest} is left out: {error}"),
            });
            return Ok(None);
        }
        Err(source) => return Err(EngineError::MakeLazy { reference, digest, source }),
    };
    let actual = DiffId(made.tar_digest);
    if actual != expected {
        return Err(EngineError::DiffIdMismatch { reference, digest, expected, actual });
    }
    let ztoc = Descriptor::new(ZTOC_TYPE, Digest::of(&made.bytes), made.bytes.len() as u64);
    store_small(space, &ztoc, &made.bytes, Labels::new())?;
    Ok(Some(ztoc))
}
