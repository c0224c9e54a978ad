//! Tables that are not in their layers: `<tag>-esgztoc` is an image with one layer for each, an archive of the table.
//!
//! The digest of the table stands in the annotation of the layer all the same, so the image beside it needs no trust.

use lazy_index::estargz::{EXTERNAL_LAYER_DIGEST, EXTERNAL_SUFFIX};
use lazy_index::{Digest, IndexError, Toc};
use storage_model::{Descriptor, Document, Reference};
use storage_registry::RegistryError;

use super::DescribeError;
use super::ask::{Ask, Part};
use super::layer::{Failed, read};
use super::table;

/// Most platforms of the image with the tables that are looked through.
const MANIFESTS_MAX: usize = 16;

/// The table of `ask`'s layer, whose payload ends at `payload_end` in its blob.
pub(super) async fn toc(ask: &mut Ask<'_>, json: Digest, payload_end: u64) -> Result<Toc, Failed> {
    let layer = ask.layer.digest;
    let failed = |source| DescribeError::Registry { layer, source };
    let missing = |reason| DescribeError::Index {
        layer,
        source: IndexError::Format { what: "external table", reason },
    };
    let beside = beside(ask.reference).ok_or(missing("the image has no tag it could be found by"))?;
    let found = find(ask, &beside).await.map_err(failed)?;
    let found = found.ok_or(missing("the image with the tables has none for this layer"))?;
    let bytes =
        ask.client.small_blob(&beside, &found, ask.want.limits.toc_coded_bytes_max).await.map_err(failed)?;
    ask.requests += 1;
    ask.bytes_fetched += bytes.len() as u64;
    let part = Part { bytes: bytes.to_vec(), host: beside.registry().to_owned(), source: String::new() };
    let read = read(ask, part, json, move |bytes, of| table::estargz_outside(bytes, payload_end, of)).await;
    // Another host of the layer would not help.
    read.map_err(|failed| Failed { source: None, ..failed })
}

/// The name of the image with the tables.
fn beside(reference: &Reference) -> Option<Reference> {
    let (registry, repository, tag) = (reference.registry(), reference.repository(), reference.tag()?);
    format!("{registry}/{repository}:{tag}{EXTERNAL_SUFFIX}").parse().ok()
}

/// The layer of the image with the tables that is about this one.
async fn find(ask: &mut Ask<'_>, beside: &Reference) -> Result<Option<Descriptor>, RegistryError> {
    let top = ask.client.resolve(beside).await?;
    ask.requests += 1;
    let mut todo = vec![top.descriptor];
    let mut looked = 0;
    while let Some(next) = todo.pop() {
        looked += 1;
        if looked > MANIFESTS_MAX {
            break;
        }
        let bytes = ask.client.manifest(beside, &next).await?;
        ask.requests += 1;
        match Document::parse(&next.media_type, &bytes) {
            Ok(Document::Index(index)) => todo.extend(index.manifests),
            Ok(Document::Manifest(manifest)) => {
                let wanted = ask.layer.digest.to_string();
                let is_it =
                    |layer: &Descriptor| layer.annotations.get(EXTERNAL_LAYER_DIGEST) == Some(&wanted);
                if let Some(found) = manifest.layers.into_iter().find(is_it) {
                    return Ok(Some(found));
                }
            }
            Err(error) => tracing::debug!(%error, %beside, "no image with tables"),
        }
    }
    Ok(None)
}
