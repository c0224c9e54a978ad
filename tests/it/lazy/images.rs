//! The same image in each form that can be read in pieces.

use std::io::{Seek, SeekFrom, Write};

use anyhow::Result;
use lazy_build::{Dialect, Format, LayerOptions, write_layer};
use serde_json::json;
use storage_model::{Descriptor, Digest, media};
use tests::{Image, ImageBuilder};

/// A form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Estargz,
    Containers,
    Stargz,
}

impl Way {
    fn format(self) -> Format {
        match self {
            Self::Estargz => Format::Estargz,
            Self::Containers => Format::ZstdChunked(Dialect::Containers),
            Self::Stargz => Format::ZstdChunked(Dialect::Stargz),
        }
    }

    fn media_type(self) -> &'static str {
        if self == Self::Estargz { media::OCI_LAYER_GZIP } else { media::OCI_LAYER_ZSTD }
    }
}

/// The image of `builder` with every layer in the form `way`.
///
/// # Errors
/// A layer cannot be expressed in it.
pub(crate) fn lazily(builder: &ImageBuilder, way: Way) -> Result<Image> {
    let options = LayerOptions { chunk_bytes: 64 * 1024, ..LayerOptions::new(way.format()) };
    let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
    let mut blobs = std::collections::BTreeMap::new();
    for tar in builder.tars() {
        let mut file = tempfile::tempfile()?;
        file.write_all(tar)?;
        file.seek(SeekFrom::Start(0))?;
        let mut blob = Vec::new();
        let written = write_layer(&file, &mut blob, &options)?;
        let mut descriptor = Descriptor::new(way.media_type(), written.digest, written.size);
        descriptor.annotations = written.annotations;
        layers.push(descriptor);
        diff_ids.push(written.diff_id.to_string());
        blobs.insert(written.digest, blob);
    }
    let host = storage_model::Platform::host();
    let config = json!({"architecture": host.architecture, "os": host.os, "config": builder.config(),
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = config.to_string().into_bytes();
    let config_descriptor = Descriptor::of(media::OCI_CONFIG, &config);
    blobs.insert(config_descriptor.digest, config);
    let document = json!({"schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "config": config_descriptor,
        "layers": layers});
    let document = document.to_string().into_bytes();
    let root = Descriptor::of(media::OCI_MANIFEST, &document);
    let layers: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
    Ok(Image { root, manifests: Vec::new(), document, blobs, layers })
}
