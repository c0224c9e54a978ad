//! Images that are here: found by what people type, read through the content service.
//!
//! Not here: how they are shown (`verbs::images`).

use runtime_api::containerd::services::images::v1::{GetImageRequest, Image as WireImage, ListImagesRequest};
use storage_model::{
    Descriptor, Digest, Document, ImageConfig, Manifest, Platform, Reference, limits, media,
};
use tonic::Code;

use crate::client::{Client, failed};
use crate::error::{CliError, DocumentError};
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
    let mut matching = all(client).await?;
    matching.retain(|image| image.target.digest.hex().starts_with(digits));
    if matching.len() > 1 {
        let names: Vec<&str> = matching.iter().map(|image| image.name.as_str()).collect();
        return Err(CliError::Ambiguous { kind: "image", given: typed.to_owned(), names: names.join(", ") });
    }
    Ok(matching.pop())
}

/// All images, by name.
///
/// # Errors
/// The engine's.
pub(crate) async fn all(client: &Client) -> Result<Vec<Image>, CliError> {
    let request = ListImagesRequest { filters: Vec::new() };
    let listed = client.images().list(request).await.map_err(failed("list images"))?.into_inner();
    let mut images = listed.images.into_iter().map(Image::from_wire).collect::<Result<Vec<_>, _>>()?;
    images.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(images)
}

/// What an image is made of, for one platform.
#[derive(Debug, Clone)]
pub(crate) struct Details {
    /// The index the name stands for, if it stands for one.
    pub(crate) index: Option<Descriptor>,
    /// The manifest of the platform.
    pub(crate) manifest: Descriptor,
    /// Config and layers.
    pub(crate) content: Manifest,
    /// The config.
    pub(crate) config: ImageConfig,
}

impl Details {
    /// Reads an image's documents: of an index, the manifest that is here and runs here best.
    ///
    /// # Errors
    /// [`CliError::Document`] when one is missing or not what it should be.
    pub(crate) async fn read(client: &Client, image: &Image) -> Result<Self, CliError> {
        let wrong = |source: DocumentError| CliError::Document { name: image.name.clone(), source };
        let what = format!("read image {}", image.name);
        let bytes = |digest: Digest, max: u64| {
            let what = what.clone();
            async move { document(client, &digest, max).await.map_err(|error| error.into_cli(&what, &image.name)) }
        };
        let top = bytes(image.target.digest, limits::MANIFEST_BYTES_MAX).await?;
        let (index, manifest, content) = match parse(&image.target, &top).map_err(wrong)? {
            Document::Manifest(content) => (None, image.target.clone(), *content),
            Document::Index(list) => {
                let (descriptor, text) = choose(client, list.manifests, &what)
                    .await?
                    .ok_or(DocumentError::NoManifest)
                    .map_err(wrong)?;
                match parse(&descriptor, &text).map_err(wrong)? {
                    Document::Manifest(content) => (Some(image.target.clone()), descriptor, *content),
                    Document::Index(_) => return Err(wrong(DocumentError::NoManifest)),
                }
            }
        };
        let text = bytes(content.config.digest, limits::CONFIG_BYTES_MAX).await?;
        let config =
            ImageConfig::parse(&text, content.layers.len()).map_err(|source| wrong(source.into()))?;
        Ok(Self { index, manifest, content, config })
    }

    /// The platform, by the config.
    pub(crate) fn platform(&self) -> Platform {
        self.config.platform()
    }

    /// Size of all the content, in bytes: documents and layers as the registry has them.
    pub(crate) fn size(&self) -> u64 {
        let index = self.index.as_ref().map_or(0, |index| index.size);
        let layers: u64 = self.content.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add);
        layers
            .saturating_add(index)
            .saturating_add(self.manifest.size)
            .saturating_add(self.content.config.size)
    }
}

fn parse(descriptor: &Descriptor, bytes: &[u8]) -> Result<Document, DocumentError> {
    Ok(Document::parse(&descriptor.media_type, bytes)?)
}

/// The manifest of an index that is here and suits this machine best, with its bytes.
async fn choose(
    client: &Client,
    mut manifests: Vec<Descriptor>,
    what: &str,
) -> Result<Option<(Descriptor, Vec<u8>)>, CliError> {
    let host = Platform::host();
    let rank = |descriptor: &Descriptor| {
        descriptor.platform.as_ref().and_then(|platform| host.rank(platform)).unwrap_or(u8::MAX)
    };
    manifests.retain(|descriptor| media::is_manifest(&descriptor.media_type));
    manifests.sort_by_key(rank);
    for descriptor in manifests {
        match document(client, &descriptor.digest, limits::MANIFEST_BYTES_MAX).await {
            Ok(bytes) => return Ok(Some((descriptor, bytes))),
            // Another platform's, which was not pulled.
            Err(ReadError::Status(status)) if status.code() == Code::NotFound => {}
            Err(error) => return Err(error.into_cli(what, what)),
        }
    }
    Ok(None)
}

/// Why a document could not be read.
enum ReadError {
    Status(tonic::Status),
    TooLarge(Digest),
}

impl ReadError {
    fn into_cli(self, what: &str, name: &str) -> CliError {
        match self {
            Self::Status(status) => failed(what)(status),
            Self::TooLarge(digest) => CliError::Document {
                name: name.to_owned(),
                source: DocumentError::TooLarge(digest.to_string()),
            },
        }
    }
}

/// A small piece of content, whole.
async fn document(client: &Client, digest: &Digest, bytes_max: u64) -> Result<Vec<u8>, ReadError> {
    let mut stream = client.read(&digest.to_string()).await.map_err(ReadError::Status)?;
    let mut bytes = Vec::new();
    while let Some(part) = stream.message().await.map_err(ReadError::Status)? {
        if (bytes.len() + part.data.len()) as u64 > bytes_max {
            return Err(ReadError::TooLarge(*digest));
        }
        bytes.extend_from_slice(&part.data);
    }
    Ok(bytes)
}
