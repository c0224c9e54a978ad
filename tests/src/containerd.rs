//! Debian's own containerd with a root of its own: what we are compared with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{Finished, finish, signal, wait_until};

/// Longest that one command of its may take.
const DEADLINE: Duration = Duration::from_secs(600);

/// A running containerd; it ends when this is dropped, its directory stays.
#[derive(Debug)]
pub struct Containerd {
    child: Child,
    socket: PathBuf,
}

impl Containerd {
    /// Starts one that keeps everything below `directory`.
    ///
    /// # Errors
    /// It is not installed, or does not answer.
    pub fn start(directory: &Path) -> Result<Self> {
        Self::start_with(directory, "")
    }

    /// The same with `more` at the end of its configuration.
    ///
    /// # Errors
    /// As [`Containerd::start`].
    pub fn start_with(directory: &Path, more: &str) -> Result<Self> {
        let state = directory.join("state");
        fs::create_dir_all(&state)?;
        let socket = state.join("containerd.sock");
        let config = directory.join("config.toml");
        fs::write(
            &config,
            format!(
                "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\n\
                 disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{1}\"\n{more}",
                directory.display(),
                socket.display()
            ),
        )?;
        let log = fs::File::create(directory.join("log"))?;
        let child =
            Command::new("containerd").arg("--config").arg(&config).stdout(Stdio::null()).stderr(log).spawn();
        let child = child.context("containerd cannot be started: apt-get install containerd")?;
        let containerd = Self { child, socket };
        wait_until("containerd answers", Duration::from_secs(20), || {
            containerd.ctr("ctr", &["version"]).is_ok()
        })?;
        Ok(containerd)
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A command for it: `ctr`, or another program with the same options.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("--address").arg(&self.socket).args(arguments);
        command
    }

    /// Runs such a command, which must succeed, and returns what it printed.
    ///
    /// # Errors
    /// It failed; the message holds what it said.
    pub fn ctr(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let end = self.finish(program, arguments)?;
        end.success().with_context(|| format!("{program} {}", arguments.join(" ")))
    }

    /// Runs such a command to its end.
    ///
    /// # Errors
    /// It cannot be run or does not end.
    pub fn finish(&self, program: &str, arguments: &[&str]) -> Result<Finished> {
        finish(&mut self.command(program, arguments), DEADLINE)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = signal(&self.child, "TERM");
        let _ = self.child.wait();
    }
}
