//! docker-archives (`docker save`, `skopeo copy … docker-archive:`): a list of configs and layer files, made into manifests.
//!
//! The manifest made is the one that containerd makes of the same archive, byte for byte where layers stay as they are, so
//! that one archive is one image wherever it is imported.

use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use storage_content::Space;
use storage_model::{Compression, Descriptor, DiffId, ImageConfig, limits, media};

use super::inventory::{Inventory, Stored};
use super::{ArchiveError, stream};
use crate::EngineError;
use crate::image::documents;

/// File that lists the images.
pub(crate) const MANIFEST: &str = "manifest.json";
/// Most images of one archive.
const IMAGES_MAX: usize = limits::INDEX_ENTRIES_MAX;

/// One entry of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Listed {
    /// Path of the config.
    pub(crate) config: String,
    /// Names: `repository:tag`.
    #[serde(default)]
    pub(crate) repo_tags: Option<Vec<String>>,
    /// Paths of the layers, lowest first.
    #[serde(default)]
    pub(crate) layers: Option<Vec<String>>,
}

/// An image whose parts are here, and its names in the archive.
#[derive(Debug)]
pub(crate) struct DockerImage {
    pub(crate) names: Vec<String>,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    /// Of the layers, as the config says.
    pub(crate) diff_ids: Vec<DiffId>,
}

/// Reads `manifest.json`.
///
/// # Errors
/// [`ArchiveError::Syntax`] or [`ArchiveError::TooMany`].
pub(crate) fn listed(bytes: &[u8]) -> Result<Vec<Listed>, ArchiveError> {
    let images: Vec<Listed> = serde_json::from_slice(bytes)
        .map_err(|source| ArchiveError::Syntax { name: MANIFEST.to_owned(), source })?;
    let limit = |what, count, max| {
        if count > max {
            return Err(ArchiveError::TooMany { name: MANIFEST.to_owned(), what, count, max });
        }
        Ok(())
    };
    limit("images", images.len(), IMAGES_MAX)?;
    for image in &images {
        limit("layers", image.layers.as_ref().map_or(0, Vec::len), limits::LAYERS_MAX)?;
    }
    Ok(images)
}

/// Finds the parts of one image among the archive's files.
///
/// # Errors
/// [`ArchiveError::Missing`] for a part that is not there; [`EngineError::Config`] if the config is none of that many
/// layers.
pub(crate) fn image(
    space: &Space,
    inventory: &Inventory,
    listed: Listed,
) -> Result<DockerImage, EngineError> {
    let config = inventory.file(&listed.config)?;
    let config = Descriptor::new(media::DOCKER_CONFIG, config.digest, config.size);
    let files = listed.layers.unwrap_or_default();
    let bytes = documents::config(space, &listed.config, &config)?;
    let read = ImageConfig::parse(&bytes, files.len()).map_err(|source| EngineError::Config {
        reference: listed.config.clone(),
        digest: config.digest,
        source,
    })?;
    let layers = files.iter().map(|file| layer(space, inventory.file(file)?)).collect::<Result<_, _>>()?;
    let (names, diff_ids) = (listed.repo_tags.unwrap_or_default(), read.rootfs.diff_ids);
    Ok(DockerImage { names, config, layers, diff_ids })
}

/// A layer file, described by what it begins with.
fn layer(space: &Space, stored: Stored) -> Result<Descriptor, EngineError> {
    let mut start = Vec::new();
    let file = space.open_blob(&stored.digest)?;
    file.take(8)
        .read_to_end(&mut start)
        .map_err(|source| EngineError::io("read the blob", Path::new(&stored.digest.to_string()), source))?;
    let media_type = match stream::compression(&start)? {
        Compression::None => media::DOCKER_LAYER,
        Compression::Gzip => media::DOCKER_LAYER_GZIP,
        Compression::Zstd => media::DOCKER_LAYER_ZSTD,
    };
    Ok(Descriptor::new(media_type, stored.digest, stored.size))
}

/// The manifest of an image out of a docker-archive.
pub(crate) fn manifest(config: &Descriptor, layers: &[Descriptor]) -> (Descriptor, Vec<u8>) {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Document<'a> {
        schema_version: u8,
        media_type: &'a str,
        config: &'a Descriptor,
        layers: &'a [Descriptor],
    }
    let document = Document { schema_version: 2, media_type: media::DOCKER_MANIFEST, config, layers };
    let bytes = serde_json::to_vec(&document).expect("text and numbers are always JSON");
    (Descriptor::of(media::DOCKER_MANIFEST, &bytes), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_tags_and_layers_are_none_and_too_many_are_refused() {
        let images =
            listed(br#"[{"Config":"c.json","RepoTags":null,"Layers":null,"LayerSources":{}}]"#).unwrap();
        assert_eq!(images, [Listed { config: "c.json".into(), repo_tags: None, layers: None }]);
        let layers = vec!["\"l\""; limits::LAYERS_MAX + 1].join(",");
        let text = format!(r#"[{{"Config":"c.json","Layers":[{layers}]}}]"#);
        assert!(matches!(listed(text.as_bytes()), Err(ArchiveError::TooMany { what: "layers", .. })));
        assert!(matches!(listed(b"{}"), Err(ArchiveError::Syntax { .. })));
    }

    #[test]
    fn vuln_c11_a_list_nested_without_end_is_refused() {
        let deep = "[".repeat(1_000_000);
        assert!(matches!(listed(deep.as_bytes()), Err(ArchiveError::Syntax { .. })));
    }

    #[test]
    fn a_manifest_is_written_as_containerd_writes_it() {
        let config = Descriptor::of(media::DOCKER_CONFIG, b"{}");
        let (descriptor, bytes) = manifest(&config, &[Descriptor::of(media::DOCKER_LAYER, b"tar")]);
        let expected = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{}","size":2}},"layers":[{{"mediaType":"{}","digest":"{}","size":3}}]}}"#,
            media::DOCKER_MANIFEST,
            media::DOCKER_CONFIG,
            config.digest,
            media::DOCKER_LAYER,
            storage_model::Digest::of(b"tar"),
        );
        assert_eq!(String::from_utf8(bytes.clone()).unwrap(), expected);
        assert_eq!(descriptor, Descriptor::of(media::DOCKER_MANIFEST, &bytes));
    }
}
