//! containerd's remote-snapshotter protocol: who prepares a snapshot to unpack a layer into may be told that it is there
//! already, if it can be shown without its bytes.
//!
//! ```text
//! Prepare(key, parent, labels: snapshot.ref = chain ID, image reference, layer digest)
//!   -> manifest and config of the image (once an image) -> is the layer its layer, the chain its chain?
//!   -> table of contents -> a committed snapshot called as the chain -> ALREADY_EXISTS: neither fetched nor unpacked
//! ```
//! Anything that does not fit is no error: the caller prepares an ordinary snapshot, and its client fetches and unpacks. So
//! an image may be lazy up to some layer and ordinary above it. Labels are hints of unknown origin: what is shown follows
//! from the manifest, whose digest is proved, and from its table-of-contents annotations (row L6).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lazy_fetch::describe::{self, Format, Want};
use lazy_snapshotter::Layer;
use snapshotters_contract::CommittedName;
use storage_content::{ErrorKind, Space};
use storage_model::{Descriptor, Digest, Document, Labels, ProtectionDomain, Reference, chain_ids, limits};

use super::plan::{vouched, words};
use super::publish;
use crate::image::contents::choose;
use crate::layers::PlatformImage;
use crate::pull::RegistryOptions;
use crate::work::blocking;
use crate::{Engine, EngineError};

/// The name a snapshot must have for its client to find it.
pub const SNAPSHOT_REF: &str = "containerd.io/snapshot.ref";

/// Where the layer is from: CRI's words, then stargz's.
const REFERENCE: [&str; 2] =
    ["containerd.io/snapshot/cri.image-ref", "containerd.io/snapshot/remote/stargz.reference"];
const LAYER: [&str; 2] =
    ["containerd.io/snapshot/cri.layer-digest", "containerd.io/snapshot/remote/stargz.digest"];
const MANIFEST: &str = "containerd.io/snapshot/cri.manifest-digest";

/// What a lazily made snapshot says of itself (stargz's label).
const REMOTE: (&str, &str) = ("containerd.io/snapshot/remote", "remote snapshot");

/// How long what a tag stands for is believed: a pull prepares its layers one after the other.
const BELIEVED: Duration = Duration::from_secs(60);

/// Images whose manifests are kept in memory.
const IMAGES_MAX: usize = 32;

/// A reference, and the manifest that is named with it.
type Asked = (String, Option<Digest>);

/// Manifests of images that a containerd is pulling.
#[derive(Debug, Default)]
pub(crate) struct Remotes {
    seen: Mutex<HashMap<Asked, (Instant, Arc<PlatformImage>)>>,
}

impl Remotes {
    fn get(&self, key: &Asked) -> Option<Arc<PlatformImage>> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (when, image) = seen.get(key)?;
        (when.elapsed() < BELIEVED).then(|| image.clone())
    }

    fn put(&self, key: (String, Option<Digest>), image: Arc<PlatformImage>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, (when, _)| when.elapsed() < BELIEVED);
        if seen.len() < IMAGES_MAX {
            seen.insert(key, (Instant::now(), image));
        }
    }
}

/// The first of `names` that is in `labels`.
fn label<'a>(labels: &'a Labels, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| labels.get(*name)).map(String::as_str)
}

impl Engine {
    /// Makes the snapshot that `labels` ask for out of a layer that is not here, if that can be; says whether it is there.
    /// `keep` are labels it gets besides.
    ///
    /// # Errors
    /// None that concern the registry or the image: those mean `false`, and are logged with their reason.
    pub async fn prepare_remote(
        &self,
        space: &Space,
        parent: Option<&CommittedName>,
        labels: &Labels,
        keep: Labels,
    ) -> Result<bool, EngineError> {
        let (Some(name), Some(reference), Some(layer)) =
            (labels.get(SNAPSHOT_REF), label(labels, &REFERENCE), label(labels, &LAYER))
        else {
            return Ok(false);
        };
        let made = self.make_remote(space, name, parent, reference, layer, labels, keep).await;
        match made {
            Ok(()) => Ok(true),
            Err(Refused::Because(why)) => {
                tracing::info!(%reference, %layer, why, "a layer is not lazy");
                Ok(false)
            }
            Err(Refused::Engine(error)) if error.kind() == ErrorKind::AlreadyExists => Ok(true),
            Err(Refused::Engine(error)) => {
                tracing::warn!(%reference, %layer, error = words(&error), "a layer is not lazy");
                Ok(false)
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one call, split off for its errors")]
    async fn make_remote(
        &self,
        space: &Space,
        name: &str,
        parent: Option<&CommittedName>,
        reference: &str,
        layer: &str,
        labels: &Labels,
        keep: Labels,
    ) -> Result<(), Refused> {
        let because = |why: &str| Refused::Because(why.to_owned());
        let reference: Reference = reference.parse().map_err(|_| because("its reference cannot be read"))?;
        let layer: Digest = layer.parse().map_err(|_| because("its digest cannot be read"))?;
        let manifest = labels.get(MANIFEST).and_then(|text| text.parse::<Digest>().ok());
        let options = RegistryOptions {
            docker_config: storage_registry::Config::default_docker_config(),
            ..RegistryOptions::default()
        };
        let image = self.remote_image(&reference, manifest, &options).await?;
        let index = place(&image, name, parent, &layer)
            .ok_or_else(|| because("it is not the layer of that name in the image its labels speak of"))?;
        let descriptor = image.manifest.layers[index].clone();
        let client = self.client(&options, |_| {})?;
        let described = describe::layer(&client, &reference, &descriptor, Want::default()).await;
        let described = described.map_err(|error| Refused::Because(words(&error)))?;
        if described.format == Format::Opaque {
            return Err(because("its manifest does not say how it can be read in pieces"));
        }
        let made = Layer {
            blob: descriptor.digest,
            blob_bytes: descriptor.size,
            diff_id: image.config.rootfs.diff_ids[index],
            toc: Digest::of(b""),
            proof: vouched(&descriptor),
            format: described.format.as_str().to_owned(),
            origins: vec![publish::origin(self, &reference, &options)],
            fill: true,
        };
        let (engine, space, parent) = (self.clone(), space.clone(), parent.cloned());
        let name: CommittedName = name.parse().map_err(EngineError::from)?;
        let mut all = labels.clone();
        all.extend(keep);
        all.insert(REMOTE.0.to_owned(), REMOTE.1.to_owned());
        let toc = described.toc;
        let add = move || Ok(engine.lazy().add_layer(&space, &name, parent.as_ref(), made, &toc, &all)?);
        Ok(blocking(add).await?)
    }

    /// The image that a layer belongs to: by the digest of its manifest if that is known, else by what its tag is now.
    async fn remote_image(
        &self,
        reference: &Reference,
        manifest: Option<Digest>,
        options: &RegistryOptions,
    ) -> Result<Arc<PlatformImage>, Refused> {
        let key = (reference.to_string(), manifest);
        if let Some(image) = self.remotes().get(&key) {
            return Ok(image);
        }
        let client = self.client(options, |_| {})?;
        let asked = match manifest {
            Some(digest) => reference.with_digest(digest),
            None => reference.clone(),
        };
        let mut asked_for = client.resolve(&asked).await.map_err(EngineError::from)?;
        let name = reference.to_string();
        // An index, and perhaps one in it.
        for _ in 0..2 {
            let descriptor = asked_for.descriptor.clone();
            let bytes = match asked_for.bytes.take() {
                Some(bytes) => bytes,
                None => client.manifest(reference, &descriptor).await.map_err(EngineError::from)?,
            };
            match crate::image::documents::parse(&name, &descriptor, &bytes)? {
                Document::Index(index) => {
                    let child = choose(&name, &index, &storage_model::Platform::host())?;
                    asked_for.descriptor = index.manifests[child].clone();
                }
                Document::Manifest(manifest) => {
                    let config =
                        client.small_blob(reference, &manifest.config, limits::CONFIG_BYTES_MAX).await;
                    let config = config.map_err(EngineError::from)?;
                    let image = Arc::new(PlatformImage::read(&name, manifest, &config)?);
                    self.remotes().put(key, image.clone());
                    return Ok(image);
                }
            }
        }
        Err(Refused::Because("its image is an index of indexes".to_owned()))
    }
}

/// Why a layer is left to its client.
enum Refused {
    Because(String),
    Engine(EngineError),
}

impl From<EngineError> for Refused {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

/// Which layer of `image` it is: its blob is `layer`, its chain `name`, and below it is `parent`.
fn place(image: &PlatformImage, name: &str, parent: Option<&CommittedName>, layer: &Digest) -> Option<usize> {
    let names: Vec<String> = chain_ids(&image.config.rootfs.diff_ids)
        .iter()
        .map(|chain| ProtectionDomain::Plain.snapshot_name(chain))
        .collect();
    let layers: &[Descriptor] = &image.manifest.layers;
    let index = names.iter().position(|known| known == name)?;
    let below = index.checked_sub(1).map(|below| names[below].as_str());
    (layers[index].digest == *layer && below == parent.map(CommittedName::as_str)).then_some(index)
}
