//! What would run of an image: config and layers of the manifest that is here and suits this machine best.

use storage_model::{Descriptor, Digest, Document, ImageConfig, Manifest, Platform, limits, media};
use tonic::Code;

use super::Image;
use super::document::{ReadError, document};
use crate::client::Client;
use crate::error::{CliError, DocumentError};

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
