//! Images that are here, found by what people type.

use runtime_api::containerd::services::images::v1::{GetImageRequest, Image as WireImage, ListImagesRequest};
use storage_model::{Descriptor, Digest, Reference};
use tonic::Code;

use crate::client::{Client, failed};
use crate::error::CliError;
use crate::output::amount;

/// Fewest digits of a digest that are taken for one: shorter ones would rather be names.
const DIGEST_DIGITS_MIN: usize = 6;

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

/// The error for an image that is not here.
pub(crate) fn not_found(client: &Client, typed: &str) -> CliError {
    CliError::NotFound { kind: "image", name: typed.to_owned(), namespace: client.namespace().to_string() }
}

/// The image that `typed` means: by its completed name, by its name as it stands, or by the beginning of its digest.
///
/// # Errors
/// The engine's, and [`CliError::Ambiguous`] for a digest with several beginnings.
pub(crate) async fn find(client: &Client, typed: &str) -> Result<Option<Image>, CliError> {
    let mut names = Vec::new();
    if let Ok(reference) = typed.parse::<Reference>() {
        names.push(reference.to_string());
    }
    if names.first().map(String::as_str) != Some(typed) {
        names.push(typed.to_owned());
    }
    for name in names {
        match client.images().get(GetImageRequest { name: name.clone() }).await {
            Ok(found) => return found.into_inner().image.map(Image::from_wire).transpose(),
            Err(status) if matches!(status.code(), Code::NotFound | Code::InvalidArgument) => {}
            Err(status) => return Err(failed(format!("look for image {name}"))(status)),
        }
    }
    by_digest(client, typed).await
}

/// Like [`find`], but an image that is not here is an error.
///
/// # Errors
/// [`CliError::NotFound`], and those of [`find`].
pub(crate) async fn get(client: &Client, typed: &str) -> Result<Image, CliError> {
    find(client, typed).await?.ok_or_else(|| not_found(client, typed))
}

async fn by_digest(client: &Client, typed: &str) -> Result<Option<Image>, CliError> {
    let digits = typed.strip_prefix("sha256:").unwrap_or(typed);
    let is_hex = digits.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    if digits.len() < DIGEST_DIGITS_MIN || !is_hex {
        return Ok(None);
    }
    let mut matching = matching(client, &[]).await?;
    matching.retain(|image| image.target.digest.hex().starts_with(digits));
    if matching.len() > 1 {
        let names: Vec<&str> = matching.iter().map(|image| image.name.as_str()).collect();
        return Err(CliError::Ambiguous { kind: "image", given: typed.to_owned(), names: names.join(", ") });
    }
    Ok(matching.pop())
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
