//! What the tests share: a store in a temporary directory, and short words for frequent steps.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::SystemTime;

use storage_content::{ContainerRecord, Expected, Space, Store, StoreError};
use storage_model::{Descriptor, Digest, Labels};

/// A store in a directory that goes with it.
pub(crate) struct Fixture {
    pub(crate) store: Store,
    directory: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { store: Store::open(directory.path()).unwrap(), directory }
    }

    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn space(&self) -> Space {
        self.store.space(&"default".parse().unwrap())
    }

    /// The same directory, closed, changed by `change`, and opened again.
    pub(crate) fn reopened(self, change: impl FnOnce(&Path)) -> Self {
        let Self { store, directory } = self;
        drop(store);
        change(directory.path());
        Self { store: open_again(directory.path()), directory }
    }

    /// The directory alone, with nobody holding the store.
    pub(crate) fn closed(self) -> tempfile::TempDir {
        drop(self.store);
        self.directory
    }

    pub(crate) fn blob_file(&self, digest: &Digest) -> std::path::PathBuf {
        self.root().join("blobs/sha256").join(digest.hex())
    }
}

/// Opens a store that was closed a moment ago. A test beside this one that starts a process holds everything that is open
/// here, locks included, until that process has begun.
pub(crate) fn open_again(root: &Path) -> Store {
    for _ in 0..500 {
        match Store::open(root) {
            Err(StoreError::InUse { .. }) => std::thread::sleep(std::time::Duration::from_millis(10)),
            outcome => {
                return outcome.unwrap_or_else(|error| {
                    panic!("{}: {error}: {:?}", root.display(), std::error::Error::source(&error))
                });
            }
        }
    }
    panic!("{} stays in use", root.display())
}

/// Brings `bytes` in as a blob.
pub(crate) fn put(space: &Space, bytes: &[u8]) -> Digest {
    put_labelled(space, bytes, Labels::new())
}

pub(crate) fn put_labelled(space: &Space, bytes: &[u8], labels: Labels) -> Digest {
    let digest = Digest::of(bytes);
    let mut ingest = space.ingest(&format!("put-{digest}"), Expected::default()).unwrap();
    ingest.write(bytes).unwrap();
    ingest.commit(Expected::exactly(digest, bytes.len() as u64), labels).unwrap()
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn descriptor(digest: Digest) -> Descriptor {
    Descriptor::new("application/vnd.oci.image.manifest.v1+json", digest, 1)
}

/// A container.
pub(crate) fn container(id: &str, snapshot_key: &str) -> ContainerRecord {
    ContainerRecord {
        id: id.parse().unwrap(),
        image: String::new(),
        snapshotter: "overlayfs".into(),
        snapshot_key: snapshot_key.into(),
        runtime: String::new(),
        spec: Vec::new(),
        labels: Labels::new(),
        extensions: BTreeMap::new(),
        created: SystemTime::now(),
        updated: SystemTime::now(),
    }
}

/// Makes every ingest of a closed store older.
pub(crate) fn age_ingests(root: &Path, by: std::time::Duration) {
    for directory in names(&root.join("ingests")) {
        let path = root.join("ingests").join(directory).join("info");
        let mut info: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let started = info["started"].as_i64().unwrap();
        info["started"] = (started - i64::try_from(by.as_nanos()).unwrap()).into();
        std::fs::write(&path, info.to_string()).unwrap();
    }
}

/// The digests of a space, sorted.
pub(crate) fn digests(space: &Space) -> Vec<Digest> {
    let mut found = Vec::new();
    space
        .blobs(&mut |blob| {
            found.push(blob.digest);
            ControlFlow::Continue(())
        })
        .unwrap();
    found
}

/// Names in a directory, sorted.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = directory
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
