//! Why an OCI runtime did not do what it was asked to: its own words, made into types.
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use serde::Deserialize;

/// Most bytes of a runtime's log that are read: its last error is a line.
const LOG_BYTES_MAX: u64 = 256 * 1024;

/// Why a runtime cannot be used, or what it refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
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

#[derive(Deserialize)]
struct LogLine {
    level: String,
    msg: String,
}

pub(super) fn last_error(log: &Path) -> Option<String> {
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
pub(super) fn classify(path: &Path, status: ExitStatus, message: String) -> RuntimeError {
    let text = message.to_ascii_lowercase();
    let has = |words: &str| text.contains(words);
    let about_program = has("exec: \"") || has("exec:") || has("executable") || has("open executable");
    if has("executable file not found")
        || has("executable file `")
        || (has("executable '") && has("not found in $path"))
        || (about_program && has("no such file or directory"))
    {
        return RuntimeError::ProgramNotFound { message };
    }
    if has("does not have correct permissions") || has("failed to check permissions for executable") {
        return RuntimeError::ProgramNotExecutable { message };
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
    if has("mount") || has("prepare rootfs") {
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
        // Messages recorded from runc 1.1.5, crun 1.8.1 and libcontainer 0.7.0.
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
            (127, "create failed: executable 'nope' not found in $PATH"),
            (126, "create failed: executable '/etc' at path '\"/etc\"' does not have correct permissions"),
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
