//! Images that are here, found by what people type.

use runtime_api::containerd::services::images::v1::{GetImageRequest, Image as WireImage, ListImagesRequest};
use runtime_api::windlass::v1::ResolveImageRequest;
use storage_model::{Descriptor, Digest, Reference};
use tonic::{Code, Status};

use crate::client::{Client, failed};
use crate::error::CliError;
use crate::output::amount;

/// An image's record.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// Its name.
    pub(crate) name: String,
    /// What the name stands for.
    pub(crate) target: Descriptor,
    /// When the name was created.
    pub(crate) created: std::time::SystemTime,
    /// When it last came to stand for something else.
    pub(crate) updated: std::time::SystemTime,
    /// Its labels.
    pub(crate) labels: std::collections::BTreeMap<String, String>,
}

impl Image {
    /// The record on the wire as one of ours.
    ///
    /// # Errors
    /// [`CliError::Document`] when its digest is none.
    pub(crate) fn from_wire(image: WireImage) -> Result<Self, CliError> {
        let target = image.target.unwrap_or_default();
        let digest: Digest = target.digest.parse().map_err(|source: storage_model::DigestError| {
            CliError::Document { name: image.name.clone(), source: source.into() }
        })?;
        let time = |stamp: Option<prost_types::Timestamp>| {
            stamp.map_or(std::time::SystemTime::UNIX_EPOCH, |stamp| amount::time(stamp.seconds, stamp.nanos))
        };
        Ok(Self {
            target: Descriptor::new(target.media_type, digest, u64::try_from(target.size).unwrap_or(0)),
            created: time(image.created_at),
            updated: time(image.updated_at),
            labels: image.labels.into_iter().collect(),
            name: image.name,
        })
    }
}

/// What was typed, completed as Docker does.
///
/// # Errors
/// [`CliError::Reference`].
pub(crate) fn reference(typed: &str) -> Result<Reference, CliError> {
    typed.parse().map_err(|source| CliError::Reference { given: typed.to_owned(), source })
}

/// The image that `typed` means: by its name, by a short one, or by the beginning of a digest. The engine decides.
///
/// # Errors
/// The engine's, such as several images that begin so.
pub(crate) async fn find(client: &Client, typed: &str) -> Result<Option<Image>, CliError> {
    match lookup(client, typed).await {
        Ok(image) => image.map(Image::from_wire).transpose(),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(failed(format!("{LOOK_FOR}{typed}"))(status)),
    }
}

/// Like [`find`], but an image that is not here is an error.
///
/// # Errors
/// Those of [`find`], and the engine's `NotFound`, which names similar images.
pub(crate) async fn get(client: &Client, typed: &str) -> Result<Image, CliError> {
    let found = lookup(client, typed).await.and_then(|image| image.ok_or_else(|| Status::not_found("")));
    Image::from_wire(found.map_err(failed(format!("{LOOK_FOR}{typed}")))?)
}

/// What was tried when an image is not found; advice goes by it.
pub(crate) const LOOK_FOR: &str = "look for image ";

async fn lookup(client: &Client, typed: &str) -> Result<Option<WireImage>, Status> {
    let request = ResolveImageRequest { image: typed.to_owned() };
    let name = client.engine().resolve_image(request).await?.into_inner().name;
    Ok(client.images().get(GetImageRequest { name }).await?.into_inner().image)
}

/// Images that match any of `filters`, by name; all when there is none.
///
/// # Errors
/// The engine's; [`CliError::Document`] for an image whose digest is none.
pub(crate) async fn matching(client: &Client, filters: &[String]) -> Result<Vec<Image>, CliError> {
    let request = ListImagesRequest { filters: filters.to_vec() };
    let listed = client.images().list(request).await.map_err(failed("list images"))?.into_inner();
    let mut images = listed.images.into_iter().map(Image::from_wire).collect::<Result<Vec<_>, _>>()?;
    images.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(images)
}
