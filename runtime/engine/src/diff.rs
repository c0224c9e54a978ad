//! Packs what one tree changes of another into a layer (containerd's `diff.v1` Diff).
//!
//! Of mounts that are directories of ours nothing is mounted: where the right side is the left one with one directory more
//! on top, that directory is the difference and is packed as it stands. Anything else is compared entry by entry.
//!
//! The layer is stored as a blob before its descriptor is returned, labelled with its diff ID.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use snapshotters_contract::Mount;
use storage_content::{ErrorKind, Expected, Ingest, Space, StoreError};
use storage_layer::{PackOptions, Packed};
use storage_model::media::{LayerKind, layer_kind};
use storage_model::{Descriptor, Labels, media};
use storage_sys::mount::{Shape, shape};

use crate::layers::UNCOMPRESSED;
use crate::mounted::Mounted;
use crate::{Engine, EngineError};

/// What to compare, and how the layer is written.
#[derive(Debug, Clone, Default)]
pub struct DiffRequest {
    /// The tree before; no mounts: an empty one.
    pub left: Vec<Mount>,
    /// The tree after.
    pub right: Vec<Mount>,
    /// Media type of the layer; empty is OCI's gzip layer.
    pub media_type: String,
    /// Reference of the ingest it is written through; empty: one is made up.
    pub reference: String,
    /// Labels of the blob.
    pub labels: Labels,
    /// Time that whiteouts carry, and later times are cut to; none: zero, and nothing is cut.
    pub source_date_epoch: Option<SystemTime>,
}

/// A difference, by where it can be read.
enum Sides {
    /// An overlay's directory of differences, and what is below it, the highest first.
    Upper(PathBuf, Vec<PathBuf>),
    /// Two whole trees.
    Trees(Option<Side>, Side),
}

/// A tree that can be read at a path.
enum Side {
    Directory(PathBuf),
    Mounted(Mounted),
}

impl Side {
    fn path(&self) -> &Path {
        match self {
            Self::Directory(path) => path,
            Self::Mounted(mounted) => mounted.path(),
        }
    }
}

impl Engine {
    /// Packs the difference from `left` to `right` into a blob of `space` and returns its descriptor.
    ///
    /// # Errors
    /// [`EngineError::NoLayerType`] if the media type is no layer we can write; [`EngineError::Pack`] if a tree cannot be
    /// read; [`EngineError::Store`] if the blob cannot be written. No blob is left then.
    pub fn diff(&self, space: &Space, request: &DiffRequest) -> Result<Descriptor, EngineError> {
        let media_type =
            if request.media_type.is_empty() { media::OCI_LAYER_GZIP } else { request.media_type.as_str() };
        let LayerKind::Tar(compression) = layer_kind(media_type) else {
            return Err(EngineError::NoLayerType { media_type: media_type.chars().take(128).collect() });
        };
        let options = PackOptions {
            compression,
            source_date_epoch: request.source_date_epoch,
            ..PackOptions::default()
        };
        let sides = self.sides(&request.left, &request.right)?;
        let mut ingest = space.ingest(&reference(request), Expected::default())?;
        ingest.truncate(0)?;
        let mut sink = Sink { ingest: &mut ingest, failed: None };
        let packed = pack(&sides, &mut sink, &options);
        if let Some(error) = sink.failed {
            ingest.abort()?;
            return Err(error.into());
        }
        let packed = match packed {
            Ok(packed) => packed,
            Err(source) => {
                ingest.abort()?;
                return Err(EngineError::Pack { source });
            }
        };
        let mut labels = request.labels.clone();
        labels.insert(UNCOMPRESSED.to_owned(), packed.diff_id.to_string());
        match ingest.commit(Expected::exactly(packed.digest, packed.size), labels) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Descriptor::new(media_type, packed.digest, packed.size))
    }

    fn sides(&self, left: &[Mount], right: &[Mount]) -> Result<Sides, EngineError> {
        let plain = |mounts: &[Mount]| mounts.iter().map(Into::into).collect::<Vec<_>>();
        let (left, right) = (plain(left), plain(right));
        if let (Some(lowers), Some(mut stack)) = (layers(&left), layers(&right))
            && stack.len() == lowers.len() + 1
            && stack[1..] == lowers[..]
            && is_overlay_directory(self, &stack[0])
        {
            return Ok(Sides::Upper(stack.remove(0), lowers));
        }
        let left = if left.is_empty() { None } else { Some(self.side(&left)?) };
        Ok(Sides::Trees(left, self.side(&right)?))
    }

    fn side(&self, mounts: &[storage_sys::mount::Mount]) -> Result<Side, EngineError> {
        match shape(mounts) {
            Shape::Directory { path, .. } => Ok(Side::Directory(path)),
            _ => Ok(Side::Mounted(Mounted::new(&self.config().state, mounts)?)),
        }
    }
}

/// The directories of mounts that stand on one another, the highest first; none if that cannot be said.
fn layers(mounts: &[storage_sys::mount::Mount]) -> Option<Vec<PathBuf>> {
    if mounts.is_empty() {
        return Some(Vec::new());
    }
    match shape(mounts) {
        Shape::Directory { path, .. } => Some(vec![path]),
        Shape::Overlay { upper, lower } => Some(upper.into_iter().chain(lower).collect()),
        Shape::Mounted => None,
    }
}

/// Whether `directory` holds differences in overlay's form. A plain directory of whole trees would pack the same when it
/// stands alone, which is the only place it can have here: a whole tree is never a layer of an overlay of ours.
fn is_overlay_directory(engine: &Engine, directory: &Path) -> bool {
    directory.starts_with(engine.store().root())
}

fn pack(
    sides: &Sides,
    sink: &mut (impl Write + Send),
    options: &PackOptions,
) -> Result<Packed, storage_layer::PackError> {
    match sides {
        Sides::Upper(upper, lowers) => storage_layer::pack_overlay(upper, lowers, sink, options),
        Sides::Trees(left, right) => {
            storage_layer::pack_difference(left.as_ref().map(Side::path), right.path(), sink, options)
        }
    }
}

fn reference(request: &DiffRequest) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    if request.reference.is_empty() {
        format!("diff-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
    } else {
        request.reference.clone()
    }
}

/// Writes into an ingest, and keeps the store's own error apart from the packer's.
struct Sink<'a> {
    ingest: &'a mut Ingest,
    failed: Option<StoreError>,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.ingest.write(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                let told = io::Error::other(error.to_string());
                self.failed = Some(error);
                Err(told)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
