//! The OCI runtime: finding one that works here, calling it, understanding why it refused.
//!
//! A runtime is a program (`runc`, `crun`, any with their command line). It writes its log as JSON to a file that we
//! name; the last error there is what is turned into a [`RuntimeError`]. A container starts by one call,
//! `run --detach`, instead of `create` and `start`: measured with runc 1.1.5, 14 ms instead of 36 ms.
//!
//! Not here: the container's process after it has started (`runtime-shim`).
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use serde::Deserialize;

/// Runtimes looked for, best first: runc works with every layout of cgroups.
const NAMES: [&str; 2] = ["runc", "crun"];

/// Directories searched after `PATH`: a daemon's `PATH` often lacks `sbin`.
const FOLDERS: [&str; 5] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin"];

/// Most bytes of a runtime's log that are read: its last error is a line.
const LOG_BYTES_MAX: u64 = 256 * 1024;

/// A cgroup v2 hierarchy beside v1 ones ("hybrid"), with controllers of its own: crun refuses it.
const HYBRID_MARK: &str = "/sys/fs/cgroup/unified/cgroup.controllers";

/// An OCI runtime that can be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciRuntime {
    name: String,
    path: PathBuf,
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

/// Why there is no runtime, or what it refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// None is installed, or none that works here.
    #[error(
        "no OCI runtime works on this machine{tried}: install runc (on Debian: apt-get install runc), or name one with --runtime PATH"
    )]
    NoneInstalled {
        /// ` (crun: why)`, or empty.
        tried: String,
    },
    /// The one asked for is not there.
    #[error(
        "OCI runtime {name:?} is not installed: install it, or name another with --runtime (a name in PATH, or a path)"
    )]
    NotInstalled {
        /// What was asked for.
        name: String,
    },
    /// The path given is not a program.
    #[error("OCI runtime {path} is not an executable file")]
    NotExecutable {
        /// The path.
        path: PathBuf,
    },
    /// crun on a machine with hybrid cgroups.
    #[error(
        "{path} refuses this machine's hybrid cgroups (v1 with v2 beside it): use runc, or boot with systemd.unified_cgroup_hierarchy=1"
    )]
    HybridCgroups {
        /// The runtime.
        path: PathBuf,
    },
    /// The runtime could not be started.
    #[error("cannot start the OCI runtime {path}")]
    Start {
        /// The runtime.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The container's program is not in its root.
    #[error("the container's program was not found: {message}")]
    ProgramNotFound {
        /// The runtime's words.
        message: String,
    },
    /// The container's program may not be executed.
    #[error("the container's program cannot be executed: {message}")]
    ProgramNotExecutable {
        /// The runtime's words.
        message: String,
    },
    /// The working directory is none.
    #[error("the container's working directory cannot be used: {message}")]
    WorkingDirectory {
        /// The runtime's words.
        message: String,
    },
    /// A mount failed.
    #[error("a mount of the container failed: {message}")]
    Mount {
        /// The runtime's words.
        message: String,
    },
    /// There is a container of this id already.
    #[error("the OCI runtime already has a container of this id: {message}")]
    AlreadyExists {
        /// The runtime's words.
        message: String,
    },
    /// There is no such container.
    #[error("the OCI runtime does not know this container: {message}")]
    NotFound {
        /// The runtime's words.
        message: String,
    },
    /// Anything else.
    #[error("the OCI runtime {path} failed ({status}): {message}")]
    Refused {
        /// The runtime.
        path: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// Its last words.
        message: String,
    },
}

impl RuntimeError {
    /// Exit code of a `run` that fails so: 127 program not found, 126 not executable, 125 anything before the program.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::ProgramNotFound { .. } => 127,
            Self::ProgramNotExecutable { .. } => 126,
            _ => 125,
        }
    }
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
    /// The runtime to use: `preference` (a name or a path) if given, else the first that works here.
    ///
    /// # Errors
    /// [`RuntimeError`] says what is missing and what to install.
    pub fn find(preference: Option<&str>) -> Result<Self, RuntimeError> {
        if let Some(wanted) = preference.filter(|wanted| !wanted.is_empty()) {
            return Self::named(wanted);
        }
        let mut tried = Vec::new();
        for found in available() {
            match found.problem {
                None => return Ok(Self { name: found.name, path: found.path }),
                Some(problem) => tried.push(format!("{}: {problem}", found.name)),
            }
        }
        let tried = if tried.is_empty() { String::new() } else { format!(" ({})", tried.join("; ")) };
        Err(RuntimeError::NoneInstalled { tried })
    }

    fn named(wanted: &str) -> Result<Self, RuntimeError> {
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
            None => Ok(Self { name: wanted.to_owned(), path }),
        }
    }

    /// The runtime at a path that [`OciRuntime::find`] gave before, unchecked.
    pub fn at(path: &Path) -> Self {
        Self { name: path.display().to_string(), path: path.to_path_buf() }
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
        let mut command = self.command(target);
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
        let mut command = self.command(target);
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
        let mut command = self.command(target);
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
        let mut command = self.command(target);
        command.arg("state").arg(target.id);
        let output = self.finish(command, target)?;
        serde_json::from_slice(&output)
            .map_err(|source| RuntimeError::Start { path: self.path.clone(), source: source.into() })
    }

    /// What a call that ended with `status` was refused for, from the runtime's log.
    pub fn failure(&self, target: &Target<'_>, status: ExitStatus, stderr: &str) -> RuntimeError {
        let message = last_error(&target.log()).unwrap_or_else(|| stderr.trim().to_owned());
        let message = if message.is_empty() { "it gave no reason".to_owned() } else { message };
        classify(&self.path, status, message)
    }

    fn command(&self, target: &Target<'_>) -> Command {
        let log = target.log();
        // A log of an earlier call must not explain the failure of this one.
        let _ = fs::remove_file(&log);
        let mut command = Command::new(&self.path);
        command.arg("--root").arg(target.root).arg("--log").arg(log).args(["--log-format", "json"]);
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

/// Every runtime of this machine, best first.
pub fn available() -> Vec<Found> {
    NAMES
        .iter()
        .filter_map(|name| {
            let path = look_up(name)?;
            let problem = problem_of(&path);
            Some(Found { name: (*name).to_owned(), path, problem })
        })
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

#[derive(Deserialize)]
struct LogLine {
    level: String,
    msg: String,
}

fn last_error(log: &Path) -> Option<String> {
    let mut text = Vec::new();
    fs::File::open(log).ok()?.take(LOG_BYTES_MAX).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<LogLine>(line).ok())
        .find(|line| line.level == "error" || line.level == "fatal")
        .map(|line| line.msg)
}

/// Finds out of a runtime's words which error it is; the words differ between runtimes and versions, so what is not
/// recognised stays [`RuntimeError::Refused`] with all of them.
fn classify(path: &Path, status: ExitStatus, message: String) -> RuntimeError {
    let text = message.to_ascii_lowercase();
    let has = |words: &str| text.contains(words);
    let about_program = has("exec: \"") || has("exec:") || has("executable") || has("open executable");
    if has("executable file not found")
        || has("executable file `")
        || (about_program && has("no such file or directory"))
    {
        return RuntimeError::ProgramNotFound { message };
    }
    if has("cwd") || has("chdir") || has("mkdir /") {
        return RuntimeError::WorkingDirectory { message };
    }
    if about_program && (has("permission denied") || has("is a directory") || has("exec format error")) {
        return RuntimeError::ProgramNotExecutable { message };
    }
    if has("with given id already exists") || has("container already exists") || has("already exists") {
        return RuntimeError::AlreadyExists { message };
    }
    if has("container does not exist") || (has("no such file or directory") && has("status")) {
        return RuntimeError::NotFound { message };
    }
    if has("mount") {
        return RuntimeError::Mount { message };
    }
    RuntimeError::Refused { path: path.to_path_buf(), status, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn of(message: &str) -> RuntimeError {
        classify(Path::new("/usr/sbin/runc"), ExitStatus::from_raw(256), message.to_owned())
    }

    #[test]
    fn the_words_of_runc_and_crun_become_exit_codes() {
        // Messages recorded from runc 1.1.5 and crun 1.8.1.
        let table = [
            (
                127,
                r#"runc run failed: unable to start container process: exec: "nope": executable file not found in $PATH"#,
            ),
            (
                127,
                r#"runc run failed: unable to start container process: exec: "/bin/nope": stat /bin/nope: no such file or directory"#,
            ),
            (127, "executable file `nope` not found in $PATH: No such file or directory"),
            (126, r#"runc run failed: unable to start container process: exec: "/etc": permission denied"#),
            (126, r#"runc run failed: unable to start container process: exec: "/etc": is a directory"#),
            (126, "open executable: Permission denied"),
            (
                125,
                "runc run failed: unable to start container process: error during container init: mkdir /etc/x: not a directory",
            ),
        ];
        for (code, message) in table {
            assert_eq!(of(message).exit_code(), code, "{message}");
        }
        let cwd = of(
            "runc run failed: unable to start container process: error during container init: mkdir /etc/x: not a directory",
        );
        assert!(matches!(cwd, RuntimeError::WorkingDirectory { .. }));
        assert!(matches!(
            of("runc run failed: container with given ID already exists"),
            RuntimeError::AlreadyExists { .. }
        ));
        assert!(matches!(of("container does not exist"), RuntimeError::NotFound { .. }));
        assert!(matches!(
            of("error mounting \"/nope\" to rootfs at \"/x\": stat /nope: no such file or directory"),
            RuntimeError::Mount { .. }
        ));
        assert!(matches!(of("something new"), RuntimeError::Refused { .. }));
    }

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

    #[test]
    fn the_last_error_of_the_log_is_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("runtime.log");
        fs::write(
            &log,
            "{\"level\":\"warning\",\"msg\":\"w\"}\nnot json\n{\"level\":\"error\",\"msg\":\"first\"}\n\
            {\"level\":\"error\",\"msg\":\"last\"}\n{\"level\":\"info\",\"msg\":\"i\"}\n",
        )
        .unwrap();
        assert_eq!(last_error(&log).unwrap(), "last");
    }
}
