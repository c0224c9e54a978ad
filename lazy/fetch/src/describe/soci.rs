//! SOCI: which zTOCs an image has, and what one of them says of its layer.

use std::collections::BTreeMap;

use lazy_index::soci::{self, INDEX_DIGEST, INDEX_V1, Index, Version};
use storage_model::{Descriptor, Digest, Reference};
use storage_registry::{Client, RegistryError};

use super::error::SociFault;
use super::{DescribeError, Described, Format, Want};

/// The zTOC of a layer, and how far it can be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SociLayer {
    /// Where the zTOC is.
    pub ztoc: Descriptor,
    /// Whether the image's manifest names the index it stands in. If not, who may push to the repository vouches for it,
    /// and the layer is proved when it has arrived as a whole.
    pub bound: bool,
}

/// Finds the zTOCs of the image with this manifest: by the annotation of the manifest (version 2), else among its referrers
/// or by the tag that stands for them (version 1). An image without any has none, which is no error.
///
/// # Errors
/// [`DescribeError::SociIndex`] if the manifest names an index that cannot be had or read.
///
/// Cancel safety: nothing is left behind.
pub async fn soci(
    client: &Client,
    reference: &Reference,
    manifest: &Descriptor,
    annotations: &BTreeMap<String, String>,
) -> Result<BTreeMap<Digest, SociLayer>, DescribeError> {
    let failed = |source| DescribeError::SociIndex { image: manifest.digest, source };
    let Some(named) = annotations.get(INDEX_DIGEST) else {
        return referred(client, reference, &manifest.digest).await.map_err(failed);
    };
    let digest = named.parse().map_err(SociFault::Annotation).map_err(failed)?;
    let index = fetch(client, reference, digest).await.map_err(failed)?;
    Ok(layers(index, true))
}

/// The zTOCs of the first referrer that is a SOCI index about the image.
async fn referred(
    client: &Client,
    reference: &Reference,
    image: &Digest,
) -> Result<BTreeMap<Digest, SociLayer>, SociFault> {
    let found = client.referrers(reference, image, Some(INDEX_V1)).await.map_err(SociFault::Registry)?;
    for referrer in found {
        match fetch(client, reference, referrer.descriptor.digest).await {
            Ok(index) if index.version == Version::One && index.image == Some(*image) => {
                return Ok(layers(index, false));
            }
            Ok(_) => tracing::debug!(%image, "a referrer is about another image"),
            Err(error) => tracing::debug!(%image, %error, "a referrer cannot be used"),
        }
    }
    Ok(BTreeMap::new())
}

async fn fetch(client: &Client, reference: &Reference, digest: Digest) -> Result<Index, SociFault> {
    let resolved = client.resolve(&reference.with_digest(digest)).await.map_err(SociFault::Registry)?;
    let bytes = match resolved.bytes {
        Some(bytes) => bytes,
        None => client.manifest(reference, &resolved.descriptor).await.map_err(SociFault::Registry)?,
    };
    Index::parse(&bytes).map_err(SociFault::Index)
}

fn layers(index: Index, bound: bool) -> BTreeMap<Digest, SociLayer> {
    index.ztocs.into_iter().map(|found| (found.layer, SociLayer { ztoc: found.descriptor, bound })).collect()
}

/// Describes a layer by its zTOC.
///
/// # Errors
/// [`DescribeError::Registry`] if the zTOC cannot be had, [`DescribeError::Index`] if it is refused.
///
/// Cancel safety: nothing is left behind.
pub async fn soci_layer(
    client: &Client,
    reference: &Reference,
    layer: &Descriptor,
    found: &SociLayer,
) -> Result<Described, DescribeError> {
    let (of, blob_bytes, limits) = (layer.digest, layer.size, Want::default().limits);
    let max = limits.toc_bytes_max;
    let bytes = client.small_blob(reference, &found.ztoc, max).await;
    let bytes = bytes.map_err(|source: RegistryError| DescribeError::Registry { layer: of, source })?;
    let bytes_fetched = bytes.len() as u64;
    let read = tokio::task::spawn_blocking(move || {
        let toc = soci::ztoc(&bytes, blob_bytes, &limits)?;
        toc.validate(blob_bytes, &limits).map(|()| toc)
    });
    let toc = read.await.map_err(|_| DescribeError::Interrupted { layer: of })?;
    let toc = toc.map_err(|source| DescribeError::Index { layer: of, source })?;
    let format = if found.bound { Format::Soci } else { Format::SociUnbound };
    Ok(Described { toc, format, bytes_fetched, requests: 1 })
}
