//! One container: its bundle, its OCI runtime, its first process and its execs, from `Create` to `Delete`.
//!
//! The root is mounted at `rootfs` in the bundle, in the mount namespace that the shim was started in, as every shim
//! does: what a container shares outwards through a shared mount arrives outside.
use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runtime_api::containerd::runc::v1::Options;
use runtime_api::containerd::task::v2 as wire;
use runtime_api::{any, containerd::types::Mount as WireMount};
use runtime_container::runtime::{OciRuntime, RuntimeError, Target};
use runtime_ttrpc::{Code, Status};
use serde::Deserialize;
use storage_sys::mount::{self, Mount};

use super::cgroup::Cgroup;
use super::oom::Told;
use super::process::Process;
use super::streams::Wanted;
use crate::config::ShimConfig;

/// Largest `config.json`, in bytes.
const SPEC_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Where the stock shim keeps its OCI runtime's state, one directory a namespace below it.
const RUNTIME_ROOT: &str = "/run/containerd/runc";

/// A container.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) runtime: OciRuntime,
    pub(crate) runtime_root: PathBuf,
    pub(crate) options: Options,
    pub(crate) spec: SpecFacts,
    pub(crate) init: Arc<Process>,
    pub(crate) paused: AtomicBool,
    /// Held while a call changes the container as a whole.
    pub(crate) work: Mutex<()>,
    execs: Mutex<HashMap<String, Arc<Process>>>,
    root: Mutex<Root>,
    next_file: AtomicU64,
    cgroup: Mutex<Option<Cgroup>>,
    pub(crate) oom_told: Told,
    /// Another shim made it and watches it ([`super::adopt`]): its runtime is never told to forget it from here.
    pub(crate) adopted: bool,
}

/// What a shim needs to know of a spec.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SpecFacts {
    pub(crate) annotations: HashMap<String, String>,
    pub(crate) linux: LinuxFacts,
}

/// Its Linux part.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LinuxFacts {
    namespaces: Vec<NamespaceFacts>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct NamespaceFacts {
    r#type: String,
    path: String,
}

impl SpecFacts {
    /// Reads `config.json` of `bundle`.
    ///
    /// # Errors
    /// Those of reading; `InvalidData` for what is no spec.
    pub(crate) fn read(bundle: &Path) -> io::Result<Self> {
        let mut text = Vec::new();
        fs::File::open(bundle.join("config.json"))?.take(SPEC_BYTES_MAX).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Which shim the container shares with others: the pod's, by the annotations that containerd looks at.
    pub(crate) fn group(&self) -> Option<&str> {
        ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"]
            .iter()
            .find_map(|key| self.annotations.get(*key))
            .map(String::as_str)
            .filter(|group| !group.is_empty())
    }

    /// Whether the end of the first process ends all the others: only where the kernel does so, in a process namespace
    /// of the container's own.
    pub(crate) fn has_own_processes(&self) -> bool {
        self.linux.namespaces.iter().any(|namespace| namespace.r#type == "pid" && namespace.path.is_empty())
    }
}

/// The mounted root; taken down when dropped.
#[derive(Debug, Default)]
struct Root {
    path: PathBuf,
    mounts: usize,
}

impl Root {
    fn mount(bundle: &Path, mounts: &[WireMount]) -> Result<Self, Status> {
        let path = bundle.join("rootfs");
        if mounts.is_empty() {
            return Ok(Self { path, mounts: 0 });
        }
        let failed = |error: &dyn std::error::Error| {
            Status::new(Code::Internal, format!("the container's root: {}", words(error)))
        };
        fs::create_dir_all(&path).map_err(|error| failed(&error))?;
        let list: Vec<Mount> = mounts
            .iter()
            .map(|mount| Mount {
                kind: mount.r#type.clone(),
                source: mount.source.clone(),
                options: mount.options.clone(),
            })
            .collect();
        mount::mount_all(&list, &path).map_err(|error| failed(&error))?;
        Ok(Self { path, mounts: list.len() })
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        for _ in 0..self.mounts {
            // Detaching fails only when somebody took the mount away before us.
            let _ = mount::detach(&self.path);
        }
    }
}

impl Container {
    /// A container with its root mounted; nothing runs yet.
    ///
    /// # Errors
    /// `InvalidArgument` for options or a spec that cannot be read, `NotFound` for a runtime that is not there,
    /// `Internal` when the root cannot be mounted. Nothing is left behind.
    pub(crate) fn prepare(
        namespace: &str,
        default_runtime: Option<&str>,
        request: &wire::CreateTaskRequest,
    ) -> Result<Self, Status> {
        let options = options(request)?;
        let bundle = PathBuf::from(&request.bundle);
        let spec = SpecFacts::read(&bundle).map_err(|error| {
            Status::new(Code::InvalidArgument, format!("{}/config.json: {error}", bundle.display()))
        })?;
        let name = Some(options.binary_name.as_str()).filter(|name| !name.is_empty()).or(default_runtime);
        let runtime = OciRuntime::find(name)
            .map_err(|error| Status::new(Code::NotFound, words(&error)))?
            .with_systemd_cgroup(options.systemd_cgroup);
        let top = if options.root.is_empty() { RUNTIME_ROOT } else { &options.root };
        let root = Root::mount(&bundle, &request.rootfs)?;
        Ok(Self {
            id: request.id.clone(),
            runtime_root: Path::new(top).join(namespace),
            runtime,
            options,
            spec,
            init: Arc::new(Process::new(
                "",
                Wanted {
                    stdin: request.stdin.clone(),
                    stdout: request.stdout.clone(),
                    stderr: request.stderr.clone(),
                    terminal: request.terminal,
                },
                Vec::new(),
            )),
            paused: AtomicBool::new(false),
            work: Mutex::default(),
            execs: Mutex::default(),
            root: Mutex::new(root),
            next_file: AtomicU64::new(0),
            cgroup: Mutex::default(),
            oom_told: Told::default(),
            adopted: false,
            bundle,
        })
    }

    /// A container of `windlass run`'s shim.
    ///
    /// # Errors
    /// `FailedPrecondition` when its spec cannot be read: it was never started.
    pub(crate) fn adopt(config: &ShimConfig) -> Result<Self, Status> {
        let spec = SpecFacts::read(&config.bundle).map_err(|error| {
            let words = format!("container {} was not started: {error}", config.id);
            Status::new(Code::FailedPrecondition, words)
        })?;
        Ok(Self {
            id: config.id.clone(),
            bundle: config.bundle.clone(),
            runtime: OciRuntime::at(&config.runtime),
            runtime_root: config.runtime_root.clone(),
            options: Options::default(),
            spec,
            init: Arc::new(Process::new("", Wanted::default(), Vec::new())),
            paused: AtomicBool::new(false),
            work: Mutex::default(),
            execs: Mutex::default(),
            root: Mutex::default(),
            next_file: AtomicU64::new(0),
            cgroup: Mutex::default(),
            oom_told: Told::default(),
            adopted: true,
        })
    }

    /// The container as its OCI runtime is asked about it.
    pub(crate) fn target(&self) -> Target<'_> {
        Target { id: &self.id, root: &self.runtime_root, bundle: &self.bundle }
    }

    /// A name for a file in the bundle that no other call uses.
    pub(crate) fn file_name(&self, kind: &str) -> String {
        format!("{kind}-{}", self.next_file.fetch_add(1, Ordering::Relaxed))
    }

    /// The first process, or an exec's.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn process(&self, exec_id: &str) -> Result<Arc<Process>, Status> {
        if exec_id.is_empty() {
            return Ok(Arc::clone(&self.init));
        }
        lock(&self.execs).get(exec_id).cloned().ok_or_else(|| {
            let words = format!("process {exec_id} does not exist in container {}: not found", self.id);
            Status::new(Code::NotFound, words)
        })
    }

    /// Adds an exec.
    ///
    /// # Errors
    /// `AlreadyExists`.
    pub(crate) fn add_exec(&self, process: Process) -> Result<(), Status> {
        let mut execs = lock(&self.execs);
        if execs.contains_key(&process.exec_id) {
            return Err(Status::new(Code::AlreadyExists, format!("id {}: already exists", process.exec_id)));
        }
        execs.insert(process.exec_id.clone(), Arc::new(process));
        Ok(())
    }

    /// Forgets an exec.
    pub(crate) fn remove_exec(&self, exec_id: &str) {
        lock(&self.execs).remove(exec_id);
    }

    /// The exec that process `pid` is.
    pub(crate) fn exec_of(&self, pid: u32) -> Option<String> {
        lock(&self.execs).values().find(|process| process.pid() == pid).map(|process| process.exec_id.clone())
    }

    /// Looks up the cgroups of the first process, which is `pid`.
    pub(crate) fn know_cgroup(&self, pid: u32) {
        // Of one that is dead already there is nothing to know.
        *lock(&self.cgroup) = Cgroup::of(pid).ok();
    }

    /// The container's cgroups.
    pub(crate) fn cgroup(&self) -> Option<Cgroup> {
        lock(&self.cgroup).clone()
    }

    /// Its processes.
    ///
    /// # Errors
    /// Those of reading its cgroup.
    pub(crate) fn pids(&self) -> io::Result<Vec<u32>> {
        self.cgroup().map_or_else(|| Ok(Vec::new()), |cgroup| cgroup.pids())
    }

    /// Takes the root down.
    pub(crate) fn unmount(&self) {
        drop(std::mem::take(&mut *lock(&self.root)));
    }
}

fn options(request: &wire::CreateTaskRequest) -> Result<Options, Status> {
    match &request.options {
        Some(given) if any::is::<Options>(given) => any::unpack(given)
            .map_err(|error| Status::new(Code::InvalidArgument, format!("the runtime's options: {error}"))),
        // Another runtime's options, as of a config file: nothing of them concerns us.
        _ => Ok(Options::default()),
    }
}

/// Words of an error and of its causes.
pub(crate) fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

/// The status that a runtime's failure becomes: what the caller chose wrongly is `InvalidArgument`.
pub(crate) fn refusal(what: &str, error: &RuntimeError) -> Status {
    let code = match error {
        RuntimeError::ProgramNotFound { .. }
        | RuntimeError::ProgramNotExecutable { .. }
        | RuntimeError::WorkingDirectory { .. }
        | RuntimeError::Mount { .. } => Code::InvalidArgument,
        RuntimeError::AlreadyExists { .. } => Code::AlreadyExists,
        RuntimeError::NotFound { .. } => Code::NotFound,
        _ => Code::Internal,
    };
    Status::new(code, format!("{what}: {}", words(error)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is one call, so they are whole whatever happened.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
