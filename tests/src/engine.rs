//! The `windlass` binary under test, with a root and a state directory of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::process::{Finished, finish, require_root};

/// Longest that a command may take on a busy machine before it counts as hung.
const DEADLINE: Duration = Duration::from_secs(120);

/// The binary built beside the running program; `WINDLASS_BIN` names another.
///
/// # Errors
/// There is none: `cargo build --release -p windlass` makes it.
pub fn windlass() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("WINDLASS_BIN") {
        return Ok(path.into());
    }
    // A test lies in target/release/deps, a program in target/release.
    let own = std::env::current_exe()?;
    let found = own.ancestors().skip(1).take(2).map(|dir| dir.join("windlass")).find(|path| path.is_file());
    found.context("the windlass binary is not built: cargo build --release -p windlass")
}

/// One engine: a root, a state directory, and perhaps a daemon that this process started.
#[derive(Debug)]
pub struct Engine {
    directory: TempDir,
    root: PathBuf,
    daemon: Option<Child>,
}

impl Engine {
    /// An engine in a fresh directory, no daemon running: the first command starts one.
    ///
    /// # Errors
    /// The process is not root's, or the temporary directory cannot be made.
    pub fn new() -> Result<Self> {
        require_root()?;
        let directory = tempfile::Builder::new().prefix("windlass-test.").tempdir()?;
        let root = directory.path().join("root");
        Ok(Self { directory, root, daemon: None })
    }

    /// The same with the root elsewhere, say on a small file system.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn with_root(root: &Path) -> Result<Self> {
        let mut engine = Self::new()?;
        root.clone_into(&mut engine.root);
        Ok(engine)
    }

    /// Its root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its state directory.
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.state().join("windlass.sock")
    }

    /// A directory for what a test makes; it goes with the engine.
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// A command of this engine, nothing on its standard input, and nothing of the caller's environment that would
    /// change what it does.
    ///
    /// # Errors
    /// The binary is not built.
    pub fn command<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Command> {
        let mut command = Command::new(windlass()?);
        command.arg("--root").arg(&self.root).arg("--state").arg(self.state()).args(arguments);
        for name in ["WINDLASS_ROOT", "WINDLASS_STATE", "WINDLASS_ADDRESS", "WINDLASS_NAMESPACE"] {
            command.env_remove(name);
        }
        command.env("DOCKER_CONFIG", self.directory.path().join("docker")).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// It cannot be run or does not end; that it fails is no error here.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Finished> {
        finish(&mut self.command(arguments)?, DEADLINE)
    }

    /// Runs a command that must succeed and returns its standard output.
    ///
    /// # Errors
    /// It failed; the message holds what it said.
    pub fn ok<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<String> {
        let mut command = self.command(arguments)?;
        finish(&mut command, DEADLINE)?.success().with_context(|| format!("{command:?}"))
    }

    /// Starts the daemon as a child of this process and returns the time until it was ready.
    ///
    /// # Errors
    /// It ends, or does not say `ready`.
    pub fn start_daemon(&mut self) -> Result<Duration> {
        ensure!(self.daemon.is_none(), "the daemon runs already");
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.directory.path().join("daemon.log"))?;
        let started = Instant::now();
        let mut child =
            self.command(["daemon", "--background"])?.stdout(Stdio::piped()).stderr(log).spawn()?;
        let stdout = child.stdout.take().context("just piped")?;
        self.daemon = Some(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let elapsed = started.elapsed();
        ensure!(line.trim() == "ready", "the daemon said {line:?}; its log: {}", self.daemon_log());
        Ok(elapsed)
    }

    /// Ends the daemon at once, as a power cut would end it: SIGKILL.
    ///
    /// # Errors
    /// This process started none.
    pub fn kill_daemon(&mut self) -> Result<()> {
        let mut child = self.daemon.take().context("no daemon of ours")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// What the daemon wrote to its log.
    pub fn daemon_log(&self) -> String {
        let ours = fs::read_to_string(self.directory.path().join("daemon.log")).unwrap_or_default();
        ours + &fs::read_to_string(self.root.join("daemon.log")).unwrap_or_default()
    }

    /// Mount points at or below `directory` that this process sees, deepest first.
    pub fn mounts_below(directory: &Path) -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
        let mut below: Vec<_> = points.filter(|point| point.starts_with(directory)).collect();
        below.sort();
        below.reverse();
        below
    }

    /// Names of everything directly inside a directory of the root; empty when it is not there.
    pub fn inside_root(&self, name: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root.join(name)) else { return Vec::new() };
        let mut names: Vec<_> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Processes of this engine, daemon and shims: they name one of its directories in their arguments.
    pub fn processes(&self) -> Vec<u32> {
        let ours = [self.root.clone(), self.state()].map(|path| path.to_string_lossy().into_owned());
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let arguments = String::from_utf8_lossy(&arguments);
            *pid != std::process::id() && ours.iter().any(|directory| arguments.contains(directory.as_str()))
        })
        .collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for pid in self.processes() {
            let _ = Command::new("kill").arg("-KILL").arg(pid.to_string()).stderr(Stdio::null()).status();
        }
        if let Some(mut child) = self.daemon.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for point in Self::mounts_below(self.directory.path()) {
            let _ = Command::new("umount").arg("-l").arg(point).status();
        }
    }
}
