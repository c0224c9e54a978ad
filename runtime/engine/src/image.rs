//! Images that are here: found by what people write, read from the store, given further names.
//!
//! Not here: bringing them in (`pull`, `archive`), unpacking them (`unpack`).

pub(crate) mod contents;
pub(crate) mod documents;
mod error;
pub(crate) mod resolve;
pub(crate) mod tag;

use std::sync::Arc;

use storage_content::{ImageRecord, Space};
use storage_model::{ChainId, Descriptor, Document, ImageConfig, Manifest, Namespace, Platform};

pub use error::ImageError;

use crate::layers::PlatformImage;
use crate::{Engine, EngineError};

/// An image that is here, read for one platform.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its record: name, target, labels.
    pub record: ImageRecord,
    /// Descriptor of its manifest.
    pub descriptor: Descriptor,
    /// Its manifest.
    pub manifest: Box<Manifest>,
    /// Its config.
    pub config: ImageConfig,
    /// The unpacked tree's identity; `None` for an image without layers.
    pub chain: Option<ChainId>,
}

impl Engine {
    /// Finds the image that `name` means ([`Engine::resolve_image`]) and reads it for this machine's platform, or for
    /// one that is here.
    ///
    /// # Errors
    /// As [`Engine::resolve_image`]; [`ImageError::Absent`], [`EngineError::Document`] or [`EngineError::Config`] if its
    /// documents are not all here, or are none.
    pub fn image(&self, namespace: &Namespace, name: &str) -> Result<Image, EngineError> {
        self.image_for(namespace, name, "")
    }

    /// The same for `platform` (`os/arch[/variant]`; empty is as in [`Engine::image`]).
    ///
    /// # Errors
    /// As [`Engine::image`], and [`EngineError::NoPlatform`].
    pub fn image_for(&self, namespace: &Namespace, name: &str, platform: &str) -> Result<Image, EngineError> {
        let space = self.space(namespace);
        let record = resolve::find(&space, name)?;
        let (descriptor, image) = read_with_manifest(&space, &record.name, &record.target, platform)?;
        let chain = image.chain();
        let PlatformImage { manifest, config, .. } = Arc::unwrap_or_clone(image);
        Ok(Image { record, descriptor, manifest, config, chain })
    }
}

/// Reads the image `target` for `platform`; empty is this machine's, or one that is here.
pub(crate) fn read(
    space: &Space,
    name: &str,
    target: &Descriptor,
    platform: &str,
) -> Result<Arc<PlatformImage>, EngineError> {
    read_with_manifest(space, name, target, platform).map(|(_, image)| image)
}

/// The same, with the descriptor of its manifest.
pub(crate) fn read_with_manifest(
    space: &Space,
    name: &str,
    target: &Descriptor,
    platform: &str,
) -> Result<(Descriptor, Arc<PlatformImage>), EngineError> {
    let wanted = if platform.is_empty() { None } else { Some(platform.parse::<Platform>()?) };
    let (descriptor, manifest) = manifest(space, name, target, wanted.as_ref())?;
    let config = documents::config(space, name, &manifest.config)?;
    let image = PlatformImage::read(name, manifest, &config)?;
    if let Some(wanted) = wanted {
        let offered = image.config.platform();
        if wanted.rank(&offered).is_none() {
            return Err(contents::no_platform(name, &wanted, offered.to_string()));
        }
    }
    Ok((descriptor, Arc::new(image)))
}

/// The manifest of the platform that is wanted, or of the best that is here: an index lists others too, which were
/// never fetched.
fn manifest(
    space: &Space,
    name: &str,
    target: &Descriptor,
    wanted: Option<&Platform>,
) -> Result<(Descriptor, Box<Manifest>), EngineError> {
    let index = match documents::document(space, name, target)? {
        Document::Manifest(manifest) => return Ok((target.clone(), manifest)),
        Document::Index(index) => index,
    };
    let host = Platform::host();
    let entry = match wanted {
        Some(wanted) => &index.manifests[contents::choose(name, &index, wanted)?],
        None => {
            let here = index.manifests.iter().filter(|entry| space.blob(&entry.digest).is_ok());
            let rank = |entry: &&Descriptor| {
                let rank = entry.platform.as_ref().and_then(|offered| host.rank(offered));
                (contents::is_attestation(entry), rank.unwrap_or(u8::MAX))
            };
            let missing =
                || contents::no_platform(name, &host, "none of its manifests in the store".to_owned());
            here.min_by_key(rank).ok_or_else(missing)?
        }
    };
    match documents::document(space, name, entry)? {
        Document::Manifest(manifest) => Ok((entry.clone(), manifest)),
        Document::Index(_) => {
            Err(contents::no_platform(name, wanted.unwrap_or(&host), "another index".to_owned()))
        }
    }
}
