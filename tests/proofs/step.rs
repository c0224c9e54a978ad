//! What the engine is asked to do, one step at a time: the same function in the process that is cut and in the one that
//! looks at what is left.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use runtime_engine::{
    CheckNews, CheckReport, CheckRequest, ConvertRequest, Engine, EngineConfig, EngineError, ErrorKind,
    Found, ImportRequest, PullRequest, PushRequest, UnpackRequest,
};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use serde::{Deserialize, Serialize};
use snapshotters_contract::{ActiveKey, CommittedName, SnapshotError};
use storage_content::StoreError;
use storage_model::{Labels, Namespace};
use tokio::sync::mpsc::Sender;

/// One step. Images are named by reference, as a user would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Pulls an image.
    Pull { reference: String },
    /// Pulls its content and unpacks nothing.
    Fetch { reference: String },
    /// Unpacks what was fetched.
    Unpack { reference: String },
    /// Takes the image out of an archive and calls it `name` with the archive's tag.
    Import { archive: PathBuf, name: String },
    /// Makes an image of the same layers in zstd.
    Convert { reference: String, target: String },
    /// Removes an image's name; what it stood on goes with the next collection.
    Forget { reference: String },
    /// Pushes an image into a repository of its own, whose name begins with `repository`.
    Push { reference: String, repository: String },
    /// Begins a snapshot on top of an image, kept by a label.
    Prepare { key: String, reference: String },
    /// Writes files into an active snapshot and commits it, kept by a label.
    Commit { key: String, name: String },
    /// Removes a snapshot.
    Remove { key: String },
    /// One garbage collection.
    Collect,
}

/// What is said of an error that the engine has no part in: a write of who uses a snapshot.
pub(crate) const OWN_WRITE: &str = "a user's own write";

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
        address: crate::world::state_beside(root).join("windlass.sock"),
        exe: PathBuf::from("/nonexistent/windlass"),
        hosts_dirs: Vec::new(),
        budget: None,
    };
    Ok(Engine::open(config)?)
}

impl Step {
    /// Takes the step. That it was taken before, wholly, is no error: who was cut off tries again.
    pub(crate) fn take(&self, engine: &Engine) -> Result<()> {
        let space = engine.store().space(&namespace());
        match self {
            Self::Pull { reference } => pull(engine, reference, false),
            Self::Fetch { reference } => pull(engine, reference, true),
            Self::Unpack { reference } => {
                let request = UnpackRequest { image: reference.clone(), ..Default::default() };
                told(|events| async { engine.unpack(&namespace(), request, events).await }).map(|_| ())
            }
            Self::Import { archive, name } => {
                let request = ImportRequest { base_name: name.clone(), ..Default::default() };
                let source = fs::File::open(archive)?;
                told(|events| async { engine.import(&namespace(), request, source, events).await })
                    .map(|_| ())
            }
            Self::Convert { reference, target } => {
                let request = ConvertRequest {
                    image: reference.clone(),
                    target: target.clone(),
                    compression: ConvertRequest::compression("zstd")?,
                    ..Default::default()
                };
                told(|events| async { engine.convert(&namespace(), request, events).await }).map(|_| ())
            }
            Self::Forget { reference } => unless(ErrorKind::NotFound, space.delete_image(reference)),
            Self::Collect => engine.collect().map(|_| ()).map_err(Into::into),
            Self::Push { reference, repository } => {
                // Trials side by side have the same process when they try again, and none may meet another's.
                static PUSHES: AtomicU64 = AtomicU64::new(0);
                let count = PUSHES.fetch_add(1, Ordering::Relaxed);
                let target = format!("{repository}{}-{count}:1", std::process::id());
                let request =
                    PushRequest { image: reference.clone(), reference: target.clone(), ..Default::default() };
                told(|events| async { engine.push(&namespace(), request, events).await })?;
                crate::world::ensure_served(&target, &engine.image(&namespace(), reference)?)
            }
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
                write_files(&snapshotter.layer_target(&active)?.path).context(OWN_WRITE)?;
                unless(ErrorKind::AlreadyExists, snapshotter.commit(&active, &name, None, &kept()))
            }
            Self::Remove { key } => unless(ErrorKind::NotFound, engine.snapshotter("", space)?.remove(key)),
        }
    }
}

trait Kind {
    fn kind(&self) -> ErrorKind;
}

impl Kind for StoreError {
    fn kind(&self) -> ErrorKind {
        self.kind()
    }
}

impl Kind for SnapshotError {
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

/// Runs what tells of its progress, and hears it out.
fn told<E: Send + 'static, T, F: Future<Output = Result<T, EngineError>>>(
    work: impl FnOnce(Sender<E>) -> F,
) -> Result<T> {
    let (events, mut told) = tokio::sync::mpsc::channel(64);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async move {
        let listener = tokio::spawn(async move { while told.recv().await.is_some() {} });
        let done = work(events).await;
        listener.await?;
        Ok(done?)
    })
}

fn pull(engine: &Engine, reference: &str, no_unpack: bool) -> Result<()> {
    let request = PullRequest { reference: reference.to_owned(), no_unpack, ..Default::default() };
    told(|events| async { engine.pull(&namespace(), request, events).await }).map(|_| ())
}

/// Checks all there is, repairs what is damaged, and says what was found.
pub(crate) fn check(engine: &Engine) -> Result<(CheckReport, Vec<Found>)> {
    let request = CheckRequest { read_data: true, repair: true, ..Default::default() };
    let (events, mut told) = tokio::sync::mpsc::channel(64);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async move {
        let listener = tokio::spawn(async move {
            let mut found = Vec::new();
            while let Some(news) = told.recv().await {
                if let CheckNews::Found(one) = news {
                    found.push(one);
                }
            }
            found
        });
        let report = engine.check(request, events).await?;
        Ok((report, listener.await?))
    })
}

/// What kind of error this is, if it is one of the engine's.
pub(crate) fn kind_of(error: &anyhow::Error) -> Option<ErrorKind> {
    let engine = error.downcast_ref::<EngineError>().map(EngineError::kind);
    let store = || error.downcast_ref::<StoreError>().map(StoreError::kind);
    let snapshot = || error.downcast_ref::<SnapshotError>().map(SnapshotError::kind);
    engine.or_else(store).or_else(snapshot)
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
