//! `delete`: takes away what a shim left behind that was killed, and says how the task ended as far as that is known.
//!
//! The daemon calls it when it cannot reach the shim. Everything needed is in the bundle: [`Note`], written before the
//! OCI runtime was first called. Calling it again is safe.
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use prost::Message;
use prost_types::Timestamp;
use runtime_api::containerd::task::v2::DeleteResponse;
use runtime_container::runtime::{OciRuntime, Target};
use serde::{Deserialize, Serialize};
use storage_sys::mount;

use super::args::Args;

/// Most mounts at one root: of layers, never more than one; more only if something mounted over it.
const MOUNTS_MAX: usize = 64;

/// What is told of a process whose shim was killed: as of one that was killed itself, which it then is.
const KILLED: u32 = 137;

/// What `delete` needs to know, in the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// The OCI runtime's program.
    pub(crate) runtime: PathBuf,
    /// Where that keeps its state.
    pub(crate) runtime_root: PathBuf,
    /// Its cgroups are systemd's.
    pub(crate) systemd_cgroup: bool,
}

impl Note {
    fn path(bundle: &Path) -> PathBuf {
        bundle.join("windlass-task.json")
    }

    /// Writes the note into `bundle`.
    ///
    /// # Errors
    /// Those of writing.
    pub(crate) fn write(&self, bundle: &Path) -> io::Result<()> {
        fs::write(Self::path(bundle), serde_json::to_vec(self)?)
    }

    fn read(bundle: &Path) -> io::Result<Option<Self>> {
        match fs::read(Self::path(bundle)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Takes away what is left, and returns the encoded answer.
///
/// # Errors
/// What could not be taken away; calling again is safe.
pub(crate) fn delete(args: &Args) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let bundle = args.bundle()?;
    let mut pid = 0;
    // Without a note nothing was ever made.
    if let Some(note) = Note::read(&bundle)? {
        let runtime = OciRuntime::at(&note.runtime).with_systemd_cgroup(note.systemd_cgroup);
        let target = Target { id: &args.id, root: &note.runtime_root, bundle: &bundle };
        pid =
            fs::read_to_string(target.pid_file()).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        runtime.delete(&target, true)?;
    }
    let root = bundle.join("rootfs");
    for _ in 0..MOUNTS_MAX {
        if mount::detach(&root).is_err() {
            // Nothing is mounted there (any more).
            break;
        }
    }
    let response =
        DeleteResponse { pid, exit_status: KILLED, exited_at: Some(Timestamp::from(SystemTime::now())) };
    Ok(response.encode_to_vec())
}
