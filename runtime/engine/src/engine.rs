//! The engine itself: one root, one store, its snapshotters.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use runtime_network::{Network, Place};
use snapshotters_contract::Snapshotter;
use storage_content::{Space, Store};
use storage_model::Namespace;

use crate::EngineError;
use crate::collect::{Budget, Collector};
use crate::container::Watches;
use crate::layers::Claims;
use crate::lazy::{Completions, Paces, Remotes};
use crate::snapshotters::Snapshotters;
use crate::task::{Host, Manager};

/// Where an engine keeps its things, and what it starts.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Durable data: blobs, snapshots, metadata.
    pub root: PathBuf,
    /// Data of this boot: bundles and sockets of running containers.
    pub state: PathBuf,
    /// Path of the daemon's socket, which shims are told.
    pub address: PathBuf,
    /// The `windlass` binary, started as shim.
    pub exe: PathBuf,
    /// Directories searched for `<registry>/hosts.toml`, first match first.
    pub hosts_dirs: Vec<PathBuf>,
    /// How much the store may take on the disk; none: as much as there is. Enforced by letting images go.
    pub budget: Option<Budget>,
}

/// A running engine. Cheap to clone; all clones are one engine.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// An engine that may have been closed since.
pub(crate) struct WeakEngine(Weak<Inner>);

impl WeakEngine {
    /// The engine, while somebody else has it.
    pub(crate) fn upgrade(&self) -> Option<Engine> {
        self.0.upgrade().map(|inner| Engine { inner })
    }
}

struct Inner {
    config: EngineConfig,
    /// Before the store, so that a collection under way has ended when the root is given up.
    collector: Collector,
    store: Store,
    snapshotters: Snapshotters,
    claims: Claims,
    paces: Paces,
    completions: Completions,
    remotes: Remotes,
    watches: Watches,
    tasks: Manager,
    networks: Network,
    recovery: OnceLock<Duration>,
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
        crate::work::discard_unfinished(&store)?;
        let snapshotters = Snapshotters::open(&store, &config)?;
        let collector = Collector::start(store.clone(), snapshotters.clone(), config.budget)
            .map_err(|source| EngineError::io("start the thread that collects for", &config.root, source))?;
        let host = Host { exe: config.exe.clone(), address: config.address.clone() };
        let tasks = Manager::new(&config.state, host);
        let networks = Network::new(Place::of(&config.state));
        let paces = Paces::open(&config.root);
        let inner = Inner {
            config,
            collector,
            store,
            snapshotters,
            claims: Claims::default(),
            paces,
            completions: Completions::default(),
            remotes: Remotes::default(),
            watches: Watches::default(),
            tasks,
            networks,
            recovery: OnceLock::new(),
        };
        let engine = Self { inner: Arc::new(inner) };
        let weak = engine.downgrade();
        engine.tasks().tell_ends(Box::new(move |namespace, id, exit, age| {
            if let Some(engine) = weak.upgrade() {
                engine.obey_policy(namespace, id, exit.status, age);
            }
        }));
        engine.tasks().recover();
        engine.recover_containers()?;
        engine.sweep_networks();
        // It is set once, here.
        let _ = engine.inner.recovery.set(begun.elapsed());
        Ok(engine)
    }

    pub(crate) fn downgrade(&self) -> WeakEngine {
        WeakEngine(Arc::downgrade(&self.inner))
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
        self.inner.snapshotters.bind(name, space)
    }

    /// Names of the snapshotters.
    pub fn snapshotters(&self) -> Vec<&'static str> {
        self.inner.snapshotters.names()
    }

    /// What the engine is and found.
    pub fn info(&self) -> EngineInfo {
        EngineInfo {
            version: env!("CARGO_PKG_VERSION"),
            root: self.inner.config.root.clone(),
            state: self.inner.config.state.clone(),
            recovery: self.inner.recovery.get().copied().unwrap_or_default(),
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

    /// The snapshotter of images that are not unpacked, whole.
    pub(crate) fn lazy(&self) -> &lazy_snapshotter::Lazy {
        self.inner.snapshotters.lazy()
    }

    pub(crate) fn paces(&self) -> &Paces {
        &self.inner.paces
    }

    pub(crate) fn remotes(&self) -> &Remotes {
        &self.inner.remotes
    }

    pub(crate) fn completions(&self) -> &Completions {
        &self.inner.completions
    }

    pub(crate) fn claims(&self) -> &Claims {
        &self.inner.claims
    }

    pub(crate) fn watches(&self) -> &Watches {
        &self.inner.watches
    }

    pub(crate) fn networks(&self) -> &Network {
        &self.inner.networks
    }

    pub(crate) fn tasks(&self) -> &Manager {
        &self.inner.tasks
    }

    pub(crate) fn collector(&self) -> &Collector {
        &self.inner.collector
    }

    pub(crate) fn all_snapshotters(&self) -> &Snapshotters {
        &self.inner.snapshotters
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
