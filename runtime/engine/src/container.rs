//! Containers: made from an image, started under a shim, watched, removed.
//!
//! A container is a record (durable), a snapshot (durable) and a bundle directory with its shim's socket (of this boot).
//! The shim outlives the daemon; its `exit.json` outlives the shim. So after any restart the state of a container can be
//! read again: `exit.json` there: exited; its shim answers: running; neither: it was lost with the machine.
//!
//! Not here: how a process is started (`runtime-shim`), what it may do (`runtime-container`).

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use runtime_container::runtime::OciRuntime;
use runtime_container::spec::RunOptions;
use runtime_shim::{Client, MountSpec, Phase, ShimConfig};
use snapshotters_contract::{ActiveKey, CommittedName};
use storage_content::{ContainerRecord, ErrorKind, Extension, Space};
use storage_model::{Identifier, Labels, Namespace, ProtectionDomain};

use crate::engine::DEFAULT_SNAPSHOTTER;
use crate::{Engine, EngineError, Image};

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct RunRequest {
    /// Image by name or short name.
    pub image: String,
    /// Name of the container; empty: one is made up.
    pub id: String,
    /// Snapshotter; empty is the default one.
    pub snapshotter: String,
    /// Name or path of the OCI runtime; empty: the first that works.
    pub runtime: String,
    /// What the process gets.
    pub options: RunOptions,
    /// Remove the container when its process ends.
    pub remove: bool,
    /// Nobody attaches: start it now, its output goes to the log.
    pub detach: bool,
    /// Labels of the container.
    pub labels: Labels,
}

/// A container whose shim is ready.
#[derive(Debug, Clone)]
pub struct Started {
    /// Its name.
    pub id: Identifier,
    /// Where its shim listens.
    pub shim_socket: PathBuf,
}

/// State of a container's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The shim waits for a client to start it.
    Created,
    /// It runs.
    Running {
        /// Process id on this machine.
        pid: u32,
    },
    /// It ended.
    Exited {
        /// Its exit code; 128 + n after signal n.
        code: u32,
    },
    /// It ended with the machine, or its shim was killed: nobody saw how.
    Lost,
}

/// A container and the state of its process.
#[derive(Debug, Clone)]
pub struct ContainerState {
    /// Its record.
    pub record: ContainerRecord,
    /// Its process.
    pub status: Status,
    /// The OCI spec it was started with, JSON; empty before the start.
    pub spec_json: String,
    /// Its command, from the spec.
    pub args: Vec<String>,
}

/// Extension of a record: present when the container goes when its process ends.
const REMOVE_AT_EXIT: &str = "windlass.io/remove-at-exit";

/// Containers that have a thread waiting for their end.
#[derive(Clone, Default)]
pub(crate) struct Watches {
    running: Arc<Mutex<HashSet<(Namespace, Identifier)>>>,
    removal: Arc<Mutex<()>>,
}

impl Watches {
    fn begin(&self, key: &(Namespace, Identifier)) -> bool {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone())
    }

    /// Held while a container is taken away.
    fn removing(&self) -> MutexGuard<'_, ()> {
        self.removal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, key: &(Namespace, Identifier)) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

impl Engine {
    /// Makes a container and its shim; with `detach`, starts the process too.
    ///
    /// # Errors
    /// [`EngineError`], after which nothing of it is left: no record, no snapshot, no shim, no directory.
    pub fn run(&self, namespace: &Namespace, request: RunRequest) -> Result<Started, EngineError> {
        let image = self.image(namespace, &request.image)?;
        let runtime = OciRuntime::find(Some(request.runtime.as_str()).filter(|name| !name.is_empty()))?;
        let id = self.new_id(namespace, &request.id)?;
        let mut making = Making { engine: self, namespace, id: &id, snapshot: None, done: false };
        let started = making.make(&image, &runtime, &request)?;
        making.done = true;
        self.watch(namespace, &id);
        Ok(started)
    }

    /// All containers of `namespace`, by name.
    ///
    /// # Errors
    /// [`EngineError::Store`] if the metadata cannot be read.
    pub fn containers(&self, namespace: &Namespace) -> Result<Vec<ContainerState>, EngineError> {
        let records = self.space(namespace).containers()?;
        Ok(records.into_iter().map(|record| self.state_of(namespace, record)).collect())
    }

    /// One container.
    ///
    /// # Errors
    /// [`EngineError::NoContainer`] if there is none of that name.
    pub fn container(&self, namespace: &Namespace, id: &str) -> Result<ContainerState, EngineError> {
        Ok(self.state_of(namespace, self.record(namespace, id)?))
    }

    /// Sends signal number `signal` (1 to 64) to a container's process, or with `all` to every process in it.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`] if it has ended, [`EngineError::Shim`] if the signal could not be sent.
    pub fn kill(&self, namespace: &Namespace, id: &str, signal: u32, all: bool) -> Result<(), EngineError> {
        let number = i32::try_from(signal).ok().filter(|number| (1..=64).contains(number));
        let number = number.ok_or(EngineError::Signal(signal))?;
        let state = self.container(namespace, id)?;
        if !matches!(state.status, Status::Running { .. }) {
            return Err(EngineError::NotRunning { id: id.to_owned() });
        }
        let killed = Client::connect(&self.socket(namespace, id)).and_then(|client| client.kill(number, all));
        killed.map_err(|error| EngineError::shim(id)(error.into()))
    }

    /// Removes a container: its snapshot, record and bundle. With `force` a running process is killed first.
    ///
    /// # Errors
    /// [`EngineError::Running`] if it runs and `force` is not set; [`EngineError::NoContainer`] if there is none.
    pub fn remove_container(&self, namespace: &Namespace, id: &str, force: bool) -> Result<(), EngineError> {
        let state = self.container(namespace, id)?;
        match state.status {
            Status::Running { .. } if !force => return Err(EngineError::Running { id: id.to_owned() }),
            Status::Running { .. } | Status::Created => self.end_shim(namespace, id)?,
            Status::Exited { .. } | Status::Lost => {}
        }
        self.take_away(namespace, &state.record)
    }

    /// Finds the containers of an earlier daemon again: watches those that run, removes those that were to go.
    pub(crate) fn recover_containers(&self) -> Result<(), EngineError> {
        for namespace in self.store().namespaces()? {
            let Ok(namespace) = namespace.name.as_str().parse::<Namespace>() else { continue };
            for state in self.containers(&namespace)? {
                match state.status {
                    Status::Running { .. } | Status::Created => self.watch(&namespace, &state.record.id),
                    Status::Exited { .. } | Status::Lost if removes_at_exit(&state.record) => {
                        if let Err(error) = self.take_away(&namespace, &state.record) {
                            tracing::warn!(%error, id = %state.record.id, "a container that ended could not be removed");
                        }
                    }
                    Status::Exited { .. } | Status::Lost => {}
                }
            }
        }
        Ok(())
    }

    fn new_id(&self, namespace: &Namespace, wanted: &str) -> Result<Identifier, EngineError> {
        let space = self.space(namespace);
        if wanted.is_empty() {
            let seed = format!("{:?} {} {namespace}", SystemTime::now(), std::process::id());
            return Ok(storage_model::Digest::of(seed.as_bytes()).short().parse()?);
        }
        let id: Identifier = wanted.parse()?;
        match space.container(&id) {
            Ok(_) => Err(EngineError::ContainerExists { id: wanted.to_owned() }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(id),
            Err(error) => Err(error.into()),
        }
    }

    fn record(&self, namespace: &Namespace, id: &str) -> Result<ContainerRecord, EngineError> {
        let missing = || EngineError::NoContainer { id: id.to_owned(), namespace: namespace.to_string() };
        let name: Identifier = id.parse().map_err(|_| missing())?;
        match self.space(namespace).container(&name) {
            Ok(record) => Ok(record),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(missing()),
            Err(error) => Err(error.into()),
        }
    }

    fn bundle(&self, namespace: &Namespace, id: &str) -> PathBuf {
        self.config().state.join("containers").join(namespace.as_str()).join(id)
    }

    fn socket(&self, namespace: &Namespace, id: &str) -> PathBuf {
        runtime_shim::socket_path(&self.bundle(namespace, id))
    }

    fn state_of(&self, namespace: &Namespace, record: ContainerRecord) -> ContainerState {
        let bundle = self.bundle(namespace, record.id.as_str());
        let status = exited(&bundle).unwrap_or_else(|| self.live_status(namespace, record.id.as_str()));
        let spec_json = std::fs::read_to_string(runtime_shim::spec_path(&bundle)).unwrap_or_default();
        let args = serde_json::from_str::<serde_json::Value>(&spec_json)
            .ok()
            .and_then(|spec| serde_json::from_value(spec["process"]["args"].clone()).ok())
            .unwrap_or_default();
        ContainerState { record, status, spec_json, args }
    }

    fn live_status(&self, namespace: &Namespace, id: &str) -> Status {
        let report = Client::connect(&self.socket(namespace, id)).and_then(|client| client.state());
        // It may end while we ask, so its last word is looked for once more.
        let last_word = || exited(&self.bundle(namespace, id)).unwrap_or(Status::Lost);
        match report {
            Ok(report) => match (report.phase, report.pid) {
                (Phase::Running, Some(pid)) => Status::Running { pid },
                (Phase::Ended, _) => {
                    report.exit.map_or_else(last_word, |exit| Status::Exited { code: exit.code.into() })
                }
                _ => Status::Created,
            },
            Err(_) => last_word(),
        }
    }

    /// Starts the thread that waits for the container's end.
    fn watch(&self, namespace: &Namespace, id: &Identifier) {
        let key = (namespace.clone(), id.clone());
        if !self.watches().begin(&key) {
            return;
        }
        let engine = self.clone();
        std::thread::spawn(move || {
            let (namespace, id) = &key;
            let ended =
                Client::connect(&engine.socket(namespace, id.as_str())).and_then(|client| client.wait());
            tracing::debug!(%namespace, %id, ?ended, "a container ended");
            engine.watches().end(&key);
            if let Ok(record) = engine.record(namespace, id.as_str())
                && removes_at_exit(&record)
                && let Err(error) = engine.remove_container(namespace, id.as_str(), true)
                && error.kind() != ErrorKind::NotFound
            {
                tracing::warn!(%error, %id, "a container that ended could not be removed");
            }
        });
    }

    /// Kills the process, or the shim that waits to start it, and waits until it has ended.
    fn end_shim(&self, namespace: &Namespace, id: &str) -> Result<(), EngineError> {
        const SIGKILL: i32 = 9;
        let Ok(client) = Client::connect(&self.socket(namespace, id)) else { return Ok(()) };
        // A process that ends at this very moment is as good as killed.
        let _ = client.kill(SIGKILL, true);
        client.wait_gone().map_err(|error| EngineError::shim(id)(error.into()))
    }

    fn take_away(&self, namespace: &Namespace, record: &ContainerRecord) -> Result<(), EngineError> {
        // The client that asked and the watch that saw the end may both be here: one does it, the other finds it done.
        let _one = self.watches().removing();
        let space = self.space(namespace);
        let bundle = self.bundle(namespace, record.id.as_str());
        let failed = EngineError::shim(record.id.as_str());
        match Client::connect(&runtime_shim::socket_path(&bundle)) {
            // It has told how the process ended, and is unmounting.
            Ok(client) => client.wait_gone().map_err(|error| failed(error.into()))?,
            // A shim that was killed could not remove the runtime's state itself.
            Err(_) if bundle.exists() && exited(&bundle).is_none() => {
                runtime_shim::recover(&bundle).map_err(|error| failed(error.into()))?;
            }
            Err(_) => {}
        }
        ignore_missing(space.delete_container(&record.id).map_err(EngineError::from))?;
        let snapshotter = self.snapshotter(&record.snapshotter, space)?;
        ignore_missing(snapshotter.remove(&record.snapshot_key).map_err(EngineError::from))?;
        match std::fs::remove_dir_all(&bundle) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(EngineError::io("remove the directory", &bundle, source))
            }
            _ => Ok(()),
        }
    }
}

/// The exit its shim wrote down, if the container has ended.
fn exited(bundle: &std::path::Path) -> Option<Status> {
    let exit = runtime_shim::read_exit(bundle).ok().flatten()?;
    Some(Status::Exited { code: exit.code.into() })
}

fn removes_at_exit(record: &ContainerRecord) -> bool {
    record.extensions.contains_key(REMOVE_AT_EXIT)
}

fn ignore_missing(result: Result<(), EngineError>) -> Result<(), EngineError> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn mount_spec(mount: snapshotters_contract::Mount) -> MountSpec {
    MountSpec { kind: mount.kind, source: mount.source, options: mount.options }
}

/// A container being made. Dropped before it is done, what exists of it is taken away.
struct Making<'a> {
    engine: &'a Engine,
    namespace: &'a Namespace,
    id: &'a Identifier,
    snapshot: Option<(Space, ActiveKey)>,
    done: bool,
}

impl Making<'_> {
    fn make(
        &mut self,
        image: &Image,
        runtime: &OciRuntime,
        request: &RunRequest,
    ) -> Result<Started, EngineError> {
        let space = self.engine.space(self.namespace);
        let snapshotter_name =
            if request.snapshotter.is_empty() { DEFAULT_SNAPSHOTTER } else { request.snapshotter.as_str() };
        let snapshotter = self.engine.snapshotter(snapshotter_name, space.clone())?;
        let key: ActiveKey = self.id.as_str().parse()?;
        let parent = parent(image, snapshotter_name, |name| snapshotter.stat(name).is_ok())?;

        // The record first: it is what keeps the snapshot from being collected.
        space.put_container(self.record(request, image, snapshotter_name))?;
        let mounts = snapshotter.prepare(&key, parent.as_ref(), &Labels::new())?;
        self.snapshot = Some((space, key));

        let bundle = self.engine.bundle(self.namespace, self.id.as_str());
        std::fs::create_dir_all(&bundle)
            .map_err(|source| EngineError::io("create the directory", &bundle, source))?;
        let config = ShimConfig {
            id: self.id.to_string(),
            namespace: self.namespace.to_string(),
            bundle: bundle.clone(),
            runtime: runtime.path().to_owned(),
            runtime_root: self.engine.config().state.join("runtime").join(self.namespace.as_str()),
            mounts: mounts.into_iter().map(mount_spec).collect(),
            terminal: request.options.terminal,
            image_config: image.config.clone(),
            run_options: request.options.clone(),
            log: Some(bundle.join("output.log")),
        };
        let failed = EngineError::shim(self.id.as_str());
        config.write().map_err(|error| failed(error.into()))?;
        let handle =
            runtime_shim::spawn(&self.engine.config().exe, &bundle).map_err(|error| failed(error.into()))?;
        if request.detach {
            let started = Client::connect(&handle.socket).and_then(|client| client.start_detached());
            started.map_err(|error| failed(error.into()))?;
        }
        Ok(Started { id: self.id.clone(), shim_socket: handle.socket })
    }

    fn record(&self, request: &RunRequest, image: &Image, snapshotter: &str) -> ContainerRecord {
        let now = SystemTime::now();
        let mut extensions = BTreeMap::new();
        if request.remove {
            extensions.insert(REMOVE_AT_EXIT.to_owned(), Extension::default());
        }
        ContainerRecord {
            id: self.id.clone(),
            image: image.record.name.clone(),
            snapshotter: snapshotter.to_owned(),
            snapshot_key: self.id.to_string(),
            runtime: request.runtime.clone(),
            spec: Vec::new(),
            labels: request.labels.clone(),
            created: now,
            updated: now,
            extensions,
        }
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let undone = self.engine.end_shim(self.namespace, self.id.as_str()).and_then(|()| {
            match self.engine.record(self.namespace, self.id.as_str()) {
                Ok(record) => self.engine.take_away(self.namespace, &record),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            }
        });
        if let Err(error) = undone {
            tracing::warn!(%error, id = %self.id, "a container that could not be made left something behind");
        }
    }
}

/// The committed snapshot that `image` stands for; `None` for an image without layers.
fn parent(
    image: &Image,
    snapshotter: &str,
    is_here: impl Fn(&str) -> bool,
) -> Result<Option<CommittedName>, EngineError> {
    let Some(chain) = &image.chain else { return Ok(None) };
    let name = ProtectionDomain::Plain.snapshot_name(chain);
    if !is_here(&name) {
        return Err(EngineError::NotUnpacked {
            name: image.record.name.clone(),
            snapshotter: snapshotter.to_owned(),
        });
    }
    Ok(Some(name.parse()?))
}
