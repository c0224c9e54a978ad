//! A container to try: a busybox root, a bundle, a shim of this crate's own binary, the machine's own OCI runtime.
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use runtime_container::runtime::OciRuntime;
use runtime_container::spec::RunOptions;
use runtime_shim::{Client, ClientError, ExitStatus, Handle, MountSpec, ShimConfig, spawn};
use serde_json::{Value, json};
use storage_model::ImageConfig;

/// Programs that busybox is asked to be.
const APPLETS: [&str; 19] = [
    "sh", "true", "false", "echo", "cat", "sleep", "tty", "stty", "id", "pwd", "env", "ls", "kill", "ps",
    "hostname", "head", "grep", "seq", "wc",
];

pub(crate) struct Bundle {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) config: ShimConfig,
}

/// The program of a busybox that needs no library.
fn busybox() -> PathBuf {
    ["/usr/bin/busybox", "/bin/busybox"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .expect("these tests need busybox (apt-get install busybox-static) and runc")
}

impl Bundle {
    /// A bundle whose image has `config` as its process defaults; nothing is started.
    pub(crate) fn new(config: Value, options: RunOptions) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().canonicalize().unwrap();
        let id = format!("shim-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        for name in
            ["lower/bin", "lower/etc", "lower/proc", "lower/sys", "lower/dev", "upper", "work", "bundle"]
        {
            fs::create_dir_all(top.join(name)).unwrap();
        }
        fs::create_dir(top.join("lower/tmp")).unwrap();
        fs::set_permissions(top.join("lower/tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        // The root of a mount that others enter must be open to them.
        for name in ["lower", "upper"] {
            fs::set_permissions(top.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::copy(busybox(), top.join("lower/bin/busybox")).unwrap();
        for name in APPLETS {
            symlink("busybox", top.join("lower/bin").join(name)).unwrap();
        }
        fs::write(
            top.join("lower/etc/passwd"),
            "root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/sh\n1000:x:0:0::/:\n",
        )
        .unwrap();
        fs::write(top.join("lower/etc/group"), "root:x:0:\nweb:x:34:\nstaff:x:50:web\n").unwrap();
        let document = json!({"architecture": "amd64", "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": []}});
        let overlay = ["lowerdir=", "upperdir=", "workdir="].into_iter().zip(["lower", "upper", "work"]);
        let mount = MountSpec {
            kind: "overlay".into(),
            source: "overlay".into(),
            options: overlay.map(|(option, name)| format!("{option}{}", top.join(name).display())).collect(),
        };
        let config = ShimConfig {
            id,
            namespace: "shim-test".into(),
            bundle: top.join("bundle"),
            runtime: OciRuntime::find(None).expect("these tests need runc").path().to_path_buf(),
            runtime_root: top.join("runtime"),
            mounts: vec![mount],
            terminal: options.terminal,
            image_config: ImageConfig::parse(document.to_string().as_bytes(), 0).unwrap(),
            run_options: options,
            log: Some(top.join("output.log")),
            log_settings: None,
        };
        Self { directory, config }
    }

    /// A bundle that runs a shell command.
    pub(crate) fn shell(script: &str) -> Self {
        Self::new(json!({}), RunOptions { args: words(&["sh", "-c", script]), ..RunOptions::default() })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join(name)
    }

    /// Starts its shim.
    pub(crate) fn shim(&self) -> Handle {
        self.config.write().unwrap();
        spawn(Path::new(env!("CARGO_BIN_EXE_shim-under-test")), &self.config.bundle).unwrap()
    }

    /// Runs it to its end: what it printed on both outputs, and how it ended.
    pub(crate) fn run(&self) -> Result<(String, ExitStatus), ClientError> {
        let handle = self.shim();
        let client = Client::connect(&handle.socket)?;
        let (mut reader, writer) = io::pipe().unwrap();
        let started = client.start_attached(null().as_fd(), writer.as_fd(), writer.as_fd());
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        started?;
        let status = client.wait()?;
        client.wait_gone()?;
        Ok((text, status))
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("output.log")).unwrap_or_default()
    }

    /// Checks that nothing is left of the container on this machine.
    pub(crate) fn assert_clean(&self) {
        let top = self.path("");
        let top = top.to_str().unwrap().trim_end_matches('/');
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(top), "a mount is left: {mounts}");
        let left: Vec<_> = fs::read_dir(&self.config.runtime_root).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "the runtime still knows {left:?}");
        assert!(!runtime_shim::socket_path(&self.config.bundle).exists());
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        // A test that failed half-way must not leave a container.
        let target = runtime_container::runtime::Target {
            id: &self.config.id,
            root: &self.config.runtime_root,
            bundle: &self.config.bundle,
        };
        if self.config.runtime_root.join(&self.config.id).exists() {
            let _ = OciRuntime::at(&self.config.runtime).delete(&target, true);
        }
    }
}

pub(crate) fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

pub(crate) fn null() -> OwnedFd {
    fs::File::options().read(true).write(true).open("/dev/null").unwrap().into()
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether process `pid` exists and is no zombie.
pub(crate) fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z')))
}
