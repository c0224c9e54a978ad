//! What callers ask of tasks: containerd's Tasks service, as calls of the engine.
//!
//! Every call names a container; without its record there is no task to speak of, even if a process runs. An empty exec is
//! the container's first process.

use std::sync::Arc;
use std::time::SystemTime;

use prost::Message;
use prost_types::Any;
use runtime_api::containerd::task::v2 as wire;
use runtime_api::containerd::types::{Metric, Mount};
use runtime_api::containerd::v1::types::{Process, ProcessInfo, Status};
use storage_content::ErrorKind;
use storage_model::{Descriptor, Namespace};

use super::link::Link;
use super::live::{Exit, Task, Waiter};
use super::{EventSink, NewTask, TaskError};
use crate::container::RUNTIME_OPTIONS;
use crate::{Engine, EngineError};

/// A task to be made of a container.
#[derive(Debug, Clone, Default)]
pub struct CreateTask {
    /// Mounts of the root, made by the shim.
    pub rootfs: Vec<Mount>,
    /// Paths of FIFOs or URIs of logs; empty: nothing is connected.
    pub stdin: String,
    /// Of standard output.
    pub stdout: String,
    /// Of standard error.
    pub stderr: String,
    /// The process gets a terminal.
    pub terminal: bool,
    /// What to restore it from.
    pub checkpoint: Option<Descriptor>,
    /// The runtime's options; none: those of the container.
    pub options: Option<Any>,
    /// A shim instead of the container's own; empty: its own.
    pub runtime_path: String,
}

/// A further process in a task.
#[derive(Debug, Clone, Default)]
pub struct ExecTask {
    /// Its name; unique in the task.
    pub exec_id: String,
    /// As in [`CreateTask`].
    pub stdin: String,
    /// Of standard output.
    pub stdout: String,
    /// Of standard error.
    pub stderr: String,
    /// It gets a terminal.
    pub terminal: bool,
    /// The `process` of an OCI spec, JSON.
    pub spec: Option<Any>,
}

impl Engine {
    /// Has `sink` hear what happens to tasks and their shims cannot tell.
    pub fn tell_task_events(&self, sink: EventSink) {
        self.tasks().tell_events(sink);
    }

    /// Makes the task of a container; its process waits for [`Engine::start_process`]. Returns the process's id.
    ///
    /// # Errors
    /// [`TaskError::Exists`] if it has one; [`TaskError::NoShim`]; [`TaskError::Shim`] with the OCI runtime's words.
    /// Nothing of the task is left then.
    pub fn create_task(
        &self,
        namespace: &Namespace,
        id: &str,
        wanted: CreateTask,
    ) -> Result<u32, EngineError> {
        let record = self.record(namespace, id)?;
        if record.spec.is_empty() {
            return Err(TaskError::NoSpec { id: id.to_owned() }.into());
        }
        let restored = self.restore_from(namespace, &wanted)?;
        let own = record.extensions.get(RUNTIME_OPTIONS);
        let own = own.map(|kept| Any { type_url: kept.type_url.clone(), value: kept.value.clone() });
        let new = NewTask {
            runtime: if wanted.runtime_path.is_empty() { record.runtime } else { wanted.runtime_path },
            spec: record.spec,
            rootfs: wanted.rootfs,
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
            terminal: wanted.terminal,
            checkpoint: restored.as_ref().map(|from| from.path().display().to_string()).unwrap_or_default(),
            options: wanted.options.or(own),
        };
        Ok(self.tasks().create(namespace, id, new)?)
    }

    /// Starts the first process, or an exec; returns its id.
    ///
    /// # Errors
    /// [`TaskError::Shim`] with the OCI runtime's words: no such program, no such directory.
    pub fn start_process(&self, namespace: &Namespace, id: &str, exec: &str) -> Result<u32, EngineError> {
        let request = wire::StartRequest { id: id.to_owned(), exec_id: exec.to_owned() };
        let answer: wire::StartResponse = self.task_call(namespace, id, "Start", &request)?;
        Ok(answer.pid)
    }

    /// Takes an ended task away.
    ///
    /// # Errors
    /// [`TaskError::Shim`] of the kind `FailedPrecondition` while it runs.
    pub fn delete_task(&self, namespace: &Namespace, id: &str) -> Result<Exit, EngineError> {
        self.record(namespace, id)?;
        if !self.tasks().has(namespace, id) && self.plain_bundle(namespace, id).is_some() {
            return self.delete_plain(namespace, id);
        }
        Ok(self.tasks().delete(namespace, id)?)
    }

    /// Has an ended exec forgotten.
    ///
    /// # Errors
    /// As [`Engine::delete_task`].
    pub fn delete_exec(&self, namespace: &Namespace, id: &str, exec: &str) -> Result<Exit, EngineError> {
        if exec.is_empty() {
            return Err(TaskError::Empty { what: "exec id" }.into());
        }
        Ok(self.shim(namespace, id)?.link().delete(exec)?.into())
    }

    /// How a process is doing.
    ///
    /// # Errors
    /// [`TaskError::NoTask`], or the shim's: there is no such exec.
    pub fn process(&self, namespace: &Namespace, id: &str, exec: &str) -> Result<Process, EngineError> {
        if exec.is_empty()
            && !self.tasks().has(namespace, id)
            && let Some(process) = self.plain_process(namespace, id)?
        {
            return Ok(process);
        }
        Ok(process(id, self.shim(namespace, id)?.link().state(exec)?))
    }

    /// The first processes of all tasks of a namespace. One whose shim does not answer in time is of unknown status; one
    /// whose shim is just gone is left out.
    pub fn processes(&self, namespace: &Namespace) -> Vec<Process> {
        let tasks = self.tasks().table().all(namespace);
        let states = tasks.iter().map(|task| (task.id(), task.link.state("")));
        let mut all: Vec<Process> = states
            .filter_map(|(id, state)| match state {
                Ok(state) => Some(process(id, state)),
                Err(error) if error.is_gone() || error.kind() == ErrorKind::NotFound => None,
                Err(error) => {
                    tracing::warn!(%error, %id, "a shim does not say how its task is doing");
                    Some(Process { id: id.to_owned(), ..Process::default() })
                }
            })
            .collect();
        all.extend(self.plain_processes(namespace));
        all.sort_by(|one, other| one.id.cmp(&other.id));
        all
    }

    /// Sends a signal to a process, or with `all` to every process of the container.
    ///
    /// # Errors
    /// The shim's `NotFound` if it has ended.
    pub fn signal(
        &self,
        namespace: &Namespace,
        id: &str,
        exec: &str,
        signal: u32,
        all: bool,
    ) -> Result<(), EngineError> {
        if exec.is_empty() && !self.tasks().has(namespace, id) && self.plain_bundle(namespace, id).is_some() {
            return self.kill(namespace, id, signal, all);
        }
        let request = wire::KillRequest { id: id.to_owned(), exec_id: exec.to_owned(), signal, all };
        self.task_order(namespace, id, "Kill", &request)
    }

    /// Makes a further process; it waits for [`Engine::start_process`].
    ///
    /// # Errors
    /// `InvalidArgument` without a name, or with one that is none; the shim's.
    pub fn exec_task(&self, namespace: &Namespace, id: &str, wanted: ExecTask) -> Result<(), EngineError> {
        if wanted.exec_id.is_empty() {
            return Err(TaskError::Empty { what: "exec id" }.into());
        }
        let shim = self.shim(namespace, id)?;
        wanted.exec_id.parse::<storage_model::Identifier>()?;
        let request = wire::ExecProcessRequest {
            id: id.to_owned(),
            exec_id: wanted.exec_id,
            terminal: wanted.terminal,
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
            spec: wanted.spec,
        };
        Ok(shim.link().order("Exec", &request)?)
    }

    /// Sets the size of a process's terminal.
    ///
    /// # Errors
    /// The shim's: it has none.
    pub fn resize_terminal(
        &self,
        namespace: &Namespace,
        id: &str,
        exec: &str,
        width: u32,
        height: u32,
    ) -> Result<(), EngineError> {
        let request = wire::ResizePtyRequest { id: id.to_owned(), exec_id: exec.to_owned(), width, height };
        self.task_order(namespace, id, "ResizePty", &request)
    }

    /// Closes a process's standard input.
    ///
    /// # Errors
    /// The shim's.
    pub fn close_input(&self, namespace: &Namespace, id: &str, exec: &str) -> Result<(), EngineError> {
        let request = wire::CloseIoRequest { id: id.to_owned(), exec_id: exec.to_owned(), stdin: true };
        self.task_order(namespace, id, "CloseIO", &request)
    }

    /// Stops every process of a task where it is.
    ///
    /// # Errors
    /// The shim's: it does not run.
    pub fn pause_task(&self, namespace: &Namespace, id: &str) -> Result<(), EngineError> {
        self.task_order(namespace, id, "Pause", &wire::PauseRequest { id: id.to_owned() })
    }

    /// Has them go on.
    ///
    /// # Errors
    /// The shim's: it is not paused.
    pub fn resume_task(&self, namespace: &Namespace, id: &str) -> Result<(), EngineError> {
        self.task_order(namespace, id, "Resume", &wire::ResumeRequest { id: id.to_owned() })
    }

    /// Processes of a task.
    ///
    /// # Errors
    /// The shim's.
    pub fn task_pids(&self, namespace: &Namespace, id: &str) -> Result<Vec<ProcessInfo>, EngineError> {
        let request = wire::PidsRequest { id: id.to_owned() };
        let answer: wire::PidsResponse = self.task_call(namespace, id, "Pids", &request)?;
        Ok(answer.processes)
    }

    /// Changes limits; `resources` is the OCI spec's, JSON.
    ///
    /// # Errors
    /// The shim's: a limit that the kernel refuses.
    pub fn update_task(
        &self,
        namespace: &Namespace,
        id: &str,
        resources: Option<Any>,
        annotations: std::collections::HashMap<String, String>,
    ) -> Result<(), EngineError> {
        let request = wire::UpdateTaskRequest { id: id.to_owned(), resources, annotations };
        self.task_order(namespace, id, "Update", &request)
    }

    /// What the tasks use that `wanted` accepts by their name. One that has no numbers is left out.
    pub fn task_metrics(&self, namespace: &Namespace, wanted: impl Fn(&str) -> bool) -> Vec<Metric> {
        let tasks = self.tasks().table().all(namespace);
        let metric = |id: &str| {
            let timestamp = Some(SystemTime::now().into());
            match self.task_stats(namespace, id) {
                Ok(data) => Some(Metric { timestamp, id: id.to_owned(), data }),
                Err(error) => {
                    tracing::debug!(%error, %id, "a task has no metrics");
                    None
                }
            }
        };
        tasks.iter().map(|task| task.id()).filter(|id| wanted(id)).filter_map(metric).collect()
    }

    /// What one task uses: a message of `io.containerd.cgroups.v1` or `v2`.
    ///
    /// # Errors
    /// The shim's: it has ended.
    pub fn task_stats(&self, namespace: &Namespace, id: &str) -> Result<Option<Any>, EngineError> {
        let request = wire::StatsRequest { id: id.to_owned() };
        let answer: wire::StatsResponse = self.task_call(namespace, id, "Stats", &request)?;
        Ok(answer.stats)
    }

    /// Has `waiter` called when a process has ended; at once if it has.
    ///
    /// # Errors
    /// [`TaskError::NoTask`], or the shim's: there is no such exec. Then `waiter` is not called.
    pub fn when_ended(
        &self,
        namespace: &Namespace,
        id: &str,
        exec: &str,
        waiter: Waiter,
    ) -> Result<(), EngineError> {
        if exec.is_empty() && !self.tasks().has(namespace, id) && self.plain_bundle(namespace, id).is_some() {
            return self.when_plain_ended(namespace, id, waiter);
        }
        match self.shim(namespace, id)? {
            Shim::Task(task) => {
                if !exec.is_empty() {
                    task.link.state(exec)?;
                }
                task.when_ended(exec, waiter);
            }
            Shim::Second(link) => {
                link.state(exec)?;
                link.when_ended(exec, waiter)?;
            }
        }
        Ok(())
    }

    /// The shim of a container: its task's, or the second one of a container of `windlass run`.
    pub(super) fn shim(&self, namespace: &Namespace, id: &str) -> Result<Shim, EngineError> {
        self.record(namespace, id)?;
        match self.tasks().table().get(namespace, id) {
            Ok(task) => Ok(Shim::Task(task)),
            Err(error) => match self.plain_bundle(namespace, id) {
                Some(bundle) if self.plain_process(namespace, id)?.is_some() => {
                    Ok(Shim::Second(self.tasks().second(namespace, id, &bundle)?))
                }
                _ => Err(error.into()),
            },
        }
    }

    fn task_call<A: Message + Default>(
        &self,
        namespace: &Namespace,
        id: &str,
        method: &str,
        request: &impl Message,
    ) -> Result<A, EngineError> {
        Ok(self.shim(namespace, id)?.link().work(method, request)?)
    }

    fn task_order(
        &self,
        namespace: &Namespace,
        id: &str,
        method: &str,
        request: &impl Message,
    ) -> Result<(), EngineError> {
        Ok(self.shim(namespace, id)?.link().order(method, request)?)
    }
}

/// What speaks the shim protocol for a container.
pub(super) enum Shim {
    Task(Arc<Task>),
    Second(Arc<Link>),
}

impl Shim {
    pub(super) fn link(&self) -> &Link {
        match self {
            Self::Task(task) => &task.link,
            Self::Second(link) => link,
        }
    }
}

/// A shim's answer as containerd's service gives it: the container's name stands in `id`, where an exec's would.
fn process(id: &str, state: wire::StateResponse) -> Process {
    let id = if state.exec_id.is_empty() || state.exec_id == id { id.to_owned() } else { state.exec_id };
    Process {
        container_id: String::new(),
        id,
        pid: state.pid,
        status: Status::try_from(state.status).unwrap_or_default().into(),
        stdin: state.stdin,
        stdout: state.stdout,
        stderr: state.stderr,
        terminal: state.terminal,
        exit_status: state.exit_status,
        exited_at: state.exited_at,
    }
}
