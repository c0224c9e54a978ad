//! The process that serves: its beginning, its end, and the table of methods.

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use prost::Message;
use runtime_api::any;
use runtime_api::containerd::events;
use runtime_api::containerd::runc::v1::{CheckpointOptions, ProcessDetails};
use runtime_api::containerd::task::v2 as wire;
use runtime_api::containerd::v1::types::ProcessInfo;
use runtime_container::runtime::Checkpointing;
use runtime_ttrpc::{Call, Code, Reply, Server, Service, Status};
use storage_sys::process;
use storage_sys::terminal::Size;

use super::args::Args;
use super::container::refusal;
use super::life::{Shim, internal, lock, running};
use super::process::Process;
use super::publisher::{Destination, Publisher};
use super::reaper::Reaper;
use super::stats;
use super::streams::Wanted;

/// Both versions have the same methods with the same messages.
const SERVICES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];

/// Longest time that events still to be told may hold up the end of the shim.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The kernel's way to say whom to spare when memory is short.
const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// Serves on the socket that is standard input, until `Shutdown`.
///
/// # Errors
/// What kept it from serving.
pub(crate) fn serve(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    let null = fs::File::options().read(true).write(true).open("/dev/null")?;
    process::replace_stdin(&null)?;
    process::close_on_exec_all()?;
    // It fails only where this process leads a group already, as when called by hand from a shell.
    let _ = process::new_session();
    let _ = process::set_name("windlass-shim");
    process::set_umask(0);
    process::become_subreaper()?;
    spare_less_than_parent();
    std::env::set_current_dir("/")?;

    let reaper = Reaper::start()?;
    let destination = Destination {
        ttrpc: std::env::var("TTRPC_ADDRESS").ok().filter(|address| !address.is_empty()),
        program: args.publish_binary.clone().map(|program| (program, args.address.clone())),
    };
    let publisher = Publisher::start(&args.namespace, destination, Arc::clone(&reaper))?;
    let runtime = std::env::var(super::RUNTIME_VARIABLE).ok().filter(|name| !name.is_empty());
    let shim = Shim::new(&args.namespace, runtime, reaper, Arc::clone(&publisher))?;
    let (stop, stopped) = mpsc::channel();
    let table = Arc::new(Table { shim, stop: Mutex::new(stop) });
    let server = Server::on(listener, table);
    super::thread("accept", move || {
        if let Err(error) = server.run() {
            let _ = writeln!(io::stderr(), "the shim's socket: {error}");
        }
    })?;
    // The sender lives in the server, which lives as long as this process.
    let _ = stopped.recv();
    let _ = fs::remove_file(PathBuf::from(&args.socket));
    publisher.flush(FLUSH_TIMEOUT);
    Ok(())
}

/// The shim is a little likelier to be killed for memory than the daemon, much less than a container.
fn spare_less_than_parent() {
    let score = fs::read_to_string(OOM_SCORE).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if let Some(score) = score.filter(|&score| score < 1000) {
        // Refused only to those without rights, who have nothing to spare either.
        let _ = fs::write(OOM_SCORE, (score + 1).to_string());
    }
}

struct Table {
    shim: Arc<Shim>,
    stop: Mutex<mpsc::Sender<()>>,
}

impl Service for Table {
    fn call(&self, call: Call, reply: Reply) {
        if !SERVICES.contains(&call.service.as_str()) {
            return reply.send::<()>(Err(call.unimplemented()));
        }
        match call.method.as_str() {
            "Create" => reply.send(call.request().and_then(|request| self.shim.create(&request))),
            "Start" => reply.send(call.request().and_then(|request| self.shim.start(&request))),
            "Delete" => reply.send(call.request().and_then(|request| self.shim.delete(&request))),
            "Kill" => reply.send(call.request().and_then(|request| self.shim.kill(&request))),
            "State" => reply.send(call.request().and_then(|request| self.state(&request))),
            "Exec" => reply.send(call.request().and_then(|request| self.exec(request))),
            "Pids" => reply.send(call.request().and_then(|request| self.pids(&request))),
            "Pause" => reply
                .send(call.request().and_then(|request: wire::PauseRequest| self.shim.pause(&request.id))),
            "Resume" => reply
                .send(call.request().and_then(|request: wire::ResumeRequest| self.shim.resume(&request.id))),
            "ResizePty" => reply.send(call.request().and_then(|request| self.resize(&request))),
            "CloseIO" => reply.send(call.request().and_then(|request| self.close_input(&request))),
            "Update" => reply.send(call.request().and_then(|request| self.update(&request))),
            "Checkpoint" => reply.send(call.request().and_then(|request| self.checkpoint(&request))),
            "Stats" => reply.send(call.request().and_then(|request| self.stats(&request))),
            "Connect" => reply.send(call.request().and_then(|request| self.connect(&request))),
            "Wait" => self.wait(&call, reply),
            "Shutdown" => self.shutdown(&call, reply),
            _ => reply.send::<()>(Err(call.unimplemented())),
        }
    }
}

impl Table {
    fn state(&self, request: &wire::StateRequest) -> Result<wire::StateResponse, Status> {
        let container = self.shim.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        let paused = container.paused.load(Ordering::Relaxed) && request.exec_id.is_empty();
        Ok(process.report(&container.id, &container.bundle.to_string_lossy(), paused))
    }

    fn exec(&self, request: wire::ExecProcessRequest) -> Result<(), Status> {
        let container = self.shim.container(&request.id)?;
        running(&container)?;
        if request.exec_id.is_empty() {
            return Err(Status::new(Code::InvalidArgument, "an exec needs an id"));
        }
        let spec = request.spec.map(|spec| spec.value).unwrap_or_default();
        let is_object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&spec);
        is_object.map_err(|error| {
            Status::new(Code::InvalidArgument, format!("the process of exec {}: {error}", request.exec_id))
        })?;
        let wanted = Wanted {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        container.add_exec(Process::new(&request.exec_id, wanted, spec))?;
        let event = events::TaskExecAdded { container_id: request.id, exec_id: request.exec_id };
        self.shim.publisher.publish("/tasks/exec-added", &event);
        Ok(())
    }

    fn pids(&self, request: &wire::PidsRequest) -> Result<wire::PidsResponse, Status> {
        let container = self.shim.container(&request.id)?;
        let processes = container
            .pids()
            .map_err(|error| internal("the container's processes", &error))?
            .into_iter()
            .map(|pid| {
                let info = container.exec_of(pid).map(|exec_id| any::pack(&ProcessDetails { exec_id }));
                ProcessInfo { pid, info }
            })
            .collect();
        Ok(wire::PidsResponse { processes })
    }

    fn resize(&self, request: &wire::ResizePtyRequest) -> Result<(), Status> {
        let process = self.shim.container(&request.id)?.process(&request.exec_id)?;
        let cut = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let size = Size { rows: cut(request.height), columns: cut(request.width) };
        // One that has no terminal yet has no size either.
        process
            .streams()
            .map_or(Ok(()), |streams| streams.resize(size))
            .map_err(|error| internal("the terminal", &error))
    }

    fn close_input(&self, request: &wire::CloseIoRequest) -> Result<(), Status> {
        let process = self.shim.container(&request.id)?.process(&request.exec_id)?;
        if let Some(streams) = process.streams().filter(|_| request.stdin) {
            streams.close_input();
        }
        Ok(())
    }

    fn update(&self, request: &wire::UpdateTaskRequest) -> Result<(), Status> {
        let container = self.shim.container(&request.id)?;
        let resources = request.resources.as_ref().map(|any| any.value.as_slice()).unwrap_or_default();
        serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(resources)
            .map_err(|error| Status::new(Code::InvalidArgument, format!("the resources: {error}")))?;
        let _working = lock(&container.work);
        let path = container.bundle.join(container.file_name("resources"));
        fs::write(&path, resources).map_err(|error| internal("the bundle", &error))?;
        let updated = self.shim.run(container.runtime.update_call(&container.target(), &path));
        let _ = fs::remove_file(&path);
        updated.map_err(|error| refusal("OCI runtime update failed", &error))
    }

    fn checkpoint(&self, request: &wire::CheckpointTaskRequest) -> Result<(), Status> {
        let container = self.shim.container(&request.id)?;
        running(&container)?;
        let options = match &request.options {
            Some(options) if any::is::<CheckpointOptions>(options) => {
                any::unpack(options).map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))?
            }
            _ => CheckpointOptions::default(),
        };
        let image = if request.path.is_empty() { &options.image_path } else { &request.path };
        if image.is_empty() {
            return Err(Status::new(Code::InvalidArgument, "a checkpoint needs a path"));
        }
        let to = Checkpointing {
            image: image.into(),
            work: Some(options.work_path.as_str()).filter(|path| !path.is_empty()).map(PathBuf::from),
            flags: checkpoint_flags(&options),
        };
        let _working = lock(&container.work);
        self.shim
            .run(container.runtime.checkpoint_call(&container.target(), &to))
            .map_err(|error| refusal("OCI runtime checkpoint failed", &error))?;
        let event =
            events::TaskCheckpointed { container_id: request.id.clone(), checkpoint: image.to_owned() };
        self.shim.publisher.publish("/tasks/checkpointed", &event);
        Ok(())
    }

    fn stats(&self, request: &wire::StatsRequest) -> Result<wire::StatsResponse, Status> {
        let container = self.shim.container(&request.id)?;
        let cgroup = container
            .cgroup()
            .ok_or_else(|| Status::new(Code::NotFound, "the container has no cgroup: not found"))?;
        Ok(wire::StatsResponse { stats: Some(stats::read(&cgroup)) })
    }

    fn connect(&self, request: &wire::ConnectRequest) -> Result<wire::ConnectResponse, Status> {
        let task_pid = match self.shim.container(&request.id) {
            Ok(container) => container.init.pid(),
            Err(_) => 0,
        };
        Ok(wire::ConnectResponse {
            shim_pid: std::process::id(),
            task_pid,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    fn wait(&self, call: &Call, reply: Reply) {
        let process = call.request().and_then(|request: wire::WaitRequest| {
            self.shim.container(&request.id)?.process(&request.exec_id)
        });
        match process {
            Ok(process) => process.when_ended(move |exit| {
                reply.send(Ok(wire::WaitResponse { exit_status: exit.status, exited_at: exit.timestamp() }));
            }),
            Err(status) => reply.send::<wire::WaitResponse>(Err(status)),
        }
    }

    fn shutdown(&self, call: &Call, reply: Reply) {
        let request = match wire::ShutdownRequest::decode(call.payload.as_slice()) {
            Ok(request) => request,
            Err(error) => {
                return reply.send::<()>(Err(Status::new(Code::InvalidArgument, error.to_string())));
            }
        };
        // Others of the group live on.
        let stays = !request.now && !self.shim.is_empty();
        reply.send::<()>(Ok(()));
        if !stays {
            let _ = lock(&self.stop).send(());
        }
    }
}

fn checkpoint_flags(options: &CheckpointOptions) -> Vec<String> {
    let mut flags: Vec<String> = [
        (!options.exit, "--leave-running"),
        (options.open_tcp, "--tcp-established"),
        (options.external_unix_sockets, "--ext-unix-sk"),
        (options.terminal, "--shell-job"),
        (options.file_locks, "--file-locks"),
    ]
    .iter()
    .filter(|(wanted, _)| *wanted)
    .map(|(_, flag)| (*flag).to_owned())
    .collect();
    if !options.cgroups_mode.is_empty() {
        flags.extend(["--manage-cgroups-mode".to_owned(), options.cgroups_mode.clone()]);
    }
    for namespace in &options.empty_namespaces {
        flags.extend(["--empty-ns".to_owned(), namespace.clone()]);
    }
    flags
}
