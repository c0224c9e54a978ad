//! Mounts at a private place, for the time of one operation.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use storage_sys::mount::{self, Mount};

use crate::EngineError;

/// Something mounted where nobody else looks. Unmounted when dropped; [`Mounted::unmount`] also says how that went.
pub(crate) struct Mounted {
    path: PathBuf,
    mounted: bool,
}

impl Mounted {
    /// Mounts `mounts`, one on top of the other, at a new directory below `state`, which is private to us.
    ///
    /// # Errors
    /// [`EngineError::Io`] or [`EngineError::Mount`]; nothing is left then.
    pub(crate) fn new(state: &Path, mounts: &[Mount]) -> Result<Self, EngineError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = state.join("mounts").join(name);
        std::fs::create_dir_all(&path)
            .map_err(|source| EngineError::io("create the directory", &path, source))?;
        let mut made = Self { path, mounted: false };
        mount::mount_all(mounts, &made.path)?;
        made.mounted = true;
        Ok(made)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes it away.
    ///
    /// # Errors
    /// [`EngineError::Mount`] if it is busy; it is then detached, to go when its last user does.
    pub(crate) fn unmount(mut self) -> Result<(), EngineError> {
        mount::unmount(&self.path)?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.mounted
            && let Err(error) = mount::detach(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "a private mount stays until the machine restarts");
            return;
        }
        // Empty now; one that is not belongs to a mount that stayed.
        let _ = std::fs::remove_dir(&self.path);
    }
}
