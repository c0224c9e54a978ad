//! Gives blobs whose records are lost new ones.
//!
//! A file that no namespace has a record of belongs to the namespace that refers to it: by an image, a lease, a label, or a
//! manifest reached from these. It counts after its bytes were hashed. One that several namespaces refer to, or none,
//! stays without a record: who may see it is not for us to guess. It stays until the next collection, so that whoever
//! fetches it before finds the bytes here.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::ops::ControlFlow;

use storage_model::{
    Descriptor, Digest, Document, Hasher, Labels, Namespace, RootFs, chain_ids, limits, media,
};

use super::Changes;
use crate::StoreError;
use crate::blob::{self, BlobRecord};
use crate::image::ImageRecord;
use crate::layout::Layout;
use crate::lease::{self, ResourceKind};
use crate::metadata::{Metadata, key};
use crate::snapshot;

/// Gives every lost blob that one namespace refers to a record there.
pub(super) fn run(metadata: &Metadata, layout: &Layout) -> Result<u64, StoreError> {
    let mut search = Search::new(metadata, layout)?;
    search.references(metadata)?;
    search.follow();
    let snapshots = Snapshots::read(metadata)?;
    let mut changes = Changes::new(metadata);
    for (digest, lost) in search.lost {
        let [namespace] = Vec::from_iter(&lost.namespaces)[..] else { continue };
        let path = layout.blob(&digest);
        match hash(&path) {
            Ok((actual, size)) if actual == digest => {
                let labels = labels_of(&lost, &path, size, namespace, &snapshots);
                tracing::warn!(%digest, %namespace, "the record of a blob was lost; it has a new one");
                changes.put(key::blob(namespace, &digest), &BlobRecord::new(size, labels));
            }
            _ => tracing::error!(%digest, "a blob lost its record, and its file is damaged"),
        }
    }
    changes.apply()
}

/// A file without a record, and what refers to it.
#[derive(Default)]
struct Lost {
    namespaces: BTreeSet<Namespace>,
    media_type: Option<String>,
}

struct Search<'a> {
    layout: &'a Layout,
    /// Blobs that some namespace has a record of.
    recorded: HashSet<Digest>,
    lost: HashMap<Digest, Lost>,
    /// References to be followed.
    open: Vec<(Namespace, Digest, Option<String>)>,
    followed: HashSet<(Namespace, Digest, bool)>,
}

impl<'a> Search<'a> {
    fn new(metadata: &Metadata, layout: &'a Layout) -> Result<Self, StoreError> {
        let (mut recorded, mut open) = (HashSet::new(), Vec::new());
        blob::walk(metadata, &[], |namespace, digest, record| {
            recorded.insert(digest);
            let named =
                record.labels.iter().filter(|(key, _)| key.starts_with("containerd.io/gc.ref.content"));
            let named = named.filter_map(|(_, value)| value.parse().ok());
            open.extend(named.map(|child| (namespace.clone(), child, None)));
            ControlFlow::Continue(())
        })?;
        Ok(Self { layout, recorded, lost: HashMap::new(), open, followed: HashSet::new() })
    }

    fn references(&mut self, metadata: &Metadata) -> Result<(), StoreError> {
        metadata.walk(&[], |row, image: ImageRecord| {
            if let Some((namespace, _)) = key::split_namespace(row) {
                self.open.push((namespace, image.target.digest, Some(image.target.media_type)));
            }
            ControlFlow::Continue(())
        })?;
        lease::walk_resources(metadata, &[], |namespace, _, resource| {
            if let (ResourceKind::Content, Ok(digest)) = (&resource.kind, resource.id.parse()) {
                self.open.push((namespace, digest, None));
            }
        })
    }

    fn follow(&mut self) {
        while let Some((namespace, digest, media_type)) = self.open.pop() {
            if !self.followed.insert((namespace.clone(), digest, media_type.is_some())) {
                continue;
            }
            if !self.recorded.contains(&digest) {
                if !self.layout.blob(&digest).is_file() {
                    continue;
                }
                let lost = self.lost.entry(digest).or_default();
                lost.namespaces.insert(namespace.clone());
                lost.media_type = lost.media_type.take().or_else(|| media_type.clone());
            }
            let Some(media_type) = media_type else { continue };
            for child in children(self.layout, &digest, &media_type) {
                self.open.push((namespace.clone(), child.digest, Some(child.media_type)));
            }
        }
    }
}

/// What a document refers to; nothing if it is none or cannot be read.
fn children(layout: &Layout, digest: &Digest, media_type: &str) -> Vec<Descriptor> {
    if !media::is_index(media_type) && !media::is_manifest(media_type) {
        return Vec::new();
    }
    let document = read(&layout.blob(digest)).filter(|bytes| Digest::of(bytes) == *digest);
    let document = document.and_then(|bytes| Document::parse(media_type, &bytes).ok());
    document.map_or_else(Vec::new, |document| document.children().into_iter().cloned().collect())
}

/// The labels that a pull gives a blob of this type, as containerd's client does: what it refers to is kept.
fn labels_of(
    lost: &Lost,
    path: &std::path::Path,
    size: u64,
    namespace: &Namespace,
    snapshots: &Snapshots,
) -> Labels {
    let mut labels = Labels::new();
    let Some(media_type) = lost.media_type.as_deref().filter(|_| size <= limits::MANIFEST_BYTES_MAX) else {
        return labels;
    };
    let Some(bytes) = read(path) else { return labels };
    let mut refer =
        |name: String, value: String| labels.insert(format!("containerd.io/gc.ref.{name}"), value);
    match Document::parse(media_type, &bytes) {
        Ok(Document::Manifest(manifest)) => {
            refer("content.config".to_owned(), manifest.config.digest.to_string());
            for (at, layer) in manifest.layers.iter().enumerate() {
                refer(format!("content.l.{at}"), layer.digest.to_string());
            }
        }
        Ok(Document::Index(index)) => {
            for (at, manifest) in index.manifests.iter().enumerate() {
                refer(format!("content.m.{at}"), manifest.digest.to_string());
            }
        }
        Err(_) if media::is_config(media_type) => {
            for (snapshotter, name) in snapshots.tops_of(namespace, &bytes) {
                refer(format!("snapshot.{snapshotter}"), name);
            }
        }
        Err(_) => {}
    }
    labels
}

/// What is read of an image's config here.
#[derive(serde::Deserialize)]
struct Config {
    rootfs: RootFs,
}

/// Committed snapshots by namespace and name.
struct Snapshots(HashMap<(Namespace, String), Vec<String>>);

impl Snapshots {
    fn read(metadata: &Metadata) -> Result<Self, StoreError> {
        let mut found: HashMap<_, Vec<String>> = HashMap::new();
        snapshot::walk_all(metadata, |namespace, snapshotter, record| {
            found.entry((namespace, record.key)).or_default().push(snapshotter.to_owned());
            ControlFlow::Continue(())
        })?;
        Ok(Self(found))
    }

    /// The snapshots that are the whole tree of a config's image: snapshotter and name.
    fn tops_of(&self, namespace: &Namespace, config: &[u8]) -> Vec<(String, String)> {
        let Ok(config) = serde_json::from_slice::<Config>(config) else { return Vec::new() };
        let Some(top) = chain_ids(&config.rootfs.diff_ids).pop() else { return Vec::new() };
        let place = (namespace.clone(), top.to_string());
        let snapshotters = self.0.get(&place).into_iter().flatten();
        snapshotters.map(|snapshotter| (snapshotter.clone(), place.1.clone())).collect()
    }
}

/// The bytes of a document; none if it is too large to be one, or cannot be read.
fn read(path: &std::path::Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(limits::MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= limits::MANIFEST_BYTES_MAX).then_some(bytes)
}

fn hash(path: &std::path::Path) -> std::io::Result<(Digest, u64)> {
    let mut file = File::open(path)?;
    let (mut hasher, mut buffer) = (Hasher::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    let size = hasher.bytes();
    Ok((hasher.finish(), size))
}
