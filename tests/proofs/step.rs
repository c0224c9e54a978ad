//! What the engine is asked to do, one step at a time: the same function in the process that is cut and in the one that
//! looks at what is left.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use runtime_engine::{Engine, EngineConfig, ErrorKind, PullRequest};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use serde::{Deserialize, Serialize};
use snapshotters_contract::{ActiveKey, CommittedName};
use storage_model::{Labels, Namespace};

/// One step. Images are named by reference, as a user would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Pulls an image.
    Pull { reference: String },
    /// Removes an image's name; what it stood on goes with the next collection.
    Forget { reference: String },
    /// Begins a snapshot on top of an image, kept by a label.
    Prepare { key: String, reference: String },
    /// Writes files into an active snapshot and commits it, kept by a label.
    Commit { key: String, name: String },
    /// Removes a snapshot.
    Remove { key: String },
    /// One garbage collection.
    Collect,
}

/// The namespace everything happens in.
pub(crate) fn namespace() -> Namespace {
    "default".parse().expect("a plain word is a namespace")
}

/// Label that keeps a snapshot.
fn kept() -> Labels {
    BTreeMap::from([("containerd.io/gc.root".to_owned(), "proof".to_owned())])
}

/// Opens the engine of `root`.
pub(crate) fn open(root: &Path) -> Result<Engine> {
    let config = EngineConfig {
        root: root.to_owned(),
        state: crate::world::state_beside(root),
        exe: PathBuf::from("/nonexistent/windlass"),
        hosts_dirs: Vec::new(),
    };
    Ok(Engine::open(config)?)
}

impl Step {
    /// Takes the step. That it was taken before, wholly, is no error: who was cut off tries again.
    pub(crate) fn take(&self, engine: &Engine) -> Result<()> {
        let space = engine.store().space(&namespace());
        match self {
            Self::Pull { reference } => pull(engine, reference),
            Self::Forget { reference } => unless(ErrorKind::NotFound, space.delete_image(reference)),
            Self::Collect => engine.collect().map(|_| ()).map_err(Into::into),
            Self::Prepare { key, reference } => {
                let snapshotter = engine.snapshotter("", space)?;
                let chain = engine.image(&namespace(), reference)?.chain.context("the image has layers")?;
                let parent = storage_model::ProtectionDomain::Plain.snapshot_name(&chain).parse()?;
                unless(ErrorKind::AlreadyExists, snapshotter.prepare(&key.parse()?, Some(&parent), &kept()))
            }
            Self::Commit { key, name } => {
                let snapshotter = engine.snapshotter("", space)?;
                let (active, name): (ActiveKey, CommittedName) = (key.parse()?, name.parse()?);
                if snapshotter.stat(name.as_str()).is_ok() {
                    return Ok(());
                }
                write_files(&snapshotter.layer_target(&active)?.path)?;
                unless(ErrorKind::AlreadyExists, snapshotter.commit(&active, &name, None, &kept()))
            }
            Self::Remove { key } => unless(ErrorKind::NotFound, engine.snapshotter("", space)?.remove(key)),
        }
    }
}

trait Kind {
    fn kind(&self) -> ErrorKind;
}

impl Kind for storage_content::StoreError {
    fn kind(&self) -> ErrorKind {
        self.kind()
    }
}

impl Kind for snapshotters_contract::SnapshotError {
    fn kind(&self) -> ErrorKind {
        self.kind()
    }
}

/// What a step returned, where `fine` says that it was taken before.
fn unless<T, E>(fine: ErrorKind, result: Result<T, E>) -> Result<()>
where
    E: Kind + std::error::Error + Send + Sync + 'static,
{
    match result {
        Err(error) if error.kind() != fine => Err(error.into()),
        _ => Ok(()),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

fn pull(engine: &Engine, reference: &str) -> Result<()> {
    let (events, mut told) = tokio::sync::mpsc::channel(64);
    let request = PullRequest { reference: reference.to_owned(), ..Default::default() };
    runtime()?.block_on(async move {
        let listener = tokio::spawn(async move { while told.recv().await.is_some() {} });
        let pulled = engine.pull(&namespace(), request, events).await;
        listener.await?;
        pulled.map(|_| ()).map_err(Into::into)
    })
}

/// What a container might have written; the same each time, so that it can be written again.
fn write_files(directory: &Path) -> Result<()> {
    let inside = directory.join("var");
    fs::create_dir_all(&inside)?;
    let mut names = Vec::new();
    for number in 0..4_usize {
        let path = inside.join(format!("file-{number}"));
        fs::write(&path, format!("written into a snapshot {number}\n").repeat(number * 200))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        names.push(path);
    }
    names.push(inside.join("link"));
    match symlink("file-1", inside.join("link")) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error.into()),
        _ => {}
    }
    let time = Timespec { tv_sec: 1_700_000_000, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    for name in names {
        utimensat(CWD, &name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}
