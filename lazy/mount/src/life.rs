//! What keeper and server have in common: they must not be what the system gives up first, and must not get in their own way.

use std::fs;

use storage_sys::mount::{self, Attributes, MountError};
use storage_sys::process;

use crate::places::Places;

/// How the kernel's out-of-memory killer sees us: after everything that is not as important (-1000 would be never).
const OOM_SCORE: &str = "-900";

/// Makes this process one of the last to be killed for memory, and keeps the kernel from writing to file systems when this
/// process needs memory: what it waits for then might wait for us.
pub(crate) fn protect() {
    if let Err(error) = fs::write("/proc/self/oom_score_adj", OOM_SCORE) {
        tracing::debug!(%error, "the out-of-memory killer treats us as everybody");
    }
    if let Err(error) = storage_sys::memory::act_as_io_flusher() {
        tracing::debug!(%error, "memory may be had by writing to file systems");
    }
}

/// Gives this process and its successors a mount namespace in which no lazy mount can be reached: whatever path they
/// follow, they never wait for themselves.
pub(crate) fn own_namespace(places: &Places) {
    if let Err(error) = process::own_mount_namespace() {
        return tracing::debug!(%error, "no mount namespace of our own");
    }
    let mounts = places.mounts();
    let covered = fs::create_dir_all(&mounts).map_err(|error| error.to_string()).and_then(|()| {
        mount::unmount_under(&mounts)
            .and_then(|_| mount::file_system("tmpfs", "none", &[], Attributes::DATA_ONLY))
            .and_then(|cover| mount::attach(cover, &mounts))
            .map_err(|error: MountError| error.to_string())
    });
    if let Err(error) = covered {
        tracing::warn!(error, "lazy mounts can be reached by their own server");
    }
}
