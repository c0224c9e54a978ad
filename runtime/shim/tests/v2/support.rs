//! A daemon to try a shim with: it starts shims as containerd does, calls them, and takes their events.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use prost::Message;
use prost_types::Any;
use runtime_api::containerd::services::events::ttrpc::v1::ForwardRequest;
use runtime_api::containerd::task::v2 as wire;
use runtime_api::containerd::types::{Envelope, Mount};
use runtime_ttrpc::{Call, Client, Reply, Server, Service, TtrpcError, socket_of};
use serde_json::{Value, json};

/// Longest a test waits for what must come.
const LONG: Duration = Duration::from_secs(30);

const APPLETS: [&str; 16] = [
    "sh", "true", "false", "echo", "cat", "sleep", "tty", "stty", "id", "kill", "ps", "seq", "wc", "head",
    "dd", "trap",
];

/// Takes events, as a daemon does.
#[derive(Default)]
struct Ears {
    heard: Mutex<Vec<Envelope>>,
    changed: Condvar,
}

impl Service for Ears {
    fn call(&self, call: Call, reply: Reply) {
        let request: ForwardRequest = call.request().unwrap();
        self.heard.lock().unwrap().extend(request.envelope);
        self.changed.notify_all();
        reply.send(Ok(()));
    }
}

/// A daemon's place: sockets, bundles, and what it has heard.
pub(crate) struct Daemon {
    directory: tempfile::TempDir,
    ears: Arc<Ears>,
    shims: Mutex<Vec<u32>>,
}

/// A task: its bundle, and the connection to its shim.
pub(crate) struct Task<'a> {
    pub(crate) daemon: &'a Daemon,
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) client: Client,
}

impl Daemon {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path();
        for name in
            ["bin", "sockets", "lower/bin", "lower/proc", "lower/dev", "lower/sys", "lower/etc", "lower/tmp"]
        {
            fs::create_dir_all(top.join(name)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_shim-under-test"), top.join("bin").join(runtime_shim::v2::PROGRAM_NAME))
            .unwrap();
        let busybox = ["/usr/bin/busybox", "/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        fs::copy(busybox.expect("busybox-static is needed"), top.join("lower/bin/busybox")).unwrap();
        for name in APPLETS {
            symlink("busybox", top.join("lower/bin").join(name)).unwrap();
        }
        let ears = Arc::new(Ears::default());
        let server = Server::bind(&top.join("events"), Arc::clone(&ears) as Arc<dyn Service>).unwrap();
        std::thread::spawn(move || server.run());
        Self { directory, ears, shims: Mutex::default() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join(name)
    }

    /// A bundle for a container that runs `script`, changed by `change`.
    pub(crate) fn bundle(&self, script: &str, change: impl FnOnce(&mut Value)) -> (String, PathBuf) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("v2-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let bundle = self.path(&id);
        for name in ["rootfs", "upper", "work"] {
            fs::create_dir_all(bundle.join(name)).unwrap();
        }
        let mut spec = json!({
            "ociVersion": "1.0.2",
            "process": {
                "cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["/bin/sh", "-c", script],
                "env": ["PATH=/bin"], "terminal": false,
                "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
            },
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                 "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            ],
            "linux": {
                "cgroupsPath": format!("/windlass-test/{id}"),
                "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}],
            },
        });
        change(&mut spec);
        fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
        (id, bundle)
    }

    /// Calls the shim's program as containerd does.
    pub(crate) fn program(&self, id: &str, bundle: &Path, words: &[&str]) -> Output {
        Command::new(self.path("bin").join(runtime_shim::v2::PROGRAM_NAME))
            .args(["-namespace", "test", "-address", "/nowhere/daemon.sock", "-id", id])
            .args(words)
            .current_dir(bundle)
            .env("TTRPC_ADDRESS", self.path("events"))
            .env(runtime_shim::v2::SOCKETS_VARIABLE, self.path("sockets"))
            .env(runtime_shim::v2::RUNTIME_VARIABLE, "runc")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Starts (or finds) the shim for a bundle.
    pub(crate) fn task(&self, id: &str, bundle: &Path) -> Task<'_> {
        let output = self.program(id, bundle, &["start"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let address = String::from_utf8(output.stdout).unwrap();
        let client = Client::connect(socket_of(&address)).unwrap();
        if let Ok(pid) = fs::read_to_string(bundle.join("shim.pid")) {
            self.shims.lock().unwrap().push(pid.parse().unwrap());
        }
        Task { daemon: self, id: id.to_owned(), bundle: bundle.to_owned(), client }
    }

    /// A task that runs `script`, created with nothing attached.
    pub(crate) fn created(&self, script: &str) -> Task<'_> {
        let (id, bundle) = self.bundle(script, |_| {});
        let task = self.task(&id, &bundle);
        task.create(|_| {}).unwrap();
        task
    }

    /// Waits until `wanted` finds something in all that was heard.
    pub(crate) fn hear<T>(&self, what: &str, wanted: impl Fn(&[Envelope]) -> Option<T>) -> T {
        let deadline = Instant::now() + LONG;
        let mut heard = self.ears.heard.lock().unwrap();
        loop {
            if let Some(found) = wanted(&heard) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "never heard of {what}: {:?}", topics(&heard));
            heard = self.ears.changed.wait_timeout(heard, left).unwrap().0;
        }
    }

    /// Topics heard, once `topic` is among them.
    pub(crate) fn topics_until(&self, topic: &str) -> Vec<String> {
        self.hear(topic, |heard| {
            let topics = topics(heard);
            topics.iter().any(|heard| heard == topic).then_some(topics)
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        for pid in self.shims.lock().unwrap().drain(..) {
            // Gone already, as a rule.
            if let Ok(shim) = storage_sys::process::Pidfd::open(pid) {
                let _ = shim.signal(9);
            }
        }
    }
}

fn topics(heard: &[Envelope]) -> Vec<String> {
    heard.iter().map(|envelope| envelope.topic.clone()).collect()
}

impl Task<'_> {
    pub(crate) fn call<Req: Message, Resp: Message + Default>(
        &self,
        method: &str,
        request: &Req,
    ) -> Result<Resp, TtrpcError> {
        self.client.call("containerd.task.v2.Task", method, request, Some(LONG))
    }

    pub(crate) fn create(
        &self,
        change: impl FnOnce(&mut wire::CreateTaskRequest),
    ) -> Result<wire::CreateTaskResponse, TtrpcError> {
        let place = |name: &str| self.bundle.join(name).display().to_string();
        let options = vec![
            format!("lowerdir={}", self.daemon.path("lower").display()),
            format!("upperdir={}", place("upper")),
            format!("workdir={}", place("work")),
        ];
        let mount =
            Mount { r#type: "overlay".into(), source: "overlay".into(), target: String::new(), options };
        let mut request = wire::CreateTaskRequest {
            id: self.id.clone(),
            bundle: self.bundle.display().to_string(),
            rootfs: vec![mount],
            ..Default::default()
        };
        change(&mut request);
        self.call("Create", &request)
    }

    pub(crate) fn start(&self, exec_id: &str) -> Result<u32, TtrpcError> {
        let request = wire::StartRequest { id: self.id.clone(), exec_id: exec_id.into() };
        self.call("Start", &request).map(|response: wire::StartResponse| response.pid)
    }

    pub(crate) fn wait(&self, exec_id: &str) -> Result<u32, TtrpcError> {
        let request = wire::WaitRequest { id: self.id.clone(), exec_id: exec_id.into() };
        self.call("Wait", &request).map(|response: wire::WaitResponse| response.exit_status)
    }

    pub(crate) fn kill(&self, exec_id: &str, signal: u32, all: bool) -> Result<(), TtrpcError> {
        let request = wire::KillRequest { id: self.id.clone(), exec_id: exec_id.into(), signal, all };
        self.call("Kill", &request)
    }

    pub(crate) fn delete(&self, exec_id: &str) -> Result<wire::DeleteResponse, TtrpcError> {
        self.call("Delete", &wire::DeleteRequest { id: self.id.clone(), exec_id: exec_id.into() })
    }

    pub(crate) fn state(&self, exec_id: &str) -> Result<wire::StateResponse, TtrpcError> {
        self.call("State", &wire::StateRequest { id: self.id.clone(), exec_id: exec_id.into() })
    }

    pub(crate) fn exec(&self, exec_id: &str, script: &str) -> Result<(), TtrpcError> {
        self.exec_with(exec_id, script, |_| {})
    }

    pub(crate) fn exec_with(
        &self,
        exec_id: &str,
        script: &str,
        change: impl FnOnce(&mut wire::ExecProcessRequest),
    ) -> Result<(), TtrpcError> {
        let process = json!({"cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"],
            "args": ["/bin/sh", "-c", script]});
        let spec = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
            value: process.to_string().into_bytes(),
        };
        let mut request = wire::ExecProcessRequest {
            id: self.id.clone(),
            exec_id: exec_id.into(),
            spec: Some(spec),
            ..Default::default()
        };
        change(&mut request);
        self.call("Exec", &request)
    }

    /// Ends the shim, and waits until it is gone.
    pub(crate) fn shutdown(&self) {
        let request = wire::ShutdownRequest { id: self.id.clone(), now: false };
        let _ = self.call::<_, ()>("Shutdown", &request);
        eventually("the shim is gone", || self.client.is_closed());
    }

    /// Checks that nothing of the task is left on this machine.
    pub(crate) fn assert_clean(&self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let bundle = self.bundle.display().to_string();
        assert!(!mounts.contains(&bundle), "a mount is left below {bundle}");
        assert!(!Path::new("/run/containerd/runc/test").join(&self.id).exists(), "runc still knows it");
        assert!(!Path::new("/sys/fs/cgroup/pids/windlass-test").join(&self.id).exists(), "a cgroup is left");
    }
}

/// A fifo of the daemon's; named pipes are made by a program, since std makes none.
pub(crate) fn fifo(path: &Path) -> String {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    path.display().to_string()
}

/// All that comes out of a fifo until its last writer has closed it.
pub(crate) fn drain(path: &str) -> std::thread::JoinHandle<String> {
    let path = path.to_owned();
    std::thread::spawn(move || {
        let mut text = String::new();
        fs::File::open(path).unwrap().read_to_string(&mut text).unwrap();
        text
    })
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
