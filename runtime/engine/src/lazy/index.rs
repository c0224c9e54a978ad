//! Layers that say nothing of how they can be read in pieces: read once whole, when their blob is here, and remembered by
//! it, so that the next pull of an image with this layer fetches only what is read.

use std::sync::Arc;

use lazy_index::Toc;
use storage_model::{Compression, DiffId, Digest};

use super::plan::Planned;
use crate::layers::Task;
use crate::work::blocking;
use crate::{Engine, EngineError};

/// The table of contents of a layer whose blob is here.
///
/// # Errors
/// [`EngineError::DiffIdMismatch`] if the blob is not the layer of the config; [`EngineError::Layer`] if it is none.
pub(crate) async fn index(task: &Task, layer: &Planned) -> Result<Arc<Toc>, EngineError> {
    let (engine, space, name) = (task.engine.clone(), task.space.clone(), task.name.to_string());
    let (digest, diff_id) = (layer.descriptor.digest, layer.diff_id);
    let compression = layer.compression;
    blocking(move || engine.index_blob(&space, &name, digest, compression, diff_id).map(Arc::new)).await
}

impl Engine {
    /// Reads the blob `digest` whole, proves that it is the layer `expected`, and remembers what is in it.
    ///
    /// # Errors
    /// As [`index`].
    pub(crate) fn index_blob(
        &self,
        space: &storage_content::Space,
        reference: &str,
        digest: Digest,
        compression: Compression,
        expected: DiffId,
    ) -> Result<Toc, EngineError> {
        let indexed = lazy_build::index_layer(
            space.open_blob(&digest)?,
            compression,
            &lazy_build::IndexOptions::default(),
        )
        .map_err(|source| super::LazyError::Index {
            name: reference.to_owned(),
            layer: digest,
            source,
        })?;
        if indexed.diff_id != expected {
            let (reference, actual) = (reference.to_owned(), indexed.diff_id);
            return Err(EngineError::DiffIdMismatch { reference, digest, expected, actual });
        }
        let shelf = self.lazy().shown().shelf();
        let held = shelf.hold();
        let toc = shelf.put_toc(&held, &indexed.toc)?;
        shelf.remember(&held, &digest, &lazy_snapshotter::Known { toc, diff_id: expected })?;
        Ok(indexed.toc)
    }
}
