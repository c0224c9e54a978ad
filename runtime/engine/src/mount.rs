//! An image's tree, mounted where somebody wants to look at it, or to change a copy of it.
//!
//! The mount stands on a snapshot keyed by its target, so it is found again after a restart and nothing under it can be
//! collected. Several images may be mounted; one target holds one.

use std::path::{Path, PathBuf};

use snapshotters_contract::{ActiveKey, CommittedName};
use storage_model::{ChainId, Labels, Namespace, ProtectionDomain};

use crate::work::blocking;
use crate::{Engine, EngineError};

/// Prefix of the keys of snapshots that stand under a mount.
const KEY_PREFIX: &str = "mount ";

/// What to mount where.
#[derive(Debug, Clone, Default)]
pub struct MountRequest {
    /// The image, as [`Engine::resolve_image`] takes it.
    pub image: String,
    /// An existing directory.
    pub target: PathBuf,
    /// Snapshotter; empty is the default one.
    pub snapshotter: String,
    /// A writable snapshot, which is removed by the unmount, instead of a view.
    pub writable: bool,
    /// `os/arch[/variant]`; empty is this machine's, or one that is here.
    pub platform: String,
}

/// What was mounted.
#[derive(Debug, Clone)]
pub struct MountedImage {
    /// Where: absolute, without symbolic links.
    pub target: PathBuf,
    /// Key of the snapshot below.
    pub key: String,
    /// The image's tree; `None` for an image without layers.
    pub chain: Option<ChainId>,
}

impl Engine {
    /// Mounts the tree of an image, unpacking it first where it is not.
    ///
    /// # Errors
    /// [`EngineError`] if there is no such image, it is not all here, the target is taken or the kernel refuses; nothing
    /// is left mounted then.
    pub async fn mount_image(
        &self,
        namespace: &Namespace,
        request: MountRequest,
    ) -> Result<MountedImage, EngineError> {
        let unpacked =
            self.ensure_unpacked(namespace, &request.image, &request.platform, &request.snapshotter).await?;
        let (engine, namespace) = (self.clone(), namespace.clone());
        blocking(move || engine.mount_chain(&namespace, &request, unpacked.snapshotter, unpacked.image.chain))
            .await
    }

    fn mount_chain(
        &self,
        namespace: &Namespace,
        request: &MountRequest,
        snapshotter: &str,
        chain: Option<ChainId>,
    ) -> Result<MountedImage, EngineError> {
        let target = &request.target;
        let target = target.canonicalize().map_err(|source| EngineError::io("mount at", target, source))?;
        let snapshotter = self.snapshotter(snapshotter, self.space(namespace))?;
        let parent: Option<CommittedName> = match &chain {
            Some(chain) => Some(ProtectionDomain::Plain.snapshot_name(chain).parse()?),
            None => None,
        };
        let key = key(&target)?;
        // Nobody but this label keeps the snapshot: no lease outlives the call.
        let labels = Labels::from([("containerd.io/gc.root".to_owned(), "mount".to_owned())]);
        let mounts = if request.writable {
            snapshotter.prepare(&key, parent.as_ref(), &labels)
        } else {
            snapshotter.view(&key, parent.as_ref(), &labels)
        };
        let mounts: Vec<_> = mounts?.into_iter().map(Into::into).collect();
        if let Err(error) = storage_sys::mount::mount_all(&mounts, &target) {
            snapshotter.remove(key.as_str())?;
            return Err(error.into());
        }
        Ok(MountedImage { target, key: key.to_string(), chain })
    }

    /// Takes away the mount at `target`, and what was written to it.
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
