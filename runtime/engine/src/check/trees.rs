//! Unpacked trees, against what was recorded when they were unpacked; damaged entries are unpacked again from the layer.
//!
//! A layer is unpacked beside the damaged tree, into a snapshot of its own under a lease that ends with the engine, proved
//! by its diff ID, and only the damaged entries are moved over: a container that runs on the tree notices nothing.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use snapshotters_contract::{ActiveKey, CommittedName, LayerTarget, Snapshotter, Tree};
use storage_content::{EPHEMERAL_LABEL, ErrorKind, LeaseId, SnapshotKind};
use storage_layer::{TreeProblem, UnpackOptions, check_tree, repair_tree};
use storage_model::{Digest, Labels, Namespace};
use tokio::sync::mpsc::Sender;

use super::layers::StackedLayer;
use super::{CheckNews, CheckReport, CheckRequest, Found, Outcome, in_words};
use crate::work::blocking;
use crate::{Engine, EngineError};

/// Problems of one tree that are told; the others are counted.
const TOLD_MAX: usize = 8;

/// A committed snapshot whose tree can be checked.
struct Recorded {
    namespace: Namespace,
    snapshotter: Arc<dyn Snapshotter>,
    name: CommittedName,
    files: PathBuf,
    record: PathBuf,
}

/// What is wrong with one tree.
#[derive(Default)]
struct Damage {
    told: Vec<String>,
    count: usize,
}

impl Damage {
    fn add(&mut self, problem: String) {
        self.count += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(problem);
        }
    }

    fn in_words(&self) -> String {
        let more = self.count - self.told.len();
        let mut words = self.told.join("; ");
        if more > 0 {
            words.push_str(&format!("; and {more} more"));
        }
        words
    }
}

impl Engine {
    /// Checks every recorded tree, and repairs it when asked.
    pub(super) async fn check_trees(
        &self,
        request: &CheckRequest,
        stop: Arc<AtomicBool>,
        events: Sender<CheckNews>,
    ) -> Result<CheckReport, EngineError> {
        let (engine, request) = (self.clone(), request.clone());
        blocking(move || {
            let mut report = CheckReport::default();
            for tree in engine.recorded_trees()? {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let read_data = request.read_data && is_in(&tree.name, request.subset);
                let found = engine.check_one(&tree, read_data, request.repair, &mut report)?;
                if let Some(found) = found {
                    report.count(found.outcome);
                    let _ = events.blocking_send(CheckNews::Found(found));
                }
                report.objects += 1;
                let _ = events.try_send(CheckNews::Progress {
                    phase: "snapshots".to_owned(),
                    objects: report.objects,
                    done_bytes: report.bytes_read,
                    total_bytes: 0,
                });
            }
            Ok(report)
        })
        .await
    }

    /// The committed snapshots of all namespaces whose trees we unpacked.
    fn recorded_trees(&self) -> Result<Vec<Recorded>, EngineError> {
        let mut found = Vec::new();
        for namespace in self.store().namespaces()? {
            let Ok(namespace) = namespace.name.as_str().parse::<Namespace>() else { continue };
            for snapshotter in self.snapshotters() {
                let snapshotter = self.snapshotter(snapshotter, self.space(&namespace))?;
                for name in committed(&*snapshotter)? {
                    let own = match snapshotter.trees(&name) {
                        Ok(trees) => trees.into_iter().next(),
                        Err(error) if error.kind() == ErrorKind::NotFound => None,
                        Err(error) => return Err(error.into()),
                    };
                    // A tree without a record was not unpacked by us; one that is gone has lost its record too.
                    if let Some(Tree { files, record: Some(record), .. }) = own
                        && (record.exists() || !files.exists())
                    {
                        let (namespace, snapshotter) = (namespace.clone(), snapshotter.clone());
                        found.push(Recorded { namespace, snapshotter, name, files, record });
                    }
                }
            }
        }
        Ok(found)
    }

    fn check_one(
        &self,
        tree: &Recorded,
        read_data: bool,
        repair: bool,
        report: &mut CheckReport,
    ) -> Result<Option<Found>, EngineError> {
        let (damage, bytes) = damage_of(tree, read_data);
        report.bytes_read += bytes;
        // Removed while it was looked at: no finding.
        if damage.count == 0 || tree.snapshotter.stat(tree.name.as_str()).is_err() {
            return Ok(None);
        }
        let layers = self.layers_of(&self.space(&tree.namespace), &tree.name)?;
        let mut problem = damage.in_words();
        let mut outcome = Outcome::Damaged;
        if repair {
            match layers.first() {
                None => problem.push_str(": no image here has its layer, so it cannot be repaired"),
                Some((_, layer)) => match self.unpack_again(tree, layer, read_data) {
                    Ok(()) => outcome = Outcome::Repaired,
                    Err(error) => problem.push_str(&format!(": it cannot be repaired: {}", in_words(&error))),
                },
            }
        }
        Ok(Some(Found {
            kind: "snapshot".to_owned(),
            name: tree.name.to_string(),
            snapshotter: tree.snapshotter.name().to_owned(),
            namespaces: vec![tree.namespace.clone()],
            problem,
            outcome,
            images: layers.into_iter().map(|(image, _)| image).collect(),
        }))
    }

    /// Unpacks the layer beside the tree and moves over what is damaged.
    fn unpack_again(
        &self,
        tree: &Recorded,
        layer: &StackedLayer,
        read_data: bool,
    ) -> Result<(), EngineError> {
        static TRY: AtomicU64 = AtomicU64::new(0);
        let id = LeaseId::random();
        let labels = Labels::from([(EPHEMERAL_LABEL.to_owned(), "repair".to_owned())]);
        let space = self.space(&tree.namespace);
        space.create_lease(Some(id.clone()), labels)?;
        let beside = self.snapshotter(tree.snapshotter.name(), space.leased(&id))?;
        let key: ActiveKey =
            format!("repair-{id}-{} {}", TRY.fetch_add(1, Ordering::Relaxed), tree.name).parse()?;
        let outcome = self.repair_from(tree, layer, &*beside, &key, read_data);
        // Both go with the next collection if they do not go now.
        let _ = beside.remove(key.as_str());
        let _ = space.delete_lease(&id);
        outcome
    }

    fn repair_from(
        &self,
        tree: &Recorded,
        layer: &StackedLayer,
        beside: &dyn Snapshotter,
        key: &ActiveKey,
        read_data: bool,
    ) -> Result<(), EngineError> {
        beside.prepare(key, None, &Labels::new())?;
        let target = beside.layer_target(key)?;
        let gone = !tree.files.exists();
        let options = UnpackOptions {
            whiteouts: target.whiteouts.into(),
            record: if gone { target.record.clone() } else { None },
            ..UnpackOptions::default()
        };
        let digest = layer.descriptor.digest;
        let failed = |source| EngineError::Layer { reference: tree.name.to_string(), digest, source };
        let blob = self.space(&tree.namespace).open_blob(&digest)?;
        let unpacked = storage_layer::unpack(blob, layer.compression, &target.path, &options, &|_| {})
            .map_err(failed)?;
        if unpacked.diff_id != layer.diff_id {
            return Err(EngineError::DiffIdMismatch {
                reference: tree.name.to_string(),
                digest,
                expected: layer.diff_id,
                actual: unpacked.diff_id,
            });
        }
        let lowers = match &tree.snapshotter.stat(tree.name.as_str())?.parent {
            Some(parent) => tree.snapshotter.layers(&parent.parse()?)?,
            None => Vec::new(),
        };
        storage_layer::settle(&target.path, &unpacked.implied, &lowers).map_err(failed)?;
        if gone {
            put_back(tree, &target)?;
        } else {
            repair_tree(&tree.record, &tree.files, &target.path)
                .map_err(|source| EngineError::Tree { name: tree.name.to_string(), source })?;
        }
        self.store().sync()?;
        let (damage, _) = damage_of(tree, read_data);
        if damage.count == 0 { Ok(()) } else { Err(EngineError::StillDamaged { problem: damage.in_words() }) }
    }
}

/// Names of the committed snapshots that are layers of images.
fn committed(snapshotter: &dyn Snapshotter) -> Result<Vec<CommittedName>, EngineError> {
    let mut names = Vec::new();
    snapshotter.walk(&mut |info| {
        // Under any other name than a chain's a client may have committed what it changed after a layer was unpacked.
        if info.kind == SnapshotKind::Committed && info.name.parse::<Digest>().is_ok() {
            names.extend(info.name.parse());
        }
        ControlFlow::Continue(())
    })?;
    Ok(names)
}

/// Puts a whole tree and its record where they are gone: the record first, so that a tree that is there has one.
fn put_back(tree: &Recorded, fresh: &LayerTarget) -> Result<(), EngineError> {
    let folder = tree.files.parent().unwrap_or(&tree.files);
    std::fs::create_dir_all(folder)
        .map_err(|source| EngineError::io("create the directory", folder, source))?;
    if let Some(record) = &fresh.record {
        std::fs::rename(record, &tree.record)
            .map_err(|source| EngineError::io("put back the record", &tree.record, source))?;
    }
    std::fs::rename(&fresh.path, &tree.files)
        .map_err(|source| EngineError::io("put back the tree", &tree.files, source))
}

/// What is wrong with a tree, and the bytes that were read to know it.
fn damage_of(tree: &Recorded, read_data: bool) -> (Damage, u64) {
    let mut damage = Damage::default();
    if !tree.files.exists() {
        damage.add(format!("its directory {} is gone", tree.files.display()));
        return (damage, 0);
    }
    let summary = check_tree(&tree.record, &tree.files, read_data, &mut |problem: TreeProblem| {
        damage.add(format!("{} {}", problem.path, problem.fault));
    });
    match summary {
        Ok(summary) => (damage, summary.read_bytes),
        Err(error) => {
            damage.add(in_words(&error));
            (damage, 0)
        }
    }
}

/// Whether a snapshot is in the part of the data that is read this time.
fn is_in(name: &CommittedName, subset: Option<(u32, u32)>) -> bool {
    subset.is_none_or(|(index, count)| {
        let [a, b, c, d, ..] = *Digest::of(name.as_str().as_bytes()).as_bytes();
        u32::from_be_bytes([a, b, c, d]) % count == index - 1
    })
}
