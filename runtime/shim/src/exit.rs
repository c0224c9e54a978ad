//! How a container ended, on disk before anybody is told.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use storage_sys::process::ChildExit;

use crate::config::exit_path;
use crate::protocol::Failure;

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// What a shell would report: the process's own code, 128 + n for death by signal n, 127 or 126 when the program was
    /// not found or not executable, 125 when the container failed before that.
    pub code: u8,
    /// The signal that ended the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Why it never ran, when it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When, in milliseconds since 1970.
    pub finished_unix_ms: u64,
}

impl ExitStatus {
    pub(crate) fn of_process(exit: ChildExit) -> Self {
        let (code, signal) = match exit {
            ChildExit::Exited(code) => (code & 0xff, None),
            ChildExit::Signaled(signal) => (128 + (signal & 0x7f), Some(signal)),
        };
        Self { code: u8::try_from(code).unwrap_or(u8::MAX), signal, error: None, finished_unix_ms: now_ms() }
    }

    pub(crate) fn of_failure(failure: &Failure) -> Self {
        Self {
            code: failure.exit_code,
            signal: None,
            error: Some(failure.message.clone()),
            finished_unix_ms: now_ms(),
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How the container of `bundle` ended; `None` while it has not (or its shim was killed before it could say).
///
/// # Errors
/// Those of reading; `InvalidData` when the file is damaged.
pub fn read_exit(bundle: &Path) -> io::Result<Option<ExitStatus>> {
    match fs::read(exit_path(bundle)) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the status: whole and durable, or not at all.
///
/// # Errors
/// Those of writing, syncing and renaming.
pub(crate) fn write_exit(bundle: &Path, status: &ExitStatus) -> io::Result<()> {
    let temporary = bundle.join("exit.json.new");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(status)?)?;
    file.sync_all()?;
    fs::rename(&temporary, exit_path(bundle))?;
    File::open(bundle)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_follow_the_shell() {
        for (exit, code, signal) in [
            (ChildExit::Exited(0), 0, None),
            (ChildExit::Exited(42), 42, None),
            (ChildExit::Exited(255), 255, None),
            (ChildExit::Signaled(9), 137, Some(9)),
            (ChildExit::Signaled(15), 143, Some(15)),
            (ChildExit::Signaled(64), 192, Some(64)),
        ] {
            let status = ExitStatus::of_process(exit);
            assert_eq!((status.code, status.signal), (code, signal));
        }
    }

    #[test]
    fn a_status_is_absent_until_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read_exit(directory.path()).unwrap(), None);
        let status = ExitStatus::of_process(ChildExit::Exited(3));
        write_exit(directory.path(), &status).unwrap();
        assert_eq!(read_exit(directory.path()).unwrap(), Some(status));
        fs::write(exit_path(directory.path()), "{").unwrap();
        assert!(read_exit(directory.path()).is_err());
    }
}
