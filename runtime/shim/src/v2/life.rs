//! What each call of the task service does: the life of containers and of their processes.
//!
//! Two calls on one process, or two that change one container, are carried out one after the other; everything else
//! runs side by side. No lock that `State` or `Wait` need is held while an OCI runtime works.
//!
//! Not here: how processes begin, and their streams ([`begin`](super::begin)).
use std::collections::HashMap;
use std::fs;
use std::io;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use runtime_api::containerd::events;
use runtime_api::containerd::task::v2 as wire;
use runtime_container::runtime::{Call, Checkpointing, Making};
use runtime_ttrpc::{Code, Status};
use storage_sys::process::ChildExit;

use super::container::{Container, refusal, words};
use super::delete::Note;
use super::oom;
use super::process::{Exit, Phase, Process};
use super::publisher::Publisher;
use super::reaper::{Reaper, Window};

/// Longest time that output still on its way may hold up a deletion.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that a process may take to be seen dead after the OCI runtime has killed it.
const DEATH_TIMEOUT: Duration = Duration::from_secs(10);

const SIGKILL: u32 = 9;

/// The shim.
pub(crate) struct Shim {
    pub(crate) namespace: String,
    pub(crate) default_runtime: Option<String>,
    pub(crate) reaper: Arc<Reaper>,
    pub(crate) publisher: Arc<Publisher>,
    containers: Mutex<HashMap<String, Arc<Container>>>,
    ends: Mutex<mpsc::Sender<End>>,
}

/// Some process has ended.
pub(crate) struct End {
    container: Arc<Container>,
    process: Arc<Process>,
    exit: ChildExit,
}

impl Shim {
    /// A shim without containers, and the thread that announces ends.
    ///
    /// # Errors
    /// Those of starting the thread.
    pub(crate) fn new(
        namespace: &str,
        default_runtime: Option<String>,
        reaper: Arc<Reaper>,
        publisher: Arc<Publisher>,
    ) -> io::Result<Arc<Self>> {
        let (sender, receiver) = mpsc::channel();
        let shim = Arc::new(Self {
            namespace: namespace.to_owned(),
            default_runtime,
            reaper,
            publisher,
            containers: Mutex::default(),
            ends: Mutex::new(sender),
        });
        let worker = Arc::clone(&shim);
        super::thread("ends", move || worker.announce_ends(&receiver))?;
        Ok(shim)
    }

    /// The container `id`.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>, Status> {
        lock(&self.containers)
            .get(id)
            .cloned()
            .ok_or_else(|| Status::new(Code::NotFound, format!("container {id} not created: not found")))
    }

    /// Whether none is left.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.containers).is_empty()
    }

    /// Makes a container and its first process, which waits for its start.
    ///
    /// # Errors
    /// `AlreadyExists`, `InvalidArgument`, `NotFound` without a runtime, `Internal`. Nothing is left behind.
    pub(crate) fn create(
        &self,
        request: &wire::CreateTaskRequest,
    ) -> Result<wire::CreateTaskResponse, Status> {
        if lock(&self.containers).contains_key(&request.id) {
            return Err(Status::new(Code::AlreadyExists, format!("task {}: already exists", request.id)));
        }
        if let Some(container) = super::adopt::found(request)? {
            let pid = container.init.pid();
            lock(&self.containers).insert(request.id.clone(), container);
            return Ok(wire::CreateTaskResponse { pid });
        }
        let container = Container::prepare(&self.namespace, self.default_runtime.as_deref(), request)?;
        let note = Note {
            runtime: container.runtime.path().to_owned(),
            runtime_root: container.runtime_root.clone(),
            systemd_cgroup: container.options.systemd_cgroup,
        };
        note.write(&container.bundle).map_err(|error| internal("the bundle", &error))?;
        let container = Arc::new(container);
        let window = self.reaper.window();
        let pid = match self.make(&container, request) {
            Ok(pid) => pid,
            Err(status) => {
                // What a runtime made before it failed; most have made nothing.
                let _ = self.run(container.runtime.delete_call(&container.target(), true));
                return Err(status);
            }
        };
        lock(&self.containers).insert(request.id.clone(), Arc::clone(&container));
        let io = events::TaskIo {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        self.publisher.publish(
            "/tasks/create",
            &events::TaskCreate {
                container_id: request.id.clone(),
                bundle: request.bundle.clone(),
                rootfs: request.rootfs.clone(),
                io: Some(io),
                checkpoint: request.checkpoint.clone(),
                pid,
            },
        );
        let init = Arc::clone(&container.init);
        self.adopt(&window, pid, &container, &init);
        Ok(wire::CreateTaskResponse { pid })
    }

    fn make(&self, container: &Arc<Container>, request: &wire::CreateTaskRequest) -> Result<u32, Status> {
        let init = &container.init;
        let (console, streams, given) = self.connect(container, init)?;
        let console_name = console.as_ref().map(|(name, _)| name.as_str());
        let making = Making {
            console_socket: console_name,
            no_pivot: container.options.no_pivot_root,
            no_new_keyring: container.options.no_new_keyring,
        };
        let target = container.target();
        let call = if request.checkpoint.is_empty() {
            container.runtime.create_call(&target, making)
        } else {
            let from = Checkpointing { image: request.checkpoint.clone().into(), ..Checkpointing::default() };
            container.runtime.restore_call(&target, making, &from)
        };
        self.run_with(call, given).map_err(|error| refusal("OCI runtime create failed", &error))?;
        let pid = read_pid(&target.pid_file())?;
        let streams = self.connected(container, init, streams, console)?;
        init.exists(pid, streams);
        container.know_cgroup(pid);
        Ok(pid)
    }

    pub(super) fn adopt(
        &self,
        window: &Window<'_>,
        pid: u32,
        container: &Arc<Container>,
        process: &Arc<Process>,
    ) {
        let ends = lock(&self.ends).clone();
        let (container, process) = (Arc::clone(container), Arc::clone(process));
        self.reaper.adopt(window, pid, move |exit| {
            // The thread that announces lives as long as the shim.
            let _ = ends.send(End { container, process, exit });
        });
    }

    /// Deletes a process that has ended, and with the first one the container.
    ///
    /// # Errors
    /// `NotFound`, `FailedPrecondition` while it runs, `Internal` when the runtime refuses: then it may be tried again.
    pub(crate) fn delete(&self, request: &wire::DeleteRequest) -> Result<wire::DeleteResponse, Status> {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        let _working = lock(&process.work);
        let is_init = request.exec_id.is_empty();
        if process.phase() == Phase::Running {
            let words = format!(
                "cannot delete a running process {}: failed precondition",
                name(&container, &process)
            );
            return Err(Status::new(Code::FailedPrecondition, words));
        }
        if is_init {
            self.delete_container(&container)?;
        } else {
            finish(&process);
            container.remove_exec(&request.exec_id);
        }
        let exit = process.exit();
        let response = wire::DeleteResponse {
            pid: process.pid(),
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exit.and_then(|exit| exit.timestamp()),
        };
        if is_init {
            let event = events::TaskDelete {
                container_id: container.id.clone(),
                pid: response.pid,
                exit_status: response.exit_status,
                exited_at: response.exited_at,
                id: String::new(),
            };
            self.publisher.publish("/tasks/delete", &event);
        }
        Ok(response)
    }

    fn delete_container(&self, container: &Arc<Container>) -> Result<(), Status> {
        if container.adopted {
            lock(&self.containers).remove(&container.id);
            return Ok(());
        }
        let target = container.target();
        // One that was never started is ended by this.
        let force = container.init.exit().is_none();
        self.run(container.runtime.delete_call(&target, force))
            .or_else(|_| self.run(container.runtime.delete_call(&target, true)))
            .or_else(|error| match error {
                runtime_container::runtime::RuntimeError::NotFound { .. } => Ok(()),
                other => Err(other),
            })
            .map_err(|error| refusal("OCI runtime delete failed", &error))?;
        if force {
            let (sender, receiver) = mpsc::sync_channel(1);
            container.init.when_ended(move |_| {
                let _ = sender.send(());
            });
            // Nothing of it is left in either case; only its status would be missing.
            let _ = receiver.recv_timeout(DEATH_TIMEOUT);
        }
        finish(&container.init);
        container.unmount();
        lock(&self.containers).remove(&container.id);
        Ok(())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// `NotFound` for what has ended, `FailedPrecondition` before it exists, `InvalidArgument` for no signal.
    pub(crate) fn kill(&self, request: &wire::KillRequest) -> Result<(), Status> {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        if request.all && request.exec_id.is_empty() {
            if process.exit().is_some() && container.spec.has_own_processes() {
                return Err(Status::new(Code::NotFound, "process already finished: not found"));
            }
            self.run(container.runtime.kill_call(&container.target(), request.signal, true))
                .map_err(|error| refusal("OCI runtime kill failed", &error))?;
        } else {
            process.signal(request.signal)?;
        }
        if request.signal == SIGKILL && container.paused.load(Ordering::Relaxed) {
            // Where cgroups are v1, nothing dies while it is frozen.
            let _ = self.resume(&container.id);
        }
        Ok(())
    }

    /// Stops every process where it is.
    ///
    /// # Errors
    /// `NotFound`, `FailedPrecondition` unless it runs, `Internal`.
    pub(crate) fn pause(&self, id: &str) -> Result<(), Status> {
        let container = self.container(id)?;
        let _working = lock(&container.work);
        running(&container)?;
        self.run(container.runtime.pause_call(&container.target()))
            .map_err(|error| refusal("OCI runtime pause failed", &error))?;
        container.paused.store(true, Ordering::Relaxed);
        self.publisher.publish("/tasks/paused", &events::TaskPaused { container_id: id.to_owned() });
        Ok(())
    }

    /// Lets paused processes go on.
    ///
    /// # Errors
    /// As [`Shim::pause`].
    pub(crate) fn resume(&self, id: &str) -> Result<(), Status> {
        let container = self.container(id)?;
        let _working = lock(&container.work);
        running(&container)?;
        self.run(container.runtime.resume_call(&container.target()))
            .map_err(|error| refusal("OCI runtime resume failed", &error))?;
        container.paused.store(false, Ordering::Relaxed);
        self.publisher.publish("/tasks/resumed", &events::TaskResumed { container_id: id.to_owned() });
        Ok(())
    }

    /// Runs a call of the runtime to its end.
    pub(crate) fn run(&self, mut call: Call) -> Result<(), runtime_container::runtime::RuntimeError> {
        call.command.stdout(Stdio::null());
        self.run_with(call, None)
    }

    pub(super) fn run_with(
        &self,
        mut call: Call,
        given: Option<super::streams::Given>,
    ) -> Result<(), runtime_container::runtime::RuntimeError> {
        let keep_stderr = given.is_some();
        match given {
            Some(given) => {
                call.command.stdin(given.stdin).stdout(given.stdout).stderr(given.stderr);
            }
            None => {
                call.command.stdout(Stdio::null());
            }
        }
        let path = std::path::PathBuf::from(call.command.get_program());
        let outcome = self
            .reaper
            .run(&mut call.command, keep_stderr)
            .map_err(|source| runtime_container::runtime::RuntimeError::Start { path, source })?;
        call.outcome(outcome.status, &outcome.words)
    }

    fn announce_ends(&self, ends: &mpsc::Receiver<End>) {
        for End { container, process, exit } in ends {
            if let Some(exit) = process.ended(Exit::of(exit)) {
                self.announce(&container, &process, exit);
            }
        }
    }

    /// Tells the daemon, and everyone who waits, that a process has ended.
    pub(super) fn announce(&self, container: &Container, process: &Process, exit: Exit) {
        let is_init = process.exec_id.is_empty();
        if is_init && !container.spec.has_own_processes() {
            // Nothing else ends what the first process left: it is in a namespace that lives on.
            let _ = self.run(container.runtime.kill_call(&container.target(), SIGKILL, true));
        }
        if is_init {
            oom::tell_last(container, &self.publisher);
        }
        let event = events::TaskExit {
            container_id: container.id.clone(),
            id: name(container, process).to_owned(),
            pid: process.pid(),
            exit_status: exit.status,
            exited_at: exit.timestamp(),
        };
        self.publisher.publish("/tasks/exit", &event);
        process.answer_waiting(exit);
    }
}

/// Id of a process in events: the exec's, or the container's.
pub(super) fn name<'a>(container: &'a Container, process: &'a Process) -> &'a str {
    if process.exec_id.is_empty() { &container.id } else { &process.exec_id }
}

fn finish(process: &Process) {
    if let Some(streams) = process.streams() {
        streams.finish(OUTPUT_TIMEOUT);
    }
}

/// # Errors
/// `FailedPrecondition` unless the container runs.
pub(crate) fn running(container: &Container) -> Result<(), Status> {
    match container.init.phase() {
        Phase::Running => Ok(()),
        Phase::Created | Phase::Stopped => {
            let words = format!("task {} is not running: failed precondition", container.id);
            Err(Status::new(Code::FailedPrecondition, words))
        }
    }
}

pub(crate) fn internal(what: &str, error: &dyn std::error::Error) -> Status {
    Status::new(Code::Internal, format!("{what}: {}", words(error)))
}

pub(super) fn read_pid(path: &std::path::Path) -> Result<u32, Status> {
    let text =
        fs::read_to_string(path).map_err(|error| internal("the OCI runtime left no process id", &error))?;
    text.trim()
        .parse()
        .map_err(|_| Status::new(Code::Internal, format!("the OCI runtime left {text:?} as a process id")))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these guard is changed by single calls, or is nothing at all.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
