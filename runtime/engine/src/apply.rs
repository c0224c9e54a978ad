//! Unpacks one layer into mounts that a client got from a snapshotter (containerd's `diff.v1` Apply).
//!
//! Where the mounts are directories of ours the layer is written into them without mounting anything: into an overlay's
//! upper directory with whiteouts, into a plain directory by deleting. Any other mounts are made at a private place for
//! as long as it takes.
//!
//! Not here: layers of a pull, which are unpacked while they arrive (`pull`).

use std::path::{Path, PathBuf};

use snapshotters_contract::Mount;
use storage_content::Space;
use storage_layer::{UnpackOptions, Unpacked, Whiteouts};
use storage_model::media::{LayerKind, layer_kind};
use storage_model::{Compression, Descriptor, media};
use storage_sys::mount::{Shape, shape};

use crate::mounted::Mounted;
use crate::{Engine, EngineError};

/// Where a layer goes.
enum Target {
    /// Directory of differences, and those below it, the highest first.
    Upper(PathBuf, Vec<PathBuf>),
    /// Directory of a whole tree.
    Tree(PathBuf),
    /// The same, mounted for this.
    Mounted(Mounted),
}

impl Engine {
    /// Unpacks the layer `descriptor`, whose blob `space` has, into `mounts`, and returns what it is uncompressed: its
    /// digest is the layer's diff ID. What was written is as durable as the commit that follows makes it.
    ///
    /// # Errors
    /// [`EngineError::NoLayer`] if it is no layer we can unpack; [`EngineError::Store`] if its blob is not here;
    /// [`EngineError::ReadOnlyMounts`] if nothing may be written to `mounts`; [`EngineError::Layer`] if it is damaged or
    /// hostile: the target then holds a part of it and is the caller's to remove.
    pub fn apply(
        &self,
        space: &Space,
        descriptor: &Descriptor,
        mounts: &[Mount],
    ) -> Result<Descriptor, EngineError> {
        let compression = compression(descriptor)?;
        let blob = space.open_blob(&descriptor.digest)?;
        let target = self.target(mounts)?;
        let (path, whiteouts) = match &target {
            Target::Upper(path, _) => (path.as_path(), Whiteouts::Overlay),
            Target::Tree(path) => (path.as_path(), Whiteouts::Apply),
            Target::Mounted(mounted) => (mounted.path(), Whiteouts::Apply),
        };
        let options = UnpackOptions { whiteouts, record: self.record_of(path), ..UnpackOptions::default() };
        let failed = |source| EngineError::Layer {
            reference: descriptor.media_type.clone(),
            digest: descriptor.digest,
            source,
        };
        let unpacked = storage_layer::unpack(blob, compression, path, &options, &|_| {}).map_err(failed)?;
        if let Target::Upper(path, lowers) = &target {
            storage_layer::settle(path, &unpacked.implied, lowers).map_err(failed)?;
        }
        if let Target::Mounted(mounted) = target {
            mounted.unmount()?;
        }
        Ok(uncompressed(&unpacked))
    }

    /// Where the tree unpacked into `path` is recorded, for `check`: what comes on top of something is no whole record.
    fn record_of(&self, path: &Path) -> Option<PathBuf> {
        let is_empty = path.read_dir().is_ok_and(|mut entries| entries.next().is_none());
        snapshotters_overlay::record_beside(self.store(), path).filter(|_| is_empty)
    }

    fn target(&self, mounts: &[Mount]) -> Result<Target, EngineError> {
        let plain: Vec<_> = mounts.iter().map(Into::into).collect();
        match shape(&plain) {
            Shape::Overlay { upper: Some(upper), lower } => Ok(Target::Upper(upper, lower)),
            Shape::Directory { path, read_only: false } => Ok(Target::Tree(path)),
            Shape::Mounted if !plain.is_empty() => {
                Ok(Target::Mounted(Mounted::new(&self.config().state, &plain)?))
            }
            _ => Err(EngineError::ReadOnlyMounts),
        }
    }
}

/// How the tar of a layer is compressed, by its media type.
fn compression(descriptor: &Descriptor) -> Result<Compression, EngineError> {
    match layer_kind(&descriptor.media_type) {
        LayerKind::Tar(compression) => Ok(compression),
        LayerKind::Encrypted | LayerKind::Foreign => Err(EngineError::NoLayer {
            digest: descriptor.digest,
            media_type: descriptor.media_type.chars().take(128).collect(),
        }),
    }
}

fn uncompressed(unpacked: &Unpacked) -> Descriptor {
    Descriptor::new(media::OCI_LAYER, unpacked.diff_id.0, unpacked.uncompressed_bytes)
}
