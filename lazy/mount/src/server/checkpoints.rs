//! Points at which gzip layers can be entered, from their tables of contents.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use lazy_fetch::Checkpoints;
use lazy_index::{Checkpoint, Toc};
use storage_model::Digest;

/// Layers whose checkpoints stay in memory. One point takes 32 KiB and there is one every few MiB, so a layer of 1 GiB
/// costs about 8 MiB here.
const LAYERS_MAX: usize = 2;

type Points = Arc<[Checkpoint]>;

/// The checkpoints of an image's layers, read when one is needed.
pub(super) struct TocFiles {
    files: Vec<(Digest, PathBuf)>,
    /// The latest used last.
    loaded: Mutex<VecDeque<(Digest, Points)>>,
}

impl TocFiles {
    /// Those in `files`, of blobs by their digests.
    pub(super) fn new(files: Vec<(Digest, PathBuf)>) -> Self {
        Self { files, loaded: Mutex::default() }
    }

    fn points(&self, blob: &Digest) -> Option<Points> {
        // Loading takes long, but whoever wants a point of the same layer would have to do the same.
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = loaded.iter().position(|(of, _)| of == blob) {
            let found = loaded.remove(at)?;
            loaded.push_back(found.clone());
            return Some(found.1);
        }
        let (_, path) = self.files.iter().find(|(of, _)| of == blob)?;
        let toc = std::fs::read(path).map_err(|error| error.to_string());
        let toc = toc.and_then(|bytes| Toc::decode(&bytes).map_err(|error| error.to_string()));
        match toc {
            Ok(toc) => {
                let points: Points = toc.checkpoints.into();
                if loaded.len() == LAYERS_MAX {
                    loaded.pop_front();
                }
                loaded.push_back((*blob, points.clone()));
                Some(points)
            }
            Err(error) => {
                tracing::error!(error, path = %path.display(), "the table of contents of a layer cannot be used");
                None
            }
        }
    }
}

impl Checkpoints for TocFiles {
    fn checkpoint(&self, blob: &Digest, number: u32) -> Option<Checkpoint> {
        self.points(blob)?.get(number as usize).cloned()
    }
}
