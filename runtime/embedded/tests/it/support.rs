//! A bundle, and a runtime that runs it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

const APPLETS: [&str; 22] = [
    "sh", "true", "false", "echo", "cat", "sleep", "tty", "stty", "id", "kill", "ps", "seq", "wc", "head",
    "ls", "grep", "pwd", "mount", "touch", "mknod", "env", "readlink",
];

/// A runtime to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Runc,
    Ours,
}

/// Both, the reference first.
pub(crate) const BOTH: [Which; 2] = [Which::Runc, Which::Ours];

/// A container's bundle, taken away with whatever runs of it.
pub(crate) struct Bundle {
    which: Which,
    directory: tempfile::TempDir,
    pub(crate) id: String,
    pub(crate) spec: Value,
}

/// How a call ended, and what it said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Which {
    fn program(self) -> Command {
        match self {
            Self::Runc => Command::new("runc"),
            Self::Ours => Command::new(env!("CARGO_BIN_EXE_oci-runtime-under-test")),
        }
    }
}

impl Bundle {
    /// A bundle whose process is `/bin/sh -c SCRIPT`.
    pub(crate) fn new(which: Which, script: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::tempdir().unwrap();
        let id = format!("oci-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let root = directory.path().join("rootfs");
        for name in ["bin", "proc", "dev", "sys", "etc", "tmp"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        let busybox = ["/usr/bin/busybox", "/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        fs::copy(busybox.expect("busybox-static is needed"), root.join("bin/busybox")).unwrap();
        for name in APPLETS {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        let caps =
            json!(["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_MKNOD", "CAP_SETUID", "CAP_SETGID"]);
        let spec = json!({
            "ociVersion": "1.0.2",
            "process": {
                "cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["/bin/sh", "-c", script],
                "env": ["PATH=/bin"], "terminal": false, "noNewPrivileges": true,
                "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            },
            "root": {"path": "rootfs"},
            "hostname": "inside",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                 "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            ],
            "linux": {
                "cgroupsPath": format!("/windlass-test/{id}"),
                "resources": {"devices": [{"allow": false, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}]},
                "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}],
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
                "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"],
            },
        });
        Self { which, directory, id, spec }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join(name)
    }

    /// The container's root on this machine.
    pub(crate) fn root(&self) -> PathBuf {
        self.path("rootfs")
    }

    /// A call of the runtime, with the spec as it is now.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        fs::write(self.path("config.json"), self.spec.to_string()).unwrap();
        let mut command = self.which.program();
        command.arg("--root").arg(self.path("state")).args(words).current_dir(self.path(""));
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn call(&self, words: &[&str]) -> Said {
        said(self.command(words).output().unwrap())
    }

    /// Runs it to its end. A watchdog ends what would not.
    pub(crate) fn run(&self) -> Said {
        fs::write(self.path("config.json"), self.spec.to_string()).unwrap();
        let plain = self.command(&["run", "--bundle", ".", &self.id]);
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "60"]).arg(plain.get_program()).args(plain.get_args());
        said(command.current_dir(self.path("")).stdin(Stdio::null()).output().unwrap())
    }

    /// Creates and starts it in the background, its output in the file `out`.
    pub(crate) fn start(&self) -> u32 {
        let out = fs::File::create(self.path("out")).unwrap();
        let mut create = self.command(&["create", "--bundle", ".", "--pid-file", "pid", &self.id]);
        create.stdout(out.try_clone().unwrap()).stderr(out);
        let status = create.status().unwrap();
        assert!(status.success(), "{:?}: {}", self.which, fs::read_to_string(self.path("out")).unwrap());
        let said = self.call(&["start", &self.id]);
        assert_eq!(said.code, Some(0), "{:?}: {said:?}", self.which);
        fs::read_to_string(self.path("pid")).unwrap().trim().parse().unwrap()
    }

    /// The state as the runtime tells it.
    pub(crate) fn state(&self) -> Value {
        let said = self.call(&["state", &self.id]);
        serde_json::from_str(&said.out).unwrap_or_else(|_| json!({ "status": "none" }))
    }

    /// Waits until the runtime says it has stopped.
    pub(crate) fn await_end(&self) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while self.state()["status"] != "stopped" {
            assert!(std::time::Instant::now() < deadline, "{:?}: it does not end", self.which);
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let said = self.call(&["delete", "--force", &self.id]);
        if said.code != Some(0) {
            let _ = writeln!(std::io::stderr(), "cannot delete {}: {said:?}", self.id);
        }
    }
}

fn said(output: Output) -> Said {
    Said {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
