//! The SOCI index: which zTOC belongs to which layer.

use std::collections::BTreeMap;

use storage_model::{Descriptor, Digest, Document, media};

use super::{INDEX_V1, INDEX_V2, LAYER_DIGEST};
use crate::IndexError;

/// Which version of SOCI an index is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// It names the image it is about; nothing of the image names it.
    One,
    /// The image's manifest names it.
    Two,
}

/// A zTOC as its index names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ztoc {
    /// The layer it is about.
    pub layer: Digest,
    /// Where it is.
    pub descriptor: Descriptor,
}

/// A SOCI index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Its version.
    pub version: Version,
    /// The image manifest it is about; only version 1 says it.
    pub image: Option<Digest>,
    /// The zTOCs. Layers that are small have none.
    pub ztocs: Vec<Ztoc>,
}

impl Index {
    /// Reads the bytes of an index.
    ///
    /// # Errors
    /// [`IndexError::Document`] if it is no OCI manifest, [`IndexError::Format`] if it is another artifact, or has two
    /// zTOCs for one layer.
    pub fn parse(bytes: &[u8]) -> Result<Self, IndexError> {
        let wrong = |reason| IndexError::Format { what: "SOCI index", reason };
        let document = Document::parse(media::OCI_MANIFEST, bytes);
        let document = document.map_err(|source| IndexError::Document { what: "SOCI index", source })?;
        let Document::Manifest(manifest) = document else { return Err(wrong("it is an index of images")) };
        // Versions before 1.1 of the image specification had the config's media type only.
        let kind = manifest.artifact_type.as_deref().unwrap_or(&manifest.config.media_type);
        let version = match kind {
            INDEX_V1 => Version::One,
            INDEX_V2 => Version::Two,
            _ => return Err(wrong("its artifact type is not that of SOCI")),
        };
        let mut ztocs = BTreeMap::new();
        for descriptor in manifest.layers {
            let layer = descriptor.annotations.get(LAYER_DIGEST).and_then(|text| text.parse::<Digest>().ok());
            let layer = layer.ok_or(wrong("one of its zTOCs does not say which layer it is about"))?;
            if ztocs.insert(layer, Ztoc { layer, descriptor }).is_some() {
                return Err(wrong("it has two zTOCs for one layer"));
            }
        }
        let image = manifest.subject.map(|subject| subject.digest);
        Ok(Self { version, image, ztocs: ztocs.into_values().collect() })
    }
}
