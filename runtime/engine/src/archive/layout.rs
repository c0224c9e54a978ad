//! OCI layouts: `oci-layout` says the version, `index.json` lists the images.

use serde::{Deserialize, Serialize};
use storage_model::{Descriptor, Document, Index, limits, media};

use super::{ArchiveError, inventory::Inventory};
use crate::EngineError;

/// File that says which version of the layout it is.
pub(crate) const LAYOUT: &str = "oci-layout";
/// File that lists the images.
pub(crate) const INDEX: &str = "index.json";
/// The one version there is (OCI image-spec, `image-layout.md`).
const VERSION: &str = "1.0.0";

/// The document `oci-layout`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    image_layout_version: String,
}

/// The document `oci-layout`, as it is written.
pub(crate) fn version_document() -> Vec<u8> {
    let layout = Layout { image_layout_version: VERSION.to_owned() };
    serde_json::to_vec(&layout).expect("text is always JSON")
}

/// The index of an archive, if it is an OCI layout: its descriptor and what it lists.
///
/// # Errors
/// [`ArchiveError::Version`], [`ArchiveError::Syntax`], or [`EngineError::Document`] if the index is none.
pub(crate) fn index(inventory: &Inventory) -> Result<Option<(Descriptor, Index)>, EngineError> {
    let Some(bytes) = inventory.document(INDEX) else { return Ok(None) };
    if let Some(layout) = inventory.document(LAYOUT) {
        check_version(layout)?;
    }
    let media_type = media_type(bytes)?;
    let descriptor = Descriptor::of(media_type, bytes);
    match crate::image::documents::parse(INDEX, &descriptor, bytes)? {
        Document::Index(index) => Ok(Some((descriptor, index))),
        Document::Manifest(_) => Err(ArchiveError::Unknown { hint: ": its index.json is a manifest" }.into()),
    }
}

fn check_version(layout: &[u8]) -> Result<(), ArchiveError> {
    let layout: Layout = serde_json::from_slice(layout)
        .map_err(|source| ArchiveError::Syntax { name: LAYOUT.to_owned(), source })?;
    if layout.image_layout_version == VERSION {
        return Ok(());
    }
    Err(ArchiveError::Version { version: layout.image_layout_version.chars().take(32).collect() })
}

/// What an index says it is; most say nothing.
fn media_type(bytes: &[u8]) -> Result<&'static str, ArchiveError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Inside {
        #[serde(default)]
        media_type: Option<String>,
    }
    let inside: Inside = serde_json::from_slice(bytes)
        .map_err(|source| ArchiveError::Syntax { name: INDEX.to_owned(), source })?;
    Ok(match inside.media_type.as_deref() {
        Some(media::DOCKER_INDEX) => media::DOCKER_INDEX,
        _ => media::OCI_INDEX,
    })
}

/// Writes an index with these entries.
///
/// # Errors
/// [`ArchiveError::TooMany`] if nobody could read it.
pub(crate) fn write_index(manifests: &[Descriptor]) -> Result<Vec<u8>, ArchiveError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Written<'a> {
        schema_version: u8,
        media_type: &'a str,
        manifests: &'a [Descriptor],
    }
    let (count, max) = (manifests.len(), limits::INDEX_ENTRIES_MAX);
    if count > max {
        return Err(ArchiveError::TooMany { name: INDEX.to_owned(), what: "images", count, max });
    }
    let index = Written { schema_version: 2, media_type: media::OCI_INDEX, manifests };
    Ok(serde_json::to_vec(&index).expect("text and numbers are always JSON"))
}
