//! The directory of a task: what its shim is given, and what a later daemon needs to find it again.
//!
//! ```text
//! STATE/tasks/NAMESPACE/ID/  config.json     the OCI spec
//!                            rootfs/         where the shim mounts the root
//!                            work/           the shim's
//!                            log             what the shim says
//!                            address         the shim's own note of where it listens
//!                            task.json       ours: which program, where it listens, which protocol
//! ```
//! States: absent -> begun (`task.json` without an address) -> live (with one) -> absent. `task.json` is there before the
//! shim is started, so whatever a daemon that died leaves can be taken away. A directory without it is garbage. All of it
//! may be lost with the machine.
//!
//! A root is never removed through a mount: `rootfs` must be empty before the rest goes.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::TaskError;
use super::program::Program;

/// Directories of tasks below the engine's state.
pub(super) const TASKS: &str = "tasks";

/// A task's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bundle {
    pub(super) id: String,
    pub(super) path: PathBuf,
}

/// What a later daemon needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) program: Program,
    /// Where the shim listens, once it does.
    pub(super) address: Option<String>,
    /// Version of the protocol it speaks.
    pub(super) version: u32,
}

impl Bundle {
    /// The place of a task's directory, which need not be there.
    pub(super) fn at(state: &Path, namespace: &str, id: &str) -> Self {
        Self { id: id.to_owned(), path: state.join(TASKS).join(namespace).join(id) }
    }

    /// Makes the directory, for a task whose spec is `spec`. One that an earlier attempt left must have been removed.
    ///
    /// # Errors
    /// [`TaskError::Io`]; what was made is for [`Bundle::remove`].
    pub(super) fn create(&self, spec: &[u8], note: &Note) -> Result<(), TaskError> {
        let failed = |path: &Path| TaskError::io("create", path.to_owned());
        if let Some(parent) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o711).create(parent).map_err(failed(parent))?;
        }
        DirBuilder::new().mode(0o711).create(&self.path).map_err(failed(&self.path))?;
        self.write_note(note)?;
        for (name, mode) in [("rootfs", 0o711), ("work", 0o700)] {
            let path = self.path.join(name);
            DirBuilder::new().mode(mode).create(&path).map_err(failed(&path))?;
        }
        self.write("config.json", spec)?;
        // Shims open it for writing and expect that somebody reads. A file needs nobody, so a shim that talks is not
        // held up by a daemon that died.
        self.write("log", &[])
    }

    /// Writes the note: whole or not at all.
    ///
    /// # Errors
    /// [`TaskError::Io`].
    pub(super) fn write_note(&self, note: &Note) -> Result<(), TaskError> {
        let path = self.path.join("task.json");
        let text = serde_json::to_vec(note).map_err(|error| TaskError::io("write", &path)(error.into()))?;
        self.write("task.json.new", &text)?;
        fs::rename(self.path.join("task.json.new"), &path).map_err(TaskError::io("write", &path))
    }

    /// The note, and the shim's own word on where it listens if the note has none yet. `None` if there is no note.
    ///
    /// # Errors
    /// [`TaskError::Io`] if it cannot be read, or is none of ours.
    pub(super) fn note(&self) -> Result<Option<Note>, TaskError> {
        let path = self.path.join("task.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(TaskError::io("read", &path)(error)),
        };
        let mut note: Note =
            serde_json::from_slice(&text).map_err(|error| TaskError::io("read", &path)(error.into()))?;
        if note.address.is_none() {
            note.address = fs::read_to_string(self.path.join("address")).ok();
        }
        Ok(Some(note))
    }

    /// The end of what the shim said, for an error.
    pub(super) fn last_words(&self) -> String {
        let text = fs::read(self.path.join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        last.map(|line| line.trim().to_owned()).unwrap_or_default()
    }

    /// Unmounts the root where it is mounted in this mount namespace, and removes the directory.
    ///
    /// # Errors
    /// [`TaskError::Unmount`], [`TaskError::Io`]: something of the directory is left, and nothing below a mount was touched.
    pub(super) fn remove(&self) -> Result<(), TaskError> {
        let rootfs = self.path.join("rootfs");
        let unmount = |source| TaskError::Unmount { id: self.id.clone(), source };
        storage_sys::mount::unmount_under(&self.path).map_err(unmount)?;
        match fs::remove_dir(&rootfs) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(TaskError::io("remove", &rootfs)(error));
            }
            _ => {}
        }
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(TaskError::io("remove", &self.path)(error))
            }
            _ => Ok(()),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), TaskError> {
        let path = self.path.join(name);
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(bytes)).map_err(TaskError::io("write", &path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note() -> Note {
        let program = Program { path: "/bin/shim".into(), own: false, oci_runtime: None };
        Note { program, address: None, version: 2 }
    }

    #[test]
    fn what_is_written_is_found_again_and_removed_whole() {
        let state = tempfile::tempdir().unwrap();
        let bundle = Bundle::at(state.path(), "ns", "one");
        assert_eq!(bundle.note().unwrap(), None);
        bundle.create(b"{}", &note()).unwrap();
        assert_eq!(bundle.note().unwrap(), Some(note()));
        assert!(bundle.create(b"{}", &note()).is_err(), "a directory is made once");
        fs::write(bundle.path.join("address"), "unix:///run/s/1").unwrap();
        assert_eq!(bundle.note().unwrap().unwrap().address.as_deref(), Some("unix:///run/s/1"));
        bundle.remove().unwrap();
        bundle.remove().unwrap();
        assert!(!bundle.path.exists());
    }

    #[test]
    fn a_root_that_is_not_empty_keeps_everything() {
        let state = tempfile::tempdir().unwrap();
        let bundle = Bundle::at(state.path(), "ns", "one");
        bundle.create(b"{}", &note()).unwrap();
        fs::write(bundle.path.join("rootfs/kept"), "").unwrap();
        assert!(bundle.remove().is_err());
        assert!(bundle.path.join("rootfs/kept").exists() && bundle.path.join("task.json").exists());
    }

    #[test]
    fn a_damaged_note_is_an_error_and_not_a_new_task() {
        let state = tempfile::tempdir().unwrap();
        let bundle = Bundle::at(state.path(), "ns", "one");
        bundle.create(b"{}", &note()).unwrap();
        fs::write(bundle.path.join("task.json"), "{").unwrap();
        assert!(matches!(bundle.note(), Err(TaskError::Io { .. })));
    }
}
