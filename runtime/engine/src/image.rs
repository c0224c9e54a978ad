//! Images that are here: found by name, read from the store.

use storage_content::{ImageRecord, Space, StoreError};
use storage_model::{Descriptor, Document, ImageConfig, Manifest, Namespace, Platform, Reference, chain_ids};

use crate::{Engine, EngineError};
use storage_model::ChainId;

/// An image that is here, read for one platform.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its record: name, target, labels.
    pub record: ImageRecord,
    /// Its manifest.
    pub manifest: Box<Manifest>,
    /// Its config.
    pub config: ImageConfig,
    /// The unpacked tree's identity; `None` for an image without layers.
    pub chain: Option<ChainId>,
}

impl Engine {
    /// Finds the image that `name` means: the name as given, or the reference it is short for.
    ///
    /// # Errors
    /// [`EngineError::NoImage`] if there is none; [`EngineError::Store`] or [`EngineError::Document`] if its documents
    /// are not all here.
    pub fn image(&self, namespace: &Namespace, name: &str) -> Result<Image, EngineError> {
        let space = self.space(namespace);
        let record = find(&space, name)?.ok_or_else(|| EngineError::NoImage {
            name: name.to_owned(),
            namespace: namespace.to_string(),
        })?;
        read(&space, record)
    }
}

fn find(space: &Space, name: &str) -> Result<Option<ImageRecord>, EngineError> {
    let mut names = vec![name.to_owned()];
    if let Ok(reference) = name.parse::<Reference>() {
        names.push(reference.to_string());
    }
    for name in names {
        match space.image(&name) {
            Ok(record) => return Ok(Some(record)),
            Err(error) if error.kind() == crate::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

fn read(space: &Space, record: ImageRecord) -> Result<Image, EngineError> {
    let manifest = manifest(space, &record)?;
    let bytes = read_blob(space, &manifest.config)?;
    let config = ImageConfig::parse(&bytes, manifest.layers.len()).map_err(|source| EngineError::Config {
        reference: record.name.clone(),
        digest: manifest.config.digest,
        source,
    })?;
    let chain = chain_ids(&config.rootfs.diff_ids).last().copied();
    Ok(Image { record, manifest, config, chain })
}

/// The manifest of the platform that is here: an index lists others too, which were never fetched.
fn manifest(space: &Space, record: &ImageRecord) -> Result<Box<Manifest>, EngineError> {
    let top = document(space, record, &record.target)?;
    let index = match top {
        Document::Manifest(manifest) => return Ok(manifest),
        Document::Index(index) => index,
    };
    let host = Platform::host();
    let mut here: Vec<&Descriptor> =
        index.manifests.iter().filter(|entry| space.blob(&entry.digest).is_ok()).collect();
    here.sort_by_key(|entry| {
        entry.platform.as_ref().and_then(|offered| host.rank(offered)).unwrap_or(u8::MAX)
    });
    let missing = || EngineError::NoPlatform {
        reference: record.name.clone(),
        wanted: host.to_string(),
        offered: "none of its manifests in the store".to_owned(),
    };
    match document(space, record, here.first().ok_or_else(missing)?)? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(_) => Err(missing()),
    }
}

fn document(space: &Space, record: &ImageRecord, descriptor: &Descriptor) -> Result<Document, EngineError> {
    let bytes = read_blob(space, descriptor)?;
    Document::parse(&descriptor.media_type, &bytes).map_err(|source| EngineError::Document {
        reference: record.name.clone(),
        digest: descriptor.digest,
        source,
    })
}

/// A small blob, whole and verified again: documents decide what runs.
fn read_blob(space: &Space, descriptor: &Descriptor) -> Result<Vec<u8>, EngineError> {
    use std::io::Read;
    let file = space.open_blob(&descriptor.digest)?;
    let mut bytes = Vec::new();
    let limit = storage_model::limits::CONFIG_BYTES_MAX + 1;
    file.take(limit).read_to_end(&mut bytes).map_err(|source| {
        EngineError::io("read the blob", std::path::Path::new(&descriptor.digest.to_string()), source)
    })?;
    let actual = storage_model::Digest::of(&bytes);
    if actual == descriptor.digest {
        Ok(bytes)
    } else {
        Err(StoreError::DigestMismatch { expected: descriptor.digest, actual }.into())
    }
}
