//! The OCI runtime: finding one that works here, calling it, understanding why it refused.
//!
//! A runtime is a program (`runc`, `crun`, any with their command line). It writes its log as JSON to a file that we
//! name; the last error there is what is turned into a [`RuntimeError`]. A container starts by one call,
//! `run --detach`, instead of `create` and `start`: measured with runc 1.1.5, 14 ms instead of 36 ms.
//!
//! Not here: the container's process after it has started (`runtime-shim`).
mod call;
mod failure;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use serde::Deserialize;

pub use call::{Call, Checkpointing, Making};
pub use failure::RuntimeError;

/// The runtime that is built in: this program itself, which every process of ours can name so.
pub const EMBEDDED: &str = "/proc/self/exe";

/// Its name, as `--runtime` takes it.
pub const EMBEDDED_NAME: &str = "embedded";

/// The first word that makes this program an OCI runtime.
pub const EMBEDDED_VERB: &str = "oci-runtime";

/// Runtimes looked for, best first: runc works with every layout of cgroups.
const NAMES: [&str; 2] = ["runc", "crun"];

/// Directories searched after `PATH`: a daemon's `PATH` often lacks `sbin`.
const FOLDERS: [&str; 5] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin"];

/// A cgroup v2 hierarchy beside v1 ones ("hybrid"), with controllers of its own: crun refuses it.
const HYBRID_MARK: &str = "/sys/fs/cgroup/unified/cgroup.controllers";

/// An OCI runtime that can be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciRuntime {
    name: String,
    path: PathBuf,
    systemd_cgroup: bool,
}

/// A runtime that was found, and whether it can be used.
#[derive(Debug)]
pub struct Found {
    /// Its name, as `--runtime` takes it.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Why it does not work on this machine, if it does not.
    pub problem: Option<RuntimeError>,
}

/// What a runtime says about a container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RuntimeState {
    /// `created`, `running`, `stopped`, ...
    pub status: String,
    /// Process id on this machine; 0 when it has ended.
    #[serde(default)]
    pub pid: u32,
}

/// A container of a runtime: which, and where the runtime keeps what it knows about it.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The runtime's state directory (`--root`).
    pub root: &'a Path,
    /// The container's bundle: config.json is there, and the runtime's log goes there.
    pub bundle: &'a Path,
}

impl Target<'_> {
    /// Where the runtime logs.
    pub fn log(&self) -> PathBuf {
        self.bundle.join("runtime.log")
    }

    /// Where the runtime writes the process id of the container.
    pub fn pid_file(&self) -> PathBuf {
        self.bundle.join("pid")
    }
}

impl OciRuntime {
    /// The runtime to use: `preference` (a name or a path) if given, else the first that works here; the built-in one
    /// always does.
    ///
    /// # Errors
    /// [`RuntimeError`] says what is missing and what to install.
    pub fn find(preference: Option<&str>) -> Result<Self, RuntimeError> {
        if let Some(wanted) = preference.filter(|wanted| !wanted.is_empty()) {
            return Self::named(wanted);
        }
        let works = available().into_iter().find(|found| found.problem.is_none());
        Ok(works.map_or_else(|| Self::at(Path::new(EMBEDDED)), |found| Self::new(found.name, found.path)))
    }

    fn new(name: String, path: PathBuf) -> Self {
        Self { name, path, systemd_cgroup: false }
    }

    fn named(wanted: &str) -> Result<Self, RuntimeError> {
        if wanted == EMBEDDED_NAME {
            return Ok(Self::at(Path::new(EMBEDDED)));
        }
        let path = if wanted.contains('/') {
            let path = PathBuf::from(wanted);
            if !is_program(&path) {
                return Err(RuntimeError::NotExecutable { path });
            }
            path
        } else {
            look_up(wanted).ok_or_else(|| RuntimeError::NotInstalled { name: wanted.to_owned() })?
        };
        match problem_of(&path) {
            Some(problem) => Err(problem),
            None => Ok(Self::new(wanted.to_owned(), path)),
        }
    }

    /// The runtime at a path that [`OciRuntime::find`] gave before, unchecked.
    pub fn at(path: &Path) -> Self {
        let name =
            if path == Path::new(EMBEDDED) { EMBEDDED_NAME.to_owned() } else { path.display().to_string() };
        Self::new(name, path.to_path_buf())
    }

    /// The same runtime, asked to keep its cgroups through systemd.
    #[must_use]
    pub fn with_systemd_cgroup(mut self, systemd: bool) -> Self {
        self.systemd_cgroup = systemd;
        self
    }

    /// Whether it is the one that is built in.
    pub fn is_embedded(&self) -> bool {
        self.path == Path::new(EMBEDDED)
    }

    /// Its name or path, as it was asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The call that starts a container and returns while its process runs on as a child of the caller's subreaper.
    ///
    /// The three standard descriptors set on the command become the container's own, unless `console_socket` (a name
    /// in the bundle) is given: then the terminal's master arrives there. Current directory is the bundle.
    pub fn run_command(&self, target: &Target<'_>, console_socket: Option<&str>) -> Command {
        let mut command = self.command_logging(target);
        command.args(["run", "--detach", "--bundle"]).arg(target.bundle);
        command.arg("--pid-file").arg(target.pid_file());
        if let Some(name) = console_socket {
            command.arg("--console-socket").arg(name);
        }
        command.arg(target.id);
        command
    }

    /// Takes away what the runtime keeps of an ended container; with `force` also of a running one, which is killed.
    ///
    /// # Errors
    /// [`RuntimeError`]; a container that the runtime does not know is not an error.
    pub fn delete(&self, target: &Target<'_>, force: bool) -> Result<(), RuntimeError> {
        let mut command = self.command_logging(target);
        command.arg("delete");
        if force {
            command.arg("--force");
        }
        command.arg(target.id);
        match self.finish(command, target) {
            Ok(_) | Err(RuntimeError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sends signal number `signal` to the container's first process, or to all of them.
    ///
    /// # Errors
    /// [`RuntimeError`].
    pub fn kill(&self, target: &Target<'_>, signal: i32, all: bool) -> Result<(), RuntimeError> {
        let mut command = self.command_logging(target);
        command.arg("kill");
        if all {
            command.arg("--all");
        }
        command.arg(target.id).arg(signal.to_string());
        self.finish(command, target).map(drop)
    }

    /// What the runtime knows about the container.
    ///
    /// # Errors
    /// [`RuntimeError`], [`RuntimeError::NotFound`] when nothing.
    pub fn state(&self, target: &Target<'_>) -> Result<RuntimeState, RuntimeError> {
        let mut command = self.command_logging(target);
        command.arg("state").arg(target.id);
        let output = self.finish(command, target)?;
        serde_json::from_slice(&output)
            .map_err(|source| RuntimeError::Start { path: self.path.clone(), source: source.into() })
    }

    /// What a call that ended with `status` was refused for, from the runtime's log.
    pub fn failure(&self, target: &Target<'_>, status: ExitStatus, stderr: &str) -> RuntimeError {
        let message = failure::last_error(&target.log()).unwrap_or_else(|| stderr.trim().to_owned());
        let message = if message.is_empty() { "it gave no reason".to_owned() } else { message };
        failure::classify(&self.path, status, message)
    }

    fn command_logging(&self, target: &Target<'_>) -> Command {
        let log = target.log();
        // A log of an earlier call must not explain the failure of this one.
        let _ = fs::remove_file(&log);
        self.command(target, &log)
    }

    fn command(&self, target: &Target<'_>, log: &Path) -> Command {
        let mut command = Command::new(&self.path);
        if self.is_embedded() {
            command.arg(EMBEDDED_VERB);
        }
        command.arg("--root").arg(target.root).arg("--log").arg(log).args(["--log-format", "json"]);
        if self.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command.stdin(Stdio::null()).current_dir(target.bundle);
        command
    }

    fn finish(&self, mut command: Command, target: &Target<'_>) -> Result<Vec<u8>, RuntimeError> {
        let output =
            command.output().map_err(|source| RuntimeError::Start { path: self.path.clone(), source })?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(self.failure(target, output.status, &String::from_utf8_lossy(&output.stderr)))
    }
}

/// Every runtime of this machine, best first; the built-in one is the last.
pub fn available() -> Vec<Found> {
    let built_in = Found { name: EMBEDDED_NAME.to_owned(), path: PathBuf::from(EMBEDDED), problem: None };
    NAMES
        .iter()
        .filter_map(|name| {
            let path = look_up(name)?;
            let problem = problem_of(&path);
            Some(Found { name: (*name).to_owned(), path, problem })
        })
        .chain([built_in])
        .collect()
}

fn look_up(name: &str) -> Option<PathBuf> {
    let variable = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&variable)
        .chain(FOLDERS.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_absolute() && is_program(path))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Known reasons for which a runtime does not work here. By name and without running it: a probe would cost every
/// start what a start costs.
fn problem_of(path: &Path) -> Option<RuntimeError> {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let is_crun = real.file_name().and_then(OsStr::to_str).is_some_and(|name| name.contains("crun"));
    let hybrid = fs::read_to_string(HYBRID_MARK).is_ok_and(|controllers| !controllers.trim().is_empty());
    (is_crun && hybrid).then(|| RuntimeError::HybridCgroups { path: path.to_path_buf() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_that_is_not_there_is_named_with_what_to_do() {
        let error = OciRuntime::find(Some("no-such-runtime")).unwrap_err();
        assert!(error.to_string().contains("\"no-such-runtime\" is not installed: install it"));
        let error = OciRuntime::find(Some("/etc/passwd")).unwrap_err();
        assert!(matches!(error, RuntimeError::NotExecutable { .. }));
    }

    #[test]
    fn crun_is_refused_in_advance_where_it_would_refuse_hybrid_cgroups() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("crun");
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let hybrid = fs::read_to_string(HYBRID_MARK).is_ok_and(|text| !text.trim().is_empty());
        let found = OciRuntime::find(path.to_str());
        assert_eq!(matches!(found, Err(RuntimeError::HybridCgroups { .. })), hybrid);
    }
}
