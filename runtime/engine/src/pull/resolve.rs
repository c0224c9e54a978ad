//! From a reference to what is to be brought: indexes, manifests, configs, and which layers are unpacked.
//!
//! The tag is read once; everything after is named by digest. Of an index those manifests are read that are wanted; the
//! others stay with the registry, and the index is kept whole, so that its digest stays what it was.

use std::collections::{BTreeMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use storage_model::{
    Descriptor, Digest, Document, Index, Labels, Manifest, Platform, Reference, limits, media,
};
use storage_registry::Client;

use crate::image::contents::{choose, no_platform};
use crate::image::documents::{keeps, keeps_snapshot, parse};
use crate::layers::{PlatformImage, compressions, source_label};
use crate::lazy::Ways;
use crate::{EngineError, ImageError};

/// Deepest an index may lie inside others.
const INDEX_DEPTH_MAX: usize = 4;
/// Most documents that one pull reads: the largest multi-platform images have some 50.
const DOCUMENTS_MAX: usize = 4096;

/// Which images of an index are brought, and whether they are unpacked.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pub(crate) wanted: Wanted,
    pub(crate) unpack: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    /// The best match for each of these.
    These(Vec<Platform>),
    /// All of them; those of this machine's platform are unpacked.
    All {
        /// Whether what is being looked at is for this machine.
        host: bool,
    },
}

/// A document to store.
struct Stored {
    descriptor: Descriptor,
    bytes: Bytes,
    /// The labels that keep what it points to.
    labels: Labels,
    /// Whose tree it is, when it is a config whose layers are unpacked.
    image: Option<Arc<PlatformImage>>,
}

/// What one pull brings, read but for its layers.
pub(crate) struct Target {
    /// What the name will stand for: the index if there is one, else the manifest.
    pub(crate) top: Descriptor,
    /// Every document read on the way, each after what it points to.
    documents: Vec<Stored>,
    /// Images to unpack.
    pub(crate) images: Vec<Arc<PlatformImage>>,
    /// The manifests of `images`, by the digest of their config.
    manifests: BTreeMap<Digest, Descriptor>,
    /// Layers to fetch only.
    pub(crate) content: Vec<Descriptor>,
    /// Platform of the first image, as far as one was looked at.
    pub(crate) platform: Platform,
}

/// Reads what `reference` stands for, as far as `selection` wants it.
pub(crate) async fn target(
    client: &Client,
    reference: &Reference,
    selection: &Selection,
) -> Result<Target, EngineError> {
    let resolved = client.resolve(reference).await?;
    let top = resolved.descriptor;
    let bytes = match resolved.bytes {
        Some(bytes) => bytes,
        None => client.manifest(reference, &top).await?,
    };
    let mut walk = Walk {
        client,
        reference,
        name: reference.to_string(),
        unpack: selection.unpack,
        target: Target {
            top: top.clone(),
            documents: Vec::new(),
            images: Vec::new(),
            manifests: BTreeMap::new(),
            content: Vec::new(),
            platform: Platform::host(),
        },
        seen: HashSet::new(),
        platform: None,
    };
    walk.visit(top, bytes, selection.wanted.clone(), 0).await?;
    let platform = walk.platform.take();
    let mut target = walk.target;
    target.platform = platform.unwrap_or(target.platform);
    Ok(target)
}

impl Target {
    /// Bytes of the documents read.
    pub(crate) fn document_bytes(&self) -> u64 {
        self.documents.iter().map(|stored| stored.bytes.len() as u64).sum()
    }

    /// The manifest of one of its images.
    pub(crate) fn manifest_of(&self, image: &PlatformImage) -> Option<&Descriptor> {
        self.manifests.get(&image.manifest.config.digest)
    }

    /// The documents to store, each with its labels, what is pointed to first. `ways` says how each image is brought.
    pub(crate) fn documents(&self, reference: &Reference, ways: &Ways) -> Vec<(Descriptor, Bytes, Labels)> {
        let with_labels = |stored: &Stored| {
            let mut labels = stored.labels.clone();
            labels.extend(source_label(&Labels::new(), reference));
            let chain = stored.image.as_ref().and_then(|image| image.chain());
            labels.extend(
                chain.map(|chain| keeps_snapshot(ways.snapshotter(&stored.descriptor.digest), &chain)),
            );
            ways.label(&stored.descriptor.digest, &mut labels);
            (stored.descriptor.clone(), stored.bytes.clone(), labels)
        };
        self.documents.iter().map(with_labels).collect()
    }

    /// How many documents were read, each after an answer to the one before.
    pub(crate) fn answers(&self) -> u32 {
        u32::try_from(self.documents.len()).unwrap_or(u32::MAX - 1)
    }

    /// Every layer, in the order in which it is brought.
    pub(crate) fn layers(&self) -> Vec<Descriptor> {
        let unpacked = self.images.iter().flat_map(|image| image.manifest.layers.iter());
        unpacked.chain(&self.content).cloned().collect()
    }
}

struct Walk<'a> {
    client: &'a Client,
    reference: &'a Reference,
    name: String,
    unpack: bool,
    target: Target,
    seen: HashSet<storage_model::Digest>,
    platform: Option<Platform>,
}

impl<'a> Walk<'a> {
    /// Reads a manifest or index and what is wanted below it.
    fn visit<'b>(
        &'b mut self,
        descriptor: Descriptor,
        bytes: Bytes,
        wanted: Wanted,
        depth: usize,
    ) -> Pin<Box<dyn Future<Output = Result<(), EngineError>> + Send + 'b>>
    where
        'a: 'b,
    {
        Box::pin(async move {
            if depth > INDEX_DEPTH_MAX || self.target.documents.len() > DOCUMENTS_MAX {
                return Err(ImageError::TooDeep { name: self.name.clone(), digest: descriptor.digest }.into());
            }
            let document = parse(&self.name, &descriptor, &bytes)?;
            let labels = keeps(&document, |_| true);
            match document {
                Document::Manifest(manifest) => {
                    self.target.manifests.insert(manifest.config.digest, descriptor.clone());
                    self.manifest(manifest, &wanted).await?;
                }
                Document::Index(index) => {
                    for (child, wanted) in self.children(&index, &wanted)? {
                        if self.seen.insert(child.digest) {
                            let bytes = self.client.manifest(self.reference, &child).await?;
                            self.visit(child, bytes, wanted, depth + 1).await?;
                        }
                    }
                }
            }
            self.target.documents.push(Stored { descriptor, bytes, labels, image: None });
            Ok(())
        })
    }

    /// Which entries of an index are read, and what is wanted of each.
    fn children(&self, index: &Index, wanted: &Wanted) -> Result<Vec<(Descriptor, Wanted)>, EngineError> {
        let mut chosen: BTreeMap<usize, Wanted> = BTreeMap::new();
        match wanted {
            Wanted::These(platforms) => {
                for platform in platforms {
                    let number = choose(&self.name, index, platform)?;
                    match chosen.entry(number).or_insert(Wanted::These(Vec::new())) {
                        Wanted::These(wanted) => wanted.push(platform.clone()),
                        Wanted::All { .. } => {}
                    }
                }
            }
            Wanted::All { .. } => {
                let host = choose(&self.name, index, &Platform::host()).ok();
                for (number, entry) in index.manifests.iter().enumerate() {
                    if media::is_manifest(&entry.media_type) || media::is_index(&entry.media_type) {
                        chosen.insert(number, Wanted::All { host: host == Some(number) });
                    }
                }
            }
        }
        Ok(chosen.into_iter().map(|(number, wanted)| (index.manifests[number].clone(), wanted)).collect())
    }

    /// Reads a manifest's config, and notes its layers: to be unpacked, or only to be fetched.
    async fn manifest(&mut self, manifest: Box<Manifest>, wanted: &Wanted) -> Result<(), EngineError> {
        let is_image = media::is_config(&manifest.config.media_type);
        let unpack = self.unpack
            && match wanted {
                Wanted::These(_) => true,
                Wanted::All { host } => *host && is_image,
            };
        if unpack {
            // Known before anything more is fetched.
            compressions(&self.name, &manifest)?;
        }
        let config = manifest.config.clone();
        if !unpack && config.size > limits::CONFIG_BYTES_MAX {
            // An artifact's config may be anything.
            self.target.content.push(config);
            self.target.content.extend(manifest.layers);
            return Ok(());
        }
        let bytes = self.client.small_blob(self.reference, &config, limits::CONFIG_BYTES_MAX).await?;
        let mut image = None;
        if unpack || (is_image && matches!(wanted, Wanted::These(_))) {
            let found = if unpack {
                let found = Arc::new(PlatformImage::read(&self.name, manifest.clone(), &bytes)?);
                image = Some(found.clone());
                found.config.platform()
            } else {
                self.config(&manifest, &bytes)?.platform()
            };
            if let Wanted::These(platforms) = wanted
                && let Some(refused) = platforms.iter().find(|platform| platform.rank(&found).is_none())
            {
                return Err(no_platform(&self.name, refused, found.to_string()));
            }
            self.platform.get_or_insert(found);
        }
        match &image {
            Some(image) => self.target.images.push(image.clone()),
            None => self.target.content.extend(manifest.layers),
        }
        self.target.documents.push(Stored { descriptor: config, bytes, labels: Labels::new(), image });
        Ok(())
    }

    fn config(&self, manifest: &Manifest, bytes: &[u8]) -> Result<storage_model::ImageConfig, EngineError> {
        storage_model::ImageConfig::parse(bytes, manifest.layers.len()).map_err(|source| {
            EngineError::Config { reference: self.name.clone(), digest: manifest.config.digest, source }
        })
    }
}

impl Selection {
    /// From what a request says. Without any platform it is this machine's.
    ///
    /// # Errors
    /// [`EngineError::Platform`] for what is no platform.
    pub(crate) fn new(request: &super::PullRequest) -> Result<Self, EngineError> {
        let named = std::iter::once(&request.platform).chain(&request.platforms);
        let mut platforms: Vec<Platform> =
            named.filter(|text| !text.is_empty()).map(|text| text.parse()).collect::<Result<_, _>>()?;
        if platforms.is_empty() {
            platforms.push(Platform::host());
        }
        let wanted = if request.all_platforms {
            // A manifest without an index is for this machine, as far as it says nothing else.
            Wanted::All { host: true }
        } else {
            Wanted::These(platforms)
        };
        Ok(Self { wanted, unpack: !request.no_unpack })
    }
}
