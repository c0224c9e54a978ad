//! The engine itself: one root, one store, its snapshotters.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use snapshotters_contract::Snapshotter;
use snapshotters_overlay::Overlay;
use storage_content::{Space, Store};
use storage_model::Namespace;

use crate::EngineError;
use crate::collect::Collector;
use crate::container::Watches;
use crate::pull::Claims;

/// Where an engine keeps its things, and what it starts.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Durable data: blobs, snapshots, metadata.
    pub root: PathBuf,
    /// Data of this boot: bundles and sockets of running containers.
    pub state: PathBuf,
    /// The `windlass` binary, started as shim.
    pub exe: PathBuf,
    /// Directories searched for `<registry>/hosts.toml`, first match first.
    pub hosts_dirs: Vec<PathBuf>,
}

/// A running engine. Cheap to clone; all clones are one engine.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    config: EngineConfig,
    store: Store,
    overlay: Overlay,
    claims: Claims,
    watches: Watches,
    collector: Collector,
    recovery: Duration,
}

/// What an engine tells of itself.
#[derive(Debug, Clone)]
pub struct EngineInfo {
    /// Version of the program.
    pub version: &'static str,
    /// Durable data.
    pub root: PathBuf,
    /// Data of this boot.
    pub state: PathBuf,
    /// How long opening took: layout, metadata, recovery, containers found again.
    pub recovery: Duration,
    /// Snapshotters by name.
    pub snapshotters: Vec<&'static str>,
    /// OCI runtimes found on this machine: name and path.
    pub runtimes: BTreeMap<String, PathBuf>,
}

/// Snapshotter of requests that name none.
pub(crate) const DEFAULT_SNAPSHOTTER: &str = "overlayfs";

impl Engine {
    /// Opens the engine of `config.root`: locks it, recovers it, and finds the containers that still run.
    ///
    /// # Errors
    /// [`EngineError`] if the root is held by another process, cannot be made, or was written by a newer version.
    pub fn open(config: EngineConfig) -> Result<Self, EngineError> {
        let begun = Instant::now();
        for directory in [&config.root, &config.state] {
            make_private(directory)?;
        }
        let store = Store::open(&config.root)?;
        let overlay = Overlay::new(&store)?;
        let inner = Inner {
            config,
            store,
            overlay,
            claims: Claims::default(),
            watches: Watches::default(),
            collector: Collector::default(),
            recovery: Duration::ZERO,
        };
        let mut engine = Self { inner: Arc::new(inner) };
        engine.recover_containers()?;
        if let Some(inner) = Arc::get_mut(&mut engine.inner) {
            inner.recovery = begun.elapsed();
        }
        Ok(engine)
    }

    /// The store below.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The configuration it was opened with.
    pub fn config(&self) -> &EngineConfig {
        &self.inner.config
    }

    /// The snapshotter called `name` (empty: the default), bound to `space`.
    ///
    /// # Errors
    /// [`EngineError::UnknownSnapshotter`] names those that there are.
    pub fn snapshotter(&self, name: &str, space: Space) -> Result<Arc<dyn Snapshotter>, EngineError> {
        match name {
            "" | DEFAULT_SNAPSHOTTER => Ok(self.inner.overlay.bind(space)),
            other => Err(EngineError::UnknownSnapshotter {
                name: other.to_owned(),
                known: self.snapshotters().join(", "),
            }),
        }
    }

    /// Names of the snapshotters.
    pub fn snapshotters(&self) -> Vec<&'static str> {
        vec![DEFAULT_SNAPSHOTTER]
    }

    /// What the engine is and found.
    pub fn info(&self) -> EngineInfo {
        EngineInfo {
            version: env!("CARGO_PKG_VERSION"),
            root: self.inner.config.root.clone(),
            state: self.inner.config.state.clone(),
            recovery: self.inner.recovery,
            snapshotters: self.snapshotters(),
            runtimes: runtime_container::runtime::available()
                .into_iter()
                .filter(|found| found.problem.is_none())
                .map(|found| (found.name, found.path))
                .collect(),
        }
    }

    pub(crate) fn space(&self, namespace: &Namespace) -> Space {
        self.inner.store.space(namespace)
    }

    pub(crate) fn claims(&self) -> &Claims {
        &self.inner.claims
    }

    pub(crate) fn watches(&self) -> &Watches {
        &self.inner.watches
    }

    pub(crate) fn collector(&self) -> &Collector {
        &self.inner.collector
    }

    pub(crate) fn overlay(&self) -> &Overlay {
        &self.inner.overlay
    }
}

/// Makes `directory` with mode 0700, or checks that it is a directory.
fn make_private(directory: &Path) -> Result<(), EngineError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|source| EngineError::io("create the directory", directory, source))
}
