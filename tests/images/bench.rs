//! An engine in this process, over a fresh root.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use runtime_engine::{
    Engine, EngineConfig, EngineError, ExportRequest, ImportRequest, MountRequest, PullRequest, Pulled,
    TransferEvent, Transferred, UnpackRequest,
};
use storage_content::{SnapshotKind, Space};
use storage_model::Namespace;
use tests::{Image, Node, finish, read_tree, require_root};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// An open engine; it closes, and its files go, when this is dropped.
pub(crate) struct Bench {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) runtime: Runtime,
    pub(crate) engine: Engine,
}

/// Longest that another program may take on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(120);

impl Bench {
    pub(crate) fn new() -> Result<Self> {
        require_root()?;
        let directory = tempfile::Builder::new().prefix("windlass-images.").tempdir()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let engine = Engine::open(EngineConfig {
            root: directory.path().join("root"),
            state: directory.path().join("state"),
            address: directory.path().join("state/windlass.sock"),
            exe: "/nonexistent/windlass".into(),
            hosts_dirs: Vec::new(),
            budget: None,
        })?;
        Ok(Self { directory, runtime, engine })
    }

    pub(crate) fn namespace(&self) -> Namespace {
        "images".parse().expect("a name")
    }

    pub(crate) fn space(&self) -> Space {
        self.engine.store().space(&self.namespace())
    }

    /// A place for what a test makes.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn pull(&self, reference: &str) -> Result<Pulled, EngineError> {
        self.pull_as(PullRequest { reference: reference.to_owned(), ..Default::default() })
    }

    pub(crate) fn pull_as(&self, request: PullRequest) -> Result<Pulled, EngineError> {
        let (events, mut told) = mpsc::channel(64);
        self.runtime.block_on(async {
            tokio::spawn(async move { while told.recv().await.is_some() {} });
            self.engine.pull(&self.namespace(), request, events).await
        })
    }

    /// Runs a transfer and returns what it told too.
    pub(crate) fn transfer(
        &self,
        work: impl AsyncFnOnce(mpsc::Sender<TransferEvent>) -> Result<Transferred, EngineError>,
    ) -> Result<(Transferred, Vec<TransferEvent>), EngineError> {
        let (events, mut told) = mpsc::channel(64);
        self.runtime.block_on(async {
            let listener = tokio::spawn(async move {
                let mut all = Vec::new();
                while let Some(event) = told.recv().await {
                    all.push(event);
                }
                all
            });
            let transferred = work(events).await?;
            Ok((transferred, listener.await.expect("it only listens")))
        })
    }

    pub(crate) fn import(
        &self,
        archive: impl io::Read + Send + 'static,
        request: ImportRequest,
    ) -> Result<Transferred, EngineError> {
        let namespace = self.namespace();
        self.transfer(async |events| self.engine.import(&namespace, request, archive, events).await)
            .map(|done| done.0)
    }

    /// Imports what another program wrote.
    pub(crate) fn import_file(&self, path: &Path) -> Result<Transferred> {
        let archive = fs::File::open(path).with_context(|| path.display().to_string())?;
        Ok(self.import(archive, ImportRequest::default())?)
    }

    pub(crate) fn export(&self, request: ExportRequest) -> Result<Vec<u8>, EngineError> {
        let sink = Shared::default();
        let (namespace, taken) = (self.namespace(), sink.clone());
        self.transfer(async |events| self.engine.export(&namespace, request, taken, events).await)?;
        Ok(std::mem::take(&mut *sink.0.lock().expect("nobody panics with it")))
    }

    pub(crate) fn export_one(&self, image: &str) -> Result<Vec<u8>, EngineError> {
        self.export(ExportRequest { images: vec![image.to_owned()], ..Default::default() })
    }

    pub(crate) fn unpack(&self, image: &str) -> Result<(), EngineError> {
        let request = UnpackRequest { image: image.to_owned(), ..Default::default() };
        let (events, _nobody) = mpsc::channel(1);
        self.runtime.block_on(self.engine.unpack(&self.namespace(), request, events)).map(drop)
    }

    /// The tree of an image, mounted for the look.
    pub(crate) fn tree(&self, image: &str) -> Result<BTreeMap<PathBuf, Node>> {
        self.tree_with(MountRequest { image: image.to_owned(), ..Default::default() })
    }

    pub(crate) fn tree_with(&self, request: MountRequest) -> Result<BTreeMap<PathBuf, Node>> {
        let target = self.path("mounted");
        fs::create_dir_all(&target)?;
        let request = MountRequest { target: target.clone(), ..request };
        self.runtime.block_on(self.engine.mount_image(&self.namespace(), request))?;
        let tree = read_tree(&target);
        self.engine.unmount_image(&self.namespace(), &target)?;
        tree
    }

    /// What is left after all images were removed and one collection: nothing, if all is well.
    pub(crate) fn left(&self) -> Result<Vec<String>> {
        for image in self.space().images()? {
            self.space().delete_image(&image.name)?;
        }
        self.left_as_it_is()
    }

    /// What no image keeps and a collection leaves.
    pub(crate) fn left_as_it_is(&self) -> Result<Vec<String>> {
        self.engine.collect()?;
        let space = self.space();
        let mut left = Vec::new();
        space.blobs(&mut |blob| {
            left.push(format!("blob {}", blob.digest));
            ControlFlow::Continue(())
        })?;
        left.extend(space.ingests()?.into_iter().map(|ingest| format!("ingest {}", ingest.reference)));
        left.extend(space.leases()?.into_iter().map(|lease| format!("lease {}", lease.id)));
        for name in self.engine.snapshotters() {
            self.engine.snapshotter(name, space.clone())?.walk(&mut |snapshot| {
                let kind = if snapshot.kind == SnapshotKind::Committed { "layer" } else { "snapshot" };
                left.push(format!("{kind} {} of {name}", snapshot.name));
                ControlFlow::Continue(())
            })?;
        }
        for place in ["blobs/sha256", "snapshots", "ingests"] {
            let entries = fs::read_dir(self.engine.store().root().join(place))?;
            left.extend(
                entries.flatten().map(|entry| format!("{place}/{}", entry.file_name().to_string_lossy())),
            );
        }
        Ok(left)
    }

    /// Waits until what was dropped has cleaned up after itself.
    pub(crate) fn settle(&self) -> Result<()> {
        tests::wait_until("leases of dropped work are gone", LONG, || {
            self.space().leases().is_ok_and(|leases| leases.is_empty())
        })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for point in tests::Engine::mounts_below(self.directory.path()) {
            let _ = Command::new("umount").arg("-l").arg(point).status();
        }
    }
}

/// A sink that several hold.
#[derive(Clone, Default)]
pub(crate) struct Shared(pub(crate) Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panics with it").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs a program that must succeed, in `directory`.
pub(crate) fn run(directory: &Path, program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory);
    finish(&mut command, LONG)?.success().with_context(|| format!("{command:?}"))
}

/// An image as an OCI layout in a tar, named `latest`.
pub(crate) fn layout_tar(image: &Image) -> Result<Vec<u8>> {
    let directory = tempfile::tempdir()?;
    image.write_layout(&directory.path().join("layout"))?;
    let layout = directory.path().join("layout");
    run(&layout, "tar", &["--sort=name", "-cf", "../layout.tar", "."])?;
    Ok(fs::read(directory.path().join("layout.tar"))?)
}
