//! Containers: made from an image, started under a shim, watched, removed.
//!
//! A container is a record (durable), a snapshot (durable) and a bundle directory with its shim's socket (of this boot).
//! The shim outlives the daemon; its `exit.json` outlives the shim. So after any restart the state of a container can be
//! read again: `exit.json` there: exited; its shim answers: running; neither: it was lost with the machine.
//!
//! Not here: how a process is started (`runtime-shim`), what it may do (`runtime-container`).

mod copy;
mod exec;
mod launch;
mod making;
mod network;
mod plain;
mod restart;
mod signal;
mod stop;
mod update;
mod usage;
mod watch;

use std::path::PathBuf;
use std::time::SystemTime;

use runtime_container::runtime::OciRuntime;
use runtime_container::spec::RunOptions;
use runtime_shim::{Client, Phase};
use storage_content::{ContainerRecord, ErrorKind};
use storage_model::{Identifier, Labels, Namespace};

pub use copy::{CopiedOut, CopyError, Found as FoundPath};
pub use exec::ExecRequest;
use making::Making;
pub use network::NetworkWish;
pub use stop::Stopped;
pub use update::ContainerDetails;
pub use usage::{ProcessLine, Usage};
pub(crate) use watch::Watches;

use crate::{Engine, EngineError};

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
    /// Its network, and namespaces of others that it joins.
    pub network: NetworkWish,
    /// Directory that is the root instead of an image's snapshot.
    pub rootfs: Option<PathBuf>,
    /// A first process of ours runs the container's.
    pub init: bool,
    /// When it is started again by itself: `no`, `always`, `unless-stopped`, `on-failure[:COUNT]`; empty is `no`.
    pub restart: String,
    /// Signal that asks it to end; empty is the image's.
    pub stop_signal: String,
    /// How long that is waited for, in seconds; 0 is the usual time.
    pub stop_timeout_seconds: u32,
    /// Where output goes that nobody is attached to.
    pub log: LogWish,
}

/// Where the output of a container goes that nobody is attached to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogWish {
    /// `json-file` (the default), `none`, or a URI of containerd's.
    pub driver: String,
    /// Options of the driver.
    pub options: std::collections::BTreeMap<String, String>,
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

/// Extension of a record: the options that a client of containerd gave for its runtime.
pub const RUNTIME_OPTIONS: &str = "windlass.io/runtime-options";

impl Engine {
    /// Makes a container and its shim; with `detach`, starts the process too.
    ///
    /// # Errors
    /// [`EngineError`], after which nothing of it is left: no record, no snapshot, no shim, no directory.
    pub fn run(&self, namespace: &Namespace, request: RunRequest) -> Result<Started, EngineError> {
        let image = match &request.rootfs {
            Some(_) => None,
            None => Some(self.image(namespace, &request.image)?),
        };
        let runtime = OciRuntime::find(Some(request.runtime.as_str()).filter(|name| !name.is_empty()))?;
        let id = self.new_id(namespace, &request.id)?;
        let started = Making::new(self, namespace, &id).make(image.as_ref(), &runtime, &request)?;
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
        if self.tasks().has(namespace, id) {
            return self.signal(namespace, id, "", signal, all);
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
            Status::Running { .. } | Status::Created if self.tasks().has(namespace, id) => {
                self.stop_container(namespace, id, "KILL", None)?;
            }
            Status::Running { .. } | Status::Created => self.end_shim(namespace, id)?,
            Status::Exited { .. } | Status::Lost => {}
        }
        if self.tasks().has(namespace, id) {
            ignore_missing(self.delete_task(namespace, id).map(drop))?;
        }
        self.take_away(namespace, &state.record)
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

    pub(crate) fn record(&self, namespace: &Namespace, id: &str) -> Result<ContainerRecord, EngineError> {
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
        if self.tasks().has(namespace, record.id.as_str()) || launch::is_of_clients(&record) {
            return self.state_of_task(namespace, record);
        }
        let bundle = self.bundle(namespace, record.id.as_str());
        let status = exited(&bundle).unwrap_or_else(|| self.live_status(namespace, record.id.as_str()));
        let spec_json = std::fs::read_to_string(runtime_shim::spec_path(&bundle)).unwrap_or_default();
        let args = args_of(&spec_json);
        ContainerState { record, status, spec_json, args }
    }

    /// The state of a container that a client of containerd made.
    fn state_of_task(&self, namespace: &Namespace, record: ContainerRecord) -> ContainerState {
        use runtime_api::containerd::v1::types::Status as Wire;
        let process = self.process(namespace, record.id.as_str(), "");
        let status = process.map_or(Status::Lost, |process| match process.status() {
            Wire::Created => Status::Created,
            Wire::Running | Wire::Paused | Wire::Pausing => Status::Running { pid: process.pid },
            Wire::Stopped => Status::Exited { code: process.exit_status },
            Wire::Unknown => Status::Lost,
        });
        let spec_json = String::from_utf8_lossy(&record.spec).into_owned();
        let args = args_of(&spec_json);
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

    /// Kills the process, or the shim that waits to start it, and waits until it has ended.
    fn end_shim(&self, namespace: &Namespace, id: &str) -> Result<(), EngineError> {
        const SIGKILL: i32 = 9;
        let Ok(client) = Client::connect(&self.socket(namespace, id)) else { return Ok(()) };
        // A process that ends at this very moment is as good as killed.
        let _ = client.kill(SIGKILL, true);
        client.wait_gone().map_err(|error| EngineError::shim(id)(error.into()))
    }

    /// The same for one that may still wait for its start.
    fn kill_waiting(&self, namespace: &Namespace, id: &str) -> Result<(), EngineError> {
        let killed = Client::connect(&self.socket(namespace, id)).and_then(|client| client.kill(9, true));
        killed.map_err(|error| EngineError::shim(id)(error.into()))
    }

    /// Waits until the shim of a container that has ended is gone, and takes away what a killed one left.
    fn settle(&self, namespace: &Namespace, id: &str) {
        let bundle = self.bundle(namespace, id);
        if !bundle.exists() {
            return;
        }
        match (Client::connect(&runtime_shim::socket_path(&bundle)), exited(&bundle)) {
            (Ok(client), Some(_)) => drop(client.wait_gone()),
            (Err(_), None) => drop(runtime_shim::recover(&bundle)),
            _ => {}
        }
    }

    fn take_away(&self, namespace: &Namespace, record: &ContainerRecord) -> Result<(), EngineError> {
        // Its process has ended. Before the lock: plug-ins are slow, and containers end together.
        self.detach_network(namespace, record.id.as_str());
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
        // One whose root is a directory of the user has none.
        if !record.snapshot_key.is_empty() {
            let snapshotter = self.snapshotter(&record.snapshotter, space)?;
            ignore_missing(snapshotter.remove(&record.snapshot_key).map_err(EngineError::from))?;
        }
        match std::fs::remove_dir_all(&bundle) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(EngineError::io("remove the directory", &bundle, source))
            }
            _ => Ok(()),
        }
    }
}

/// The command in a spec.
fn args_of(spec_json: &str) -> Vec<String> {
    let spec = serde_json::from_str::<serde_json::Value>(spec_json).ok();
    spec.and_then(|spec| serde_json::from_value(spec["process"]["args"].clone()).ok()).unwrap_or_default()
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
