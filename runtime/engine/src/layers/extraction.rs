//! A layer unpacked into a snapshot of its own, not yet part of any image.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use snapshotters_contract::{ActiveKey, CommittedName, SnapshotError, Snapshotter, Usage};
use storage_layer::{LayerError, Unpacked};
use storage_model::Labels;
use storage_sys::tree::EntryPath;

use crate::EngineError;
use crate::work::Working;

/// An active snapshot that holds one unpacked layer. Dropped without [`commit`](Self::commit), it is removed.
pub(crate) struct Extraction {
    snapshotter: Arc<dyn Snapshotter>,
    key: Option<ActiveKey>,
    path: PathBuf,
    usage: Option<Usage>,
    implied: Vec<EntryPath>,
    /// The operation is not over before this snapshot is committed or removed.
    working: Option<Working>,
}

impl Extraction {
    /// Makes an empty snapshot to unpack into. It has no parent: layers unpack side by side and are stacked at commit.
    pub(crate) fn prepare(
        snapshotter: Arc<dyn Snapshotter>,
        key: ActiveKey,
        working: Working,
    ) -> Result<Self, EngineError> {
        snapshotter.prepare(&key, None, &Labels::new())?;
        Ok(Self {
            snapshotter,
            key: Some(key),
            path: PathBuf::new(),
            usage: None,
            implied: Vec::new(),
            working: Some(working),
        })
    }

    /// Key of the active snapshot.
    pub(crate) fn key(&self) -> &ActiveKey {
        self.key.as_ref().expect("the key is taken only by commit and drop")
    }

    /// Notes where the layer was unpacked and what the unpacker counted, so that commit need not walk the tree.
    pub(crate) fn unpacked(&mut self, path: PathBuf, unpacked: &Unpacked) {
        self.path = path;
        self.usage = Some(Usage { bytes: unpacked.disk_bytes, inodes: unpacked.inodes });
        self.implied = unpacked.implied.clone();
    }

    /// Where the layer is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives directories the layer only implies the attributes they have in `lowers`, the highest first.
    pub(crate) fn settle(&self, lowers: &[PathBuf]) -> Result<(), LayerError> {
        storage_layer::settle(&self.path, &self.implied, lowers)
    }

    /// Turns it into the committed snapshot `name` on top of `parent`; if that exists by now, the copy is removed.
    pub(crate) fn commit(
        mut self,
        name: &CommittedName,
        parent: Option<&CommittedName>,
    ) -> Result<(), EngineError> {
        let key = self.key.as_ref().expect("the key is taken only by commit and drop");
        match self.snapshotter.commit_with_usage(key, name, parent, &Labels::new(), self.usage) {
            Ok(()) => {
                self.key = None;
                Ok(())
            }
            Err(SnapshotError::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Extraction {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            let (snapshotter, working) = (self.snapshotter.clone(), self.working.take());
            // Deleting a tree takes a while and this may be a thread that must not wait.
            std::thread::spawn(move || {
                let _working = working;
                if let Err(error) = snapshotter.remove(key.as_str()) {
                    tracing::warn!(%error, %key, "an unfinished layer stays until the next collection");
                }
            });
        }
    }
}
