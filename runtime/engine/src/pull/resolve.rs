//! From a reference to one image: index, platform, manifest, config.

use bytes::Bytes;
use storage_model::{
    Compression, Descriptor, Document, ImageConfig, Index, Labels, LayerKind, Manifest, Platform, Reference,
    chain_ids, limits, media,
};
use storage_registry::Client;

use crate::EngineError;

/// One image, chosen and read, but for its layers.
pub(crate) struct Target {
    /// What the name will stand for: the index if there is one, else the manifest.
    pub(crate) top: Descriptor,
    /// Every document read on the way, top first, config last.
    documents: Vec<(Descriptor, Bytes)>,
    pub(crate) manifest: Box<Manifest>,
    pub(crate) config: ImageConfig,
    pub(crate) platform: Platform,
    /// How each layer is compressed, in the manifest's order.
    pub(crate) compressions: Vec<Compression>,
}

/// Reads what `reference` stands for on `platform` (empty: this machine's).
pub(crate) async fn target(
    client: &Client,
    reference: &Reference,
    platform: &str,
) -> Result<Target, EngineError> {
    let wanted: Platform = if platform.is_empty() { Platform::host() } else { platform.parse()? };
    let resolved = client.resolve(reference).await?;
    let top = resolved.descriptor;
    let bytes = match resolved.bytes {
        Some(bytes) => bytes,
        None => client.manifest(reference, &top).await?,
    };
    let mut documents = vec![(top.clone(), bytes.clone())];
    let manifest = match parse(reference, &top, &bytes)? {
        Document::Manifest(manifest) => manifest,
        Document::Index(index) => {
            let chosen = choose(reference, &index, &wanted)?;
            let bytes = client.manifest(reference, chosen).await?;
            documents.push((chosen.clone(), bytes.clone()));
            match parse(reference, chosen, &bytes)? {
                Document::Manifest(manifest) => manifest,
                Document::Index(_) => {
                    return Err(no_platform(reference, &wanted, "another index".to_owned()));
                }
            }
        }
    };
    let compressions = compressions(reference, &manifest)?;
    let bytes = client.small_blob(reference, &manifest.config, limits::CONFIG_BYTES_MAX).await?;
    let config = ImageConfig::parse(&bytes, manifest.layers.len()).map_err(|source| EngineError::Config {
        reference: reference.to_string(),
        digest: manifest.config.digest,
        source,
    })?;
    documents.push((manifest.config.clone(), bytes));
    let offered = config.platform();
    if wanted.rank(&offered).is_none() {
        return Err(no_platform(reference, &wanted, offered.to_string()));
    }
    Ok(Target { top, documents, manifest, config, platform: offered, compressions })
}

impl Target {
    /// Bytes of the documents read.
    pub(crate) fn document_bytes(&self) -> u64 {
        self.documents.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// The documents to store, each with the labels that keep what it points to (containerd's garbage collection
    /// labels), what is pointed to first.
    pub(crate) fn documents(
        &self,
        reference: &Reference,
        snapshotter: &str,
    ) -> Vec<(Descriptor, Bytes, Labels)> {
        let mut stored: Vec<_> = self
            .documents
            .iter()
            .map(|(descriptor, bytes)| {
                let mut labels = self.references(descriptor, bytes, snapshotter);
                let key = format!("containerd.io/distribution.source.{}", reference.registry());
                labels.insert(key, reference.repository().to_owned());
                (descriptor.clone(), bytes.clone(), labels)
            })
            .collect();
        stored.reverse();
        stored
    }

    fn references(&self, descriptor: &Descriptor, bytes: &Bytes, snapshotter: &str) -> Labels {
        let content =
            |kind: String, child: &Descriptor| (format!("containerd.io/gc.ref.content.{kind}"), child.digest);
        let labels: Vec<_> = match Document::parse(&descriptor.media_type, bytes) {
            Ok(Document::Index(index)) => index
                .manifests
                .iter()
                .enumerate()
                .map(|(n, child)| content(format!("m.{n}"), child))
                .collect(),
            Ok(Document::Manifest(manifest)) => {
                std::iter::once(content("config".to_owned(), &manifest.config))
                    .chain(
                        manifest.layers.iter().enumerate().map(|(n, child)| content(format!("l.{n}"), child)),
                    )
                    .collect()
            }
            Err(_) => match chain_ids(&self.config.rootfs.diff_ids).last() {
                Some(chain) => vec![(format!("containerd.io/gc.ref.snapshot.{snapshotter}"), chain.0)],
                None => Vec::new(),
            },
        };
        labels.into_iter().map(|(key, digest)| (key, digest.to_string())).collect()
    }
}

fn parse(reference: &Reference, descriptor: &Descriptor, bytes: &[u8]) -> Result<Document, EngineError> {
    Document::parse(&descriptor.media_type, bytes).map_err(|source| EngineError::Document {
        reference: reference.to_string(),
        digest: descriptor.digest,
        source,
    })
}

/// The manifest that suits `wanted` best; among equals the first, which is the index's own preference.
fn choose<'a>(
    reference: &Reference,
    index: &'a Index,
    wanted: &Platform,
) -> Result<&'a Descriptor, EngineError> {
    let images = || index.manifests.iter().filter(|entry| media::is_manifest(&entry.media_type));
    let ranked = images().filter_map(|entry| {
        // An entry without a platform is for any; its config is looked at afterwards.
        let rank = entry.platform.as_ref().map_or(Some(u8::MAX), |offered| wanted.rank(offered))?;
        Some((rank, entry))
    });
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry).ok_or_else(|| {
        let mut offered: Vec<String> = images()
            .filter_map(|entry| entry.platform.as_ref())
            .map(ToString::to_string)
            .filter(|platform| platform != "unknown/unknown")
            .collect();
        offered.dedup();
        no_platform(
            reference,
            wanted,
            if offered.is_empty() { "none".to_owned() } else { offered.join(", ") },
        )
    })
}

fn no_platform(reference: &Reference, wanted: &Platform, offered: String) -> EngineError {
    EngineError::NoPlatform { reference: reference.to_string(), wanted: wanted.to_string(), offered }
}

fn compressions(reference: &Reference, manifest: &Manifest) -> Result<Vec<Compression>, EngineError> {
    let compression = |layer: &Descriptor| {
        let refuse = |hint| EngineError::LayerType {
            reference: reference.to_string(),
            digest: layer.digest,
            media_type: layer.media_type.chars().take(128).collect(),
            hint,
        };
        match media::layer_kind(&layer.media_type) {
            LayerKind::Tar(compression) => Ok(compression),
            LayerKind::Encrypted => Err(refuse(": it is encrypted, and decryption is not built yet")),
            LayerKind::Foreign => Err(refuse(": this is an artifact, not an image that can run")),
        }
    };
    manifest.layers.iter().map(compression).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage_model::Digest;

    fn entry(name: &str, platform: Option<&str>) -> Descriptor {
        let mut entry = Descriptor::new(media::OCI_MANIFEST, Digest::of(name.as_bytes()), 1);
        entry.platform = platform.map(|text| text.parse().unwrap());
        entry
    }

    fn index(entries: &[Descriptor]) -> Index {
        Index { manifests: entries.to_vec(), annotations: Default::default() }
    }

    fn chosen(entries: &[Descriptor], wanted: &str) -> Result<Digest, EngineError> {
        let reference = "localhost/image".parse().unwrap();
        choose(&reference, &index(entries), &wanted.parse().unwrap()).map(|entry| entry.digest)
    }

    #[test]
    fn the_exact_platform_is_chosen_before_a_lower_variant_and_an_unmarked_entry() {
        let entries = [
            entry("any", None),
            entry("arm", Some("linux/arm64")),
            entry("v1", Some("linux/amd64")),
            entry("v3", Some("linux/amd64/v3")),
        ];
        assert_eq!(chosen(&entries, "linux/amd64").unwrap(), Digest::of(b"v1"));
        assert_eq!(chosen(&entries, "linux/amd64/v3").unwrap(), Digest::of(b"v3"));
        assert_eq!(chosen(&entries, "linux/arm64").unwrap(), Digest::of(b"arm"));
        assert_eq!(chosen(&entries, "linux/riscv64").unwrap(), Digest::of(b"any"));
    }

    #[test]
    fn a_missing_platform_is_named_beside_those_there_are() {
        let entries = [entry("a", Some("linux/arm64")), entry("s", Some("unknown/unknown"))];
        let message = chosen(&entries, "linux/amd64").unwrap_err().to_string();
        assert!(message.contains("linux/amd64") && message.contains("it has linux/arm64"), "{message}");
        assert!(!message.contains("unknown"), "{message}");
    }
}
