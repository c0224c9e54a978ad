//! Everything an image is made of, as a tree, and how much of it is here.
//!
//! An image of several platforms is usually here for one of them: what is absent is shown as absent, not as an error. Documents
//! are read once each, also when several images share them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use runtime_api::containerd::services::content::v1::ListContentRequest;
use storage_model::{
    ChainId, Descriptor, Digest, Document, ImageConfig, Manifest, Platform, chain_ids, limits, media,
};

use super::Image;
use super::document::document;
use crate::client::{Client, failed};
use crate::error::{CliError, DocumentError};

/// Indexes inside indexes that are followed; real ones have one inside another at most.
const DEPTH_MAX: usize = 4;

/// What content is here, and documents that have been read.
pub(crate) struct Stored {
    client: Client,
    sizes: HashMap<Digest, u64>,
    documents: HashMap<Digest, Arc<Vec<u8>>>,
}

impl Stored {
    /// Asks what content is here.
    ///
    /// # Errors
    /// The engine's.
    pub(crate) async fn ask(client: &Client) -> Result<Self, CliError> {
        let what = "list content";
        let request = ListContentRequest { filters: Vec::new() };
        let mut stream = client.content().list(request).await.map_err(failed(what))?.into_inner();
        let mut sizes = HashMap::new();
        while let Some(part) = stream.message().await.map_err(failed(what))? {
            let known = part.info.iter().filter_map(|info| Some((info.digest.parse().ok()?, info.size)));
            sizes.extend(known.map(|(digest, size)| (digest, u64::try_from(size).unwrap_or(0))));
        }
        Ok(Self { client: client.clone(), sizes, documents: HashMap::new() })
    }

    fn is_here(&self, digest: &Digest) -> bool {
        self.sizes.contains_key(digest)
    }

    /// A document, if it is here.
    async fn document(
        &mut self,
        descriptor: &Descriptor,
        name: &str,
    ) -> Result<Option<Arc<Vec<u8>>>, CliError> {
        let digest = descriptor.digest;
        if let Some(bytes) = self.documents.get(&digest) {
            return Ok(Some(bytes.clone()));
        }
        if !self.is_here(&digest) {
            return Ok(None);
        }
        let max = match media::is_config(&descriptor.media_type) {
            true => limits::CONFIG_BYTES_MAX,
            false => limits::MANIFEST_BYTES_MAX,
        };
        let what = format!("read image {name}");
        let bytes =
            document(&self.client, &digest, max).await.map_err(|error| error.into_cli(&what, name))?;
        let bytes = Arc::new(bytes);
        self.documents.insert(digest, bytes.clone());
        Ok(Some(bytes))
    }
}

/// What a node of the tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A list of manifests.
    Index,
    /// One image.
    Manifest,
    /// Its config.
    Config,
    /// One of its layers.
    Layer,
    /// Something else that is not followed: an attestation's statement, an artifact's part.
    Other,
}

/// Something an image is made of.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// What points to it.
    pub(crate) descriptor: Descriptor,
    /// What it is.
    pub(crate) kind: Kind,
    /// Whether its bytes are here.
    pub(crate) is_here: bool,
    /// Its own bytes, of an index, a manifest or a config that is here.
    pub(crate) document: Option<Arc<Vec<u8>>>,
    /// What it points to, if it is here.
    pub(crate) children: Vec<Node>,
    /// Of a manifest: the config, if it is here and one of an image.
    pub(crate) config: Option<ImageConfig>,
}

/// What there is of an image for one platform.
#[derive(Debug, Clone)]
pub(crate) struct Variant<'tree> {
    /// The platform; absent when neither index nor config tells it.
    pub(crate) platform: Option<Platform>,
    /// The manifest.
    pub(crate) manifest: &'tree Node,
}

impl Variant<'_> {
    /// Manifest, config and layers.
    fn parts(&self) -> impl Iterator<Item = &Node> {
        std::iter::once(self.manifest).chain(&self.manifest.children)
    }

    /// Things that are here, and things there have to be; 0 when the manifest itself is absent.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let here = self.parts().filter(|node| node.is_here).count();
        (here, if self.manifest.is_here { self.parts().count() } else { 0 })
    }

    /// Bytes of things that are here, and of things there have to be.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let sum = |nodes: &mut dyn Iterator<Item = &Node>| {
            nodes.map(|node| node.descriptor.size).fold(0, u64::saturating_add)
        };
        (sum(&mut self.parts().filter(|node| node.is_here)), sum(&mut self.parts()))
    }

    /// Whether everything is here.
    pub(crate) fn is_complete(&self) -> bool {
        self.parts().all(|node| node.is_here)
    }

    /// Digests of what is not here.
    pub(crate) fn missing(&self) -> Vec<Digest> {
        self.parts().filter(|node| !node.is_here).map(|node| node.descriptor.digest).collect()
    }

    /// Names of its snapshots when it is unpacked, lowest first; empty when its config is not here.
    pub(crate) fn chains(&self) -> Vec<ChainId> {
        self.manifest.config.as_ref().map_or_else(Vec::new, |config| chain_ids(&config.rootfs.diff_ids))
    }
}

/// Everything an image is made of.
#[derive(Debug, Clone)]
pub(crate) struct Contents {
    /// What its name stands for.
    pub(crate) root: Node,
}

impl Contents {
    /// Reads an image's tree.
    ///
    /// # Errors
    /// [`CliError::Document`] when a document is not what it should be; that one is absent is none.
    pub(crate) async fn read(stored: &mut Stored, image: &Image) -> Result<Self, CliError> {
        let root = node(stored, image.target.clone(), &image.name, 0).await?;
        Ok(Self { root })
    }

    /// What there is for each platform, in the order of the index. Attestations are for none.
    pub(crate) fn variants(&self) -> Vec<Variant<'_>> {
        let mut found = Vec::new();
        collect(&self.root, &mut found);
        found
    }

    /// The variant that suits `wanted` best, complete ones first.
    pub(crate) fn best(&self, wanted: &Platform) -> Option<Variant<'_>> {
        let mut variants = self.variants();
        variants
            .retain(|variant| variant.platform.as_ref().is_none_or(|offered| wanted.rank(offered).is_some()));
        let rank = |variant: &Variant<'_>| {
            let rank = variant.platform.as_ref().and_then(|offered| wanted.rank(offered)).unwrap_or(u8::MAX);
            (!variant.manifest.is_here, rank)
        };
        variants.into_iter().min_by_key(rank)
    }

    /// Size of what is here of it, each thing once, in bytes.
    pub(crate) fn size_here(&self) -> u64 {
        let mut seen = BTreeSet::new();
        let mut sum: u64 = 0;
        self.root.walk(&mut |node| {
            if node.is_here && seen.insert(node.descriptor.digest) {
                sum = sum.saturating_add(node.descriptor.size);
            }
        });
        sum
    }
}

impl Node {
    /// Calls `visit` for this and everything below it.
    pub(crate) fn walk<'tree>(&'tree self, visit: &mut impl FnMut(&'tree Self)) {
        visit(self);
        self.children.iter().for_each(|child| child.walk(visit));
    }

    /// The platform it is for, as its index or its config says; `unknown` ones are none.
    pub(crate) fn platform(&self) -> Option<Platform> {
        let told = self.descriptor.platform.clone();
        let own = || self.config.as_ref().map(ImageConfig::platform);
        told.or_else(own).filter(|platform| platform.os != "unknown" && !platform.os.is_empty())
    }
}

fn collect<'tree>(node: &'tree Node, found: &mut Vec<Variant<'tree>>) {
    match node.kind {
        Kind::Index => node.children.iter().for_each(|child| collect(child, found)),
        Kind::Manifest => {
            let is_attestation =
                node.descriptor.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
            if !is_attestation {
                found.push(Variant { platform: node.platform(), manifest: node });
            }
        }
        Kind::Config | Kind::Layer | Kind::Other => {}
    }
}

/// The tree below `descriptor`.
async fn node(
    stored: &mut Stored,
    descriptor: Descriptor,
    name: &str,
    depth: usize,
) -> Result<Node, CliError> {
    let kind = if media::is_index(&descriptor.media_type) {
        Kind::Index
    } else if media::is_manifest(&descriptor.media_type) {
        Kind::Manifest
    } else {
        Kind::Other
    };
    let is_here = stored.is_here(&descriptor.digest);
    let mut node = Node { descriptor, kind, is_here, document: None, children: Vec::new(), config: None };
    if kind == Kind::Other || depth > DEPTH_MAX {
        return Ok(node);
    }
    let Some(bytes) = stored.document(&node.descriptor, name).await? else { return Ok(node) };
    let wrong = |source: DocumentError| CliError::Document { name: name.to_owned(), source };
    let parsed =
        Document::parse(&node.descriptor.media_type, &bytes).map_err(|source| wrong(source.into()))?;
    node.document = Some(bytes);
    match parsed {
        Document::Index(index) => {
            node.kind = Kind::Index;
            for child in index.manifests {
                node.children.push(Box::pin(self::node(stored, child, name, depth + 1)).await?);
            }
        }
        Document::Manifest(manifest) => {
            node.kind = Kind::Manifest;
            manifest_parts(stored, &mut node, *manifest, name).await?;
        }
    }
    Ok(node)
}

async fn manifest_parts(
    stored: &mut Stored,
    node: &mut Node,
    manifest: Manifest,
    name: &str,
) -> Result<(), CliError> {
    let document = match media::is_config(&manifest.config.media_type) {
        true => stored.document(&manifest.config, name).await?,
        false => None,
    };
    if let Some(bytes) = &document {
        // An artifact may say that it has an image's config and not have one: it has no platform then.
        node.config = ImageConfig::parse(bytes, manifest.layers.len()).ok();
    }
    let leaf = |descriptor: Descriptor, kind: Kind, document| Node {
        is_here: stored.is_here(&descriptor.digest),
        descriptor,
        kind,
        document,
        children: Vec::new(),
        config: None,
    };
    node.children.push(leaf(manifest.config, Kind::Config, document));
    node.children.extend(manifest.layers.into_iter().map(|layer| leaf(layer, Kind::Layer, None)));
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A manifest for `platform` with one layer, here as `is_here` says.
    pub(crate) fn manifest(platform: Option<&str>, is_here: bool) -> Node {
        let leaf = |kind: Kind, bytes: &[u8], is_here: bool| Node {
            descriptor: Descriptor::of("text/plain", bytes),
            kind,
            is_here,
            document: None,
            children: Vec::new(),
            config: None,
        };
        let mut node = leaf(Kind::Manifest, platform.unwrap_or_default().as_bytes(), is_here);
        media::OCI_MANIFEST.clone_into(&mut node.descriptor.media_type);
        node.descriptor.platform = platform.map(|platform| {
            let (os, architecture) = platform.split_once('/').unwrap();
            Platform {
                os: os.into(),
                architecture: architecture.into(),
                variant: String::new(),
                os_version: String::new(),
            }
        });
        if is_here {
            node.children = vec![leaf(Kind::Config, b"config", true), leaf(Kind::Layer, b"layer", false)];
        }
        node
    }

    /// An index of such manifests.
    pub(crate) fn index(children: Vec<Node>) -> Contents {
        let descriptor = Descriptor::of(media::OCI_INDEX, b"index");
        Contents {
            root: Node {
                descriptor,
                kind: Kind::Index,
                is_here: true,
                document: None,
                children,
                config: None,
            },
        }
    }

    #[test]
    fn attestations_are_no_platforms_and_absent_manifests_are_told_apart() {
        let contents = index(vec![
            manifest(Some("linux/amd64"), true),
            manifest(Some("linux/arm64"), false),
            manifest(Some("unknown/unknown"), true),
        ]);
        let variants = contents.variants();
        let platforms: Vec<_> = variants
            .iter()
            .map(|variant| (variant.platform.clone().unwrap().to_string(), variant.counts()))
            .collect();
        assert_eq!(platforms, [("linux/amd64".to_owned(), (2, 3)), ("linux/arm64".to_owned(), (0, 0))]);
        assert!(!variants[0].is_complete());
        assert_eq!(variants[0].missing(), [Digest::of(b"layer")]);
    }

    #[test]
    fn what_is_in_it_twice_counts_once() {
        let contents = index(vec![manifest(Some("linux/amd64"), true), manifest(Some("linux/arm64"), true)]);
        // index 5, manifests 11 each, config 6; the layer is absent.
        assert_eq!(contents.size_here(), 5 + 11 + 11 + 6);
    }

    #[test]
    fn the_best_variant_is_one_that_is_here() {
        let contents = index(vec![manifest(Some("linux/amd64"), false), manifest(Some("linux/386"), true)]);
        let wanted: Platform = "linux/amd64".parse().unwrap();
        assert!(!contents.best(&wanted).unwrap().manifest.is_here);
        assert!(index(vec![manifest(Some("linux/s390x"), true)]).best(&wanted).is_none());
    }
}
