//! All that can be seen of an engine's root, read completely and compared with what was seen elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use runtime_engine::Engine;
use storage_content::{Expected, SnapshotKind};
use storage_model::{Digest, Labels};
use tests::{Node, difference, read_tree};

use crate::step::namespace;

/// Snapshotters whose tables are looked at.
const SNAPSHOTTERS: [&str; 1] = ["overlayfs"];

/// See [`Seen::without_notes`].
const NOTES: [&str; 2] = ["containerd.io/distribution.source.", "containerd.io/uncompressed"];

/// End of a line that is not to be said.
const UNSAID: &str = "other labels, which nobody promised";

/// How the names of repositories begin that a push goes to.
pub(crate) const PUSHED: &str = "pushed-";

/// Everything there is in the namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) images: BTreeMap<String, (Digest, Labels)>,
    /// Every one read and verified.
    pub(crate) blobs: BTreeMap<Digest, Labels>,
    /// By snapshotter and key.
    pub(crate) snapshots: BTreeMap<(String, String), Snapshot>,
}

/// One snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    kind: SnapshotKind,
    parent: Option<String>,
    labels: Labels,
    /// Its own files; of one that is not committed nothing is promised.
    tree: BTreeMap<PathBuf, Node>,
}

impl Seen {
    /// Reads what the engine shows. Blobs are read to the end and must be what their digest says.
    pub(crate) fn of(engine: &Engine) -> Result<Self> {
        let space = engine.store().space(&namespace());
        let mut seen = Self::default();
        for image in space.images()? {
            seen.images.insert(image.name, (image.target.digest, image.labels));
        }
        let mut found = Vec::new();
        space.blobs(&mut |blob| {
            found.push((blob.digest, blob.labels));
            ControlFlow::Continue(())
        })?;
        for (digest, labels) in found {
            let mut bytes = Vec::new();
            space.open_blob(&digest)?.read_to_end(&mut bytes)?;
            ensure!(Digest::of(&bytes) == digest, "blob {digest} holds {} other bytes", bytes.len());
            seen.blobs.insert(digest, without_pushes(labels));
        }
        for name in SNAPSHOTTERS {
            let mut found = Vec::new();
            space.snapshots(name).walk(&mut |record| {
                found.push(record);
                ControlFlow::Continue(())
            })?;
            for record in found {
                let files = engine.store().root().join(format!("snapshots/{}/fs", record.number));
                let tree = match record.kind {
                    SnapshotKind::Committed => layer(&files)
                        .with_context(|| format!("committed snapshot {:?} {}", record.key, record.number))?,
                    _ => BTreeMap::new(),
                };
                let snapshot =
                    Snapshot { kind: record.kind, parent: record.parent, labels: record.labels, tree };
                seen.snapshots.insert((name.to_owned(), record.key), snapshot);
            }
        }
        Ok(seen)
    }

    /// The same without the labels that note in passing where a blob came from and what it unpacks to: a step that is cut
    /// short may have noted it, and no promise hangs on it.
    pub(crate) fn without_notes(&self) -> Self {
        let mut plain = self.clone();
        for labels in plain.blobs.values_mut() {
            labels.retain(|key, _| !NOTES.iter().any(|note| key.starts_with(note)));
        }
        plain
    }

    /// What is wrong if this is to equal `expected`; empty when nothing is.
    pub(crate) fn differs_from(&self, expected: &Self) -> String {
        let mut lines = Vec::new();
        compare("image", &expected.images, &self.images, &mut lines, |one, other| {
            format!("{one:?} not {other:?}")
        });
        compare("blob", &expected.blobs, &self.blobs, &mut lines, |one, other| {
            format!("{one:?} not {other:?}")
        });
        compare("snapshot", &expected.snapshots, &self.snapshots, &mut lines, Snapshot::difference);
        lines.truncate(12);
        lines.join("; ")
    }

    /// What is to be seen here and in none of `possible`: the half-made. Blobs are whole (they were read), and a snapshot
    /// that is not committed is no promise, so neither counts.
    pub(crate) fn beyond(&self, possible: &[&Self]) -> String {
        let mut lines = Vec::new();
        for (name, image) in &self.images {
            if !possible.iter().any(|seen| seen.images.get(name) == Some(image)) {
                lines.push(format!("image {name} is {image:?}"));
            }
        }
        for (name, snapshot) in &self.snapshots {
            let known = || possible.iter().filter_map(|seen| seen.snapshots.get(name)).collect::<Vec<_>>();
            if snapshot.kind == SnapshotKind::Committed && !known().contains(&snapshot) {
                let against =
                    known().first().map_or("unknown".to_owned(), |other| other.difference(snapshot));
                lines.push(format!("snapshot {name:?}: {against}"));
            }
        }
        lines.truncate(12);
        lines.join("; ")
    }

    /// What of `this` is not here, wholly. Labels of blobs are promised only with `labels`.
    pub(crate) fn lacks(&self, this: &Self, labels: bool) -> String {
        let mut lines = Vec::new();
        let only_missing = |lines: &mut Vec<String>, all: Vec<String>| {
            lines.extend(all.into_iter().filter(|line| !line.ends_with("should not be here")));
        };
        let mut all = Vec::new();
        compare("image", &this.images, &self.images, &mut all, |one, other| format!("{one:?} not {other:?}"));
        let labelled = |one: &Labels, other: &Labels| match labels {
            true => format!("{other:?} not {one:?}"),
            false => UNSAID.to_owned(),
        };
        compare("blob", &this.blobs, &self.blobs, &mut all, labelled);
        all.retain(|line| !line.ends_with(UNSAID));
        compare("snapshot", &this.snapshots, &self.snapshots, &mut all, Snapshot::difference);
        only_missing(&mut lines, all);
        lines.truncate(12);
        lines.join("; ")
    }
}

impl Snapshot {
    /// What is found in `found` that is otherwise here.
    fn difference(&self, found: &Self) -> String {
        let trees = difference(&self.tree, &found.tree);
        let record = |snapshot: &Self| (snapshot.kind, snapshot.parent.clone(), snapshot.labels.clone());
        if record(self) == record(found) {
            trees
        } else {
            format!("{:?} not {:?} {trees}", record(found), record(self))
        }
    }
}

/// Without the repositories that [`Step::Push`](crate::step::Step::Push) makes up, which are others each time.
fn without_pushes(mut labels: Labels) -> Labels {
    for (_, places) in labels.iter_mut().filter(|(key, _)| key.starts_with(NOTES[0])) {
        let kept: Vec<_> = places.split(',').filter(|place| !place.starts_with(PUSHED)).collect();
        *places = kept.join(",");
    }
    labels
}

/// The files of one layer. A deletion is made when the layer is unpacked, so its time is that of unpacking.
fn layer(files: &Path) -> Result<BTreeMap<PathBuf, Node>> {
    let mut tree = read_tree(files)?;
    for node in tree.values_mut().filter(|node| node.kind == "character") {
        node.mtime = (0, 0);
    }
    Ok(tree)
}

fn compare<K: std::fmt::Debug + Ord, V: PartialEq>(
    what: &str,
    expected: &BTreeMap<K, V>,
    found: &BTreeMap<K, V>,
    lines: &mut Vec<String>,
    describe: impl Fn(&V, &V) -> String,
) {
    for (key, value) in expected {
        match found.get(key) {
            None => lines.push(format!("{what} {key:?} is missing")),
            Some(other) if other != value => {
                lines.push(format!("{what} {key:?}: {}", describe(value, other)))
            }
            Some(_) => {}
        }
    }
    let extra = found.keys().filter(|key| !expected.contains_key(key));
    lines.extend(extra.map(|key| format!("{what} {key:?} should not be here")));
}

/// Asks for the mounts of every snapshot that can be mounted. Of one that was prepared the record is a promise, and its
/// directory is made again if a power cut took it: nothing was in it yet.
pub(crate) fn ask_for_mounts(engine: &Engine, seen: &Seen) -> Result<()> {
    for ((snapshotter, key), snapshot) in &seen.snapshots {
        if snapshot.kind != SnapshotKind::Committed {
            let snapshotter = engine.snapshotter(snapshotter, engine.store().space(&namespace()))?;
            snapshotter.mounts(&key.parse()?).with_context(|| format!("the mounts of {key}"))?;
        }
    }
    Ok(())
}

/// Aborts what an interrupted step left to be resumed. Every one must be such that it can be taken up.
pub(crate) fn abort_ingests(engine: &Engine) -> Result<()> {
    let space = engine.store().space(&namespace());
    for ingest in space.ingests()? {
        space.ingest(&ingest.reference, Expected::default())?.abort()?;
    }
    Ok(())
}

/// What lies in the root's directories and belongs to nothing; after a collection that is a leak.
pub(crate) fn leaks(engine: &Engine) -> Result<String> {
    let (store, space) = (engine.store(), engine.store().space(&namespace()));
    let mut lines = Vec::new();
    let mut expect = |place: &str, expected: BTreeSet<String>| -> Result<()> {
        let found = names(&store.root().join(place))?;
        if found != expected {
            lines.push(format!("{place} holds {found:?} where {expected:?} is recorded"));
        }
        Ok(())
    };
    let mut blobs = BTreeSet::new();
    space.blobs(&mut |blob| {
        blobs.insert(blob.digest.hex());
        ControlFlow::Continue(())
    })?;
    expect("blobs/sha256", blobs)?;
    let mut numbers = BTreeSet::new();
    for name in SNAPSHOTTERS {
        space.snapshots(name).walk(&mut |record| {
            numbers.insert(record.number.to_string());
            ControlFlow::Continue(())
        })?;
    }
    expect("snapshots", numbers)?;
    expect("trash", BTreeSet::new())?;
    expect("ingests", BTreeSet::new())?;
    let leases = space.leases()?;
    if !leases.is_empty() {
        lines.push(format!("leases {leases:?}"));
    }
    let mounts = tests::Engine::mounts_below(store.root());
    if mounts.iter().any(|mount| mount != store.root()) {
        lines.push(format!("mounts {mounts:?}"));
    }
    Ok(lines.join("; "))
}

fn names(directory: &Path) -> Result<BTreeSet<String>> {
    let entries = directory.read_dir().with_context(|| directory.display().to_string())?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}
