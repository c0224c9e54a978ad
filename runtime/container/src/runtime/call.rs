//! The calls of an OCI runtime's command line, each as a command that somebody else runs.
//!
//! A shim reaps its children in one place, so it cannot wait for a runtime as `std` does; it runs [`Call::command`] in
//! its own way and hands how that ended to [`Call::outcome`]. Every call logs to a file of its own, so that calls side by
//! side explain their own failures; the file goes with the call.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{OciRuntime, RuntimeError, Target, failure};

/// One call: the command, and what makes sense of its end.
#[derive(Debug)]
pub struct Call {
    /// What to run. Standard input is `/dev/null` unless set otherwise.
    pub command: Command,
    program: PathBuf,
    log: PathBuf,
}

/// How the first process of a container is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Making<'a> {
    /// Socket to which the terminal's master is sent; a name relative to the bundle.
    pub console_socket: Option<&'a str>,
    /// Move the root instead of pivoting, for roots on a ramdisk.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
}

/// What a checkpoint keeps, and where. Flags as `runc checkpoint` has them.
#[derive(Debug, Clone, Default)]
pub struct Checkpointing {
    /// Where the images go.
    pub image: PathBuf,
    /// Where the log goes.
    pub work: Option<PathBuf>,
    /// Further flags, as `--leave-running`.
    pub flags: Vec<String>,
}

impl Call {
    /// What the call came to.
    ///
    /// `stderr` explains a failure that is not in the log.
    ///
    /// # Errors
    /// [`RuntimeError`] for every end but success.
    pub fn outcome(self, status: ExitStatus, stderr: &str) -> Result<(), RuntimeError> {
        if status.success() {
            return Ok(());
        }
        let message = failure::last_error(&self.log).unwrap_or_else(|| stderr.trim().to_owned());
        let message = if message.is_empty() { "it gave no reason".to_owned() } else { message };
        Err(failure::classify(&self.program, status, message))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // A runtime without a word to say made no file.
        let _ = fs::remove_file(&self.log);
    }
}

impl OciRuntime {
    /// Makes the container and its first process, which waits for [`OciRuntime::start_call`].
    ///
    /// The command's standard descriptors become the process's, unless there is a console socket.
    pub fn create_call(&self, target: &Target<'_>, making: Making<'_>) -> Call {
        let mut call = self.call(target);
        call.command.args(["create", "--bundle"]).arg(target.bundle);
        call.command.arg("--pid-file").arg(target.pid_file());
        making.add_to(&mut call.command);
        call.command.arg(target.id);
        call
    }

    /// Makes the container out of a checkpoint; its process runs when the call ends.
    pub fn restore_call(&self, target: &Target<'_>, making: Making<'_>, from: &Checkpointing) -> Call {
        let mut call = self.call(target);
        call.command.args(["restore", "--detach", "--bundle"]).arg(target.bundle);
        call.command.arg("--pid-file").arg(target.pid_file());
        making.add_to(&mut call.command);
        from.add_to(&mut call.command);
        call.command.arg(target.id);
        call
    }

    /// Lets the first process run.
    pub fn start_call(&self, target: &Target<'_>) -> Call {
        self.simple(target, "start", &[])
    }

    /// Starts another process in the container, described by the JSON file `process`; its id goes to `pid_file`.
    pub fn exec_call(
        &self,
        target: &Target<'_>,
        process: &Path,
        pid_file: &Path,
        console: Option<&str>,
    ) -> Call {
        let mut call = self.call(target);
        call.command.args(["exec", "--detach", "--process"]).arg(process);
        call.command.arg("--pid-file").arg(pid_file);
        if let Some(socket) = console {
            call.command.arg("--console-socket").arg(socket);
        }
        call.command.arg(target.id);
        call
    }

    /// Takes away what the runtime keeps of an ended container; with `force` also of a running one, which is killed.
    pub fn delete_call(&self, target: &Target<'_>, force: bool) -> Call {
        self.simple(target, "delete", if force { &["--force"] } else { &[] })
    }

    /// Sends a signal to the first process, or to all.
    pub fn kill_call(&self, target: &Target<'_>, signal: u32, all: bool) -> Call {
        let mut call = self.simple(target, "kill", if all { &["--all"] } else { &[] });
        call.command.arg(signal.to_string());
        call
    }

    /// Stops every process where it is.
    pub fn pause_call(&self, target: &Target<'_>) -> Call {
        self.simple(target, "pause", &[])
    }

    /// Lets paused processes go on.
    pub fn resume_call(&self, target: &Target<'_>) -> Call {
        self.simple(target, "resume", &[])
    }

    /// Sets limits: the `resources` of a spec, as JSON in the file `resources`.
    pub fn update_call(&self, target: &Target<'_>, resources: &Path) -> Call {
        let mut call = self.call(target);
        call.command.args(["update", "--resources"]).arg(resources).arg(target.id);
        call
    }

    /// Writes the container's processes to disk.
    pub fn checkpoint_call(&self, target: &Target<'_>, to: &Checkpointing) -> Call {
        let mut call = self.call(target);
        call.command.arg("checkpoint");
        to.add_to(&mut call.command);
        call.command.arg(target.id);
        call
    }

    fn simple(&self, target: &Target<'_>, verb: &str, flags: &[&str]) -> Call {
        let mut call = self.call(target);
        call.command.arg(verb).args(flags).arg(target.id);
        call
    }

    fn call(&self, target: &Target<'_>) -> Call {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("runtime-{}.log", NEXT.fetch_add(1, Ordering::Relaxed));
        let log = target.bundle.join(name);
        // Left by a caller of the same bundle that was killed: its words are not ours.
        let _ = fs::remove_file(&log);
        let command = self.command(target, &log);
        Call { command, program: self.path().to_owned(), log }
    }
}

impl Making<'_> {
    fn add_to(self, command: &mut Command) {
        if let Some(socket) = self.console_socket {
            command.arg("--console-socket").arg(socket);
        }
        if self.no_pivot {
            command.arg("--no-pivot");
        }
        if self.no_new_keyring {
            command.arg("--no-new-keyring");
        }
    }
}

impl Checkpointing {
    fn add_to(&self, command: &mut Command) {
        command.arg("--image-path").arg(&self.image);
        if let Some(work) = &self.work {
            command.arg("--work-path").arg(work);
        }
        command.args(&self.flags);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn words(call: &Call) -> String {
        let args: Vec<_> = call.command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
        args.join(" ")
    }

    #[test]
    fn calls_are_those_of_runcs_command_line() {
        let directory = tempfile::tempdir().unwrap();
        let bundle = directory.path();
        let target = Target { id: "c1", root: Path::new("/run/r"), bundle };
        let runtime = OciRuntime::at(Path::new("/usr/sbin/runc")).with_systemd_cgroup(true);
        let making = Making { console_socket: Some("pty"), no_pivot: true, no_new_keyring: false };
        let create = words(&runtime.create_call(&target, making));
        assert!(create.starts_with("--root /run/r --log "), "{create}");
        let pid = target.pid_file();
        assert!(
            create.ends_with(&format!(
                ".log --log-format json --systemd-cgroup create --bundle {} --pid-file {} --console-socket pty --no-pivot c1",
                bundle.display(),
                pid.display()
            )),
            "{create}"
        );
        assert!(words(&runtime.kill_call(&target, 15, true)).ends_with(" kill --all c1 15"));
    }

    #[test]
    fn each_call_reads_its_own_log_and_takes_it_away() {
        let directory = tempfile::tempdir().unwrap();
        let target = Target { id: "c1", root: Path::new("/run/r"), bundle: directory.path() };
        let runtime = OciRuntime::at(Path::new("/usr/sbin/runc"));
        let calls = [runtime.start_call(&target), runtime.start_call(&target)];
        let line = r#"{"level":"error","msg":"container does not exist"}"#;
        fs::write(&calls[1].log, line).unwrap();
        let [first, second] = calls.map(|call| call.outcome(ExitStatus::from_raw(256), "other words"));
        assert!(matches!(first, Err(RuntimeError::Refused { .. })));
        assert!(matches!(second, Err(RuntimeError::NotFound { .. })));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
