//! How processes begin: a container's first one, which its creation made, and those of execs, with their streams.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use runtime_api::containerd::events;
use runtime_api::containerd::task::v2 as wire;
use runtime_ttrpc::{Code, Status};
use storage_sys::process::ChildExit;

use super::container::{Container, refusal, words};
use super::life::{Shim, internal, lock, name, read_pid};
use super::oom;
use super::process::{Exit, Phase, Process};
use super::streams::{ConsoleSocket, Owner, Streams};

impl Shim {
    /// Starts the first process, or an exec's.
    ///
    /// # Errors
    /// `NotFound`, `FailedPrecondition` for what was started already, `InvalidArgument` for a program that cannot be
    /// executed, `Internal`. A failed exec is one that has ended.
    pub(crate) fn start(&self, request: &wire::StartRequest) -> Result<wire::StartResponse, Status> {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        let _working = lock(&process.work);
        if process.phase() != Phase::Created {
            let words =
                format!("process {} was started already: failed precondition", name(&container, &process));
            return Err(Status::new(Code::FailedPrecondition, words));
        }
        let pid = if request.exec_id.is_empty() {
            self.start_init(&container, &process)?
        } else {
            self.start_exec(&container, &process)?
        };
        Ok(wire::StartResponse { pid })
    }

    fn start_init(&self, container: &Arc<Container>, process: &Arc<Process>) -> Result<u32, Status> {
        process.begin_start();
        oom::watch(container, &self.publisher);
        let started = self
            .run(container.runtime.start_call(&container.target()))
            .map_err(|error| refusal("OCI runtime start failed", &error));
        if started.is_ok() {
            let event = events::TaskStart { container_id: container.id.clone(), pid: process.pid() };
            self.publisher.publish("/tasks/start", &event);
        }
        if let Some(exit) = process.end_start(started.is_ok()) {
            self.announce(container, process, exit);
        }
        started.map(|()| process.pid())
    }

    fn start_exec(&self, container: &Arc<Container>, process: &Arc<Process>) -> Result<u32, Status> {
        if container.init.phase() != Phase::Running {
            let words = format!("task {} is not running: failed precondition", container.id);
            return Err(Status::new(Code::FailedPrecondition, words));
        }
        if container.paused.load(Ordering::Relaxed) {
            let words = format!("task {} is paused: failed precondition", container.id);
            return Err(Status::new(Code::FailedPrecondition, words));
        }
        process.begin_start();
        let window = self.reaper.window();
        match self.execute(container, process) {
            Ok(pid) => {
                self.adopt(&window, pid, container, process);
                let event = events::TaskExecStarted {
                    container_id: container.id.clone(),
                    exec_id: process.exec_id.clone(),
                    pid,
                };
                self.publisher.publish("/tasks/exec-started", &event);
                if let Some(exit) = process.end_start(true) {
                    self.announce(container, process, exit);
                }
                Ok(pid)
            }
            Err((status, code)) => {
                process.never_ran(Exit::of(ChildExit::Exited(code.into())));
                Err(status)
            }
        }
    }

    /// Has the runtime start an exec's process. An error carries the exit code that a shell would give.
    fn execute(&self, container: &Arc<Container>, process: &Arc<Process>) -> Result<u32, (Status, u8)> {
        const FAILED: u8 = 125;
        let (console, streams, given) =
            self.connect(container, process).map_err(|status| (status, FAILED))?;
        let spec = container.bundle.join(container.file_name("process"));
        let pid_file = container.bundle.join(container.file_name("pid"));
        let failed = |error: io::Error| (internal("the bundle", &error), FAILED);
        fs::write(&spec, &process.spec).map_err(failed)?;
        let console_name = console.as_ref().map(|(name, _)| name.as_str());
        let call = container.runtime.exec_call(&container.target(), &spec, &pid_file, console_name);
        let started = self.run_with(call, given);
        let pid = read_pid(&pid_file);
        let _ = fs::remove_file(&spec);
        let _ = fs::remove_file(&pid_file);
        started.map_err(|error| (refusal("OCI runtime exec failed", &error), error.exit_code()))?;
        let pid = pid.map_err(|status| (status, FAILED))?;
        let streams =
            self.connected(container, process, streams, console).map_err(|status| (status, FAILED))?;
        process.exists(pid, streams);
        Ok(pid)
    }

    /// What the runtime is to be given for a process: a console socket, or three descriptors.
    #[allow(clippy::type_complexity, reason = "taken apart at once by its two callers")]
    pub(super) fn connect(
        &self,
        container: &Container,
        process: &Process,
    ) -> Result<(Option<(String, ConsoleSocket)>, Option<Streams>, Option<super::streams::Given>), Status>
    {
        if process.wanted.terminal {
            let name = container.file_name("pty");
            let socket = ConsoleSocket::listen(&container.bundle, &name)
                .map_err(|error| internal("the console's socket", &error))?;
            return Ok((Some((name, socket)), None, None));
        }
        let (streams, given) = Streams::open(&process.wanted, &self.owner(container), &self.reaper)
            .map_err(|error| Status::new(Code::InvalidArgument, words(&error)))?;
        Ok((None, Some(streams), Some(given)))
    }

    /// The streams of a process that the runtime has made.
    pub(super) fn connected(
        &self,
        container: &Container,
        process: &Process,
        streams: Option<Streams>,
        console: Option<(String, ConsoleSocket)>,
    ) -> Result<Streams, Status> {
        let Some((_, socket)) = console else { return Ok(streams.unwrap_or_default()) };
        let master =
            socket.receive().map_err(|error| internal("the OCI runtime sent no terminal", &error))?;
        Streams::on_terminal(master, &process.wanted, &self.owner(container), &self.reaper)
            .map_err(|error| Status::new(Code::InvalidArgument, words(&error)))
    }

    fn owner<'a>(&'a self, container: &'a Container) -> Owner<'a> {
        let user = (container.options.io_uid, container.options.io_gid);
        Owner { namespace: &self.namespace, container: &container.id, user }
    }
}
