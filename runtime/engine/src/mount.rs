//! An image's tree, mounted read-only where somebody wants to look at it.
//!
//! The mount stands on a view snapshot keyed by its target, so it is found again after a restart and nothing under it
//! can be collected. Several images may be mounted; one target holds one.

use std::path::{Path, PathBuf};

use snapshotters_contract::ActiveKey;
use storage_content::ErrorKind;
use storage_model::{Labels, Namespace, ProtectionDomain};

use crate::engine::DEFAULT_SNAPSHOTTER;
use crate::{Engine, EngineError};

/// Prefix of the keys of views that stand under a mount.
const KEY_PREFIX: &str = "mount ";

impl Engine {
    /// Mounts the tree of image `name` read-only at `target`, an existing directory.
    ///
    /// # Errors
    /// [`EngineError`] if there is no such image, it is not unpacked, the target is taken or the kernel refuses; nothing
    /// is left mounted then.
    pub fn mount_image(
        &self,
        namespace: &Namespace,
        name: &str,
        target: &Path,
        snapshotter: &str,
    ) -> Result<PathBuf, EngineError> {
        let target = target.canonicalize().map_err(|source| EngineError::io("mount at", target, source))?;
        let image = self.image(namespace, name)?;
        let snapshotter_name = if snapshotter.is_empty() { DEFAULT_SNAPSHOTTER } else { snapshotter };
        let snapshotter = self.snapshotter(snapshotter_name, self.space(namespace))?;
        let parent = match &image.chain {
            Some(chain) => Some(ProtectionDomain::Plain.snapshot_name(chain).parse()?),
            None => None,
        };
        let key = key(&target)?;
        // Nobody but this label keeps the view: no lease outlives the call.
        let labels = Labels::from([("containerd.io/gc.root".to_owned(), "mount".to_owned())]);
        let mounts = match snapshotter.view(&key, parent.as_ref(), &labels) {
            Ok(mounts) => mounts,
            Err(error) if parent.is_some() && error.kind() == ErrorKind::NotFound => {
                return Err(EngineError::NotUnpacked {
                    name: image.record.name,
                    snapshotter: snapshotter_name.to_owned(),
                });
            }
            Err(error) => return Err(error.into()),
        };
        let mounts: Vec<_> = mounts.into_iter().map(Into::into).collect();
        if let Err(error) = storage_sys::mount::mount_all(&mounts, &target) {
            snapshotter.remove(key.as_str())?;
            return Err(error.into());
        }
        Ok(target)
    }

    /// Takes away the mount at `target`.
    ///
    /// # Errors
    /// [`EngineError::NotMounted`] if `target` is not such a mount; [`EngineError::Mount`] if it is busy.
    pub fn unmount_image(&self, namespace: &Namespace, target: &Path) -> Result<PathBuf, EngineError> {
        let target = target.canonicalize().map_err(|source| EngineError::io("unmount", target, source))?;
        let key = key(&target)?;
        for name in self.snapshotters() {
            let snapshotter = self.snapshotter(name, self.space(namespace))?;
            if snapshotter.stat(key.as_str()).is_ok() {
                if storage_sys::mount::is_mounted(&target)? {
                    storage_sys::mount::unmount(&target)?;
                }
                snapshotter.remove(key.as_str())?;
                return Ok(target);
            }
        }
        Err(EngineError::NotMounted(target))
    }
}

fn key(target: &Path) -> Result<ActiveKey, EngineError> {
    Ok(format!("{KEY_PREFIX}{}", target.display()).parse()?)
}
