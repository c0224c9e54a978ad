//! The snapshotters of an engine, by name.

use std::sync::Arc;

use snapshotters_contract::{SnapshotError, Snapshotter};
use snapshotters_native::Native;
use snapshotters_overlay::Overlay;
use storage_content::{Space, Store};

use crate::EngineError;

/// Snapshotter of requests that name none.
pub(crate) const DEFAULT_SNAPSHOTTER: &str = snapshotters_overlay::NAME;

/// Every snapshotter over one store. Clones are handles on the same ones.
#[derive(Clone)]
pub(crate) struct Snapshotters {
    overlay: Overlay,
    native: Native,
}

impl Snapshotters {
    /// Opens them; each discards what a crash left of it.
    ///
    /// # Errors
    /// That of the first that cannot be opened.
    pub(crate) fn open(store: &Store) -> Result<Self, SnapshotError> {
        Ok(Self { overlay: Overlay::new(store)?, native: Native::new(store)? })
    }

    /// Their names, the default one first.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        vec![snapshotters_overlay::NAME, snapshotters_native::NAME]
    }

    /// The one called `name` (empty: the default), bound to `space`.
    ///
    /// # Errors
    /// [`EngineError::UnknownSnapshotter`] names those that there are.
    pub(crate) fn bind(&self, name: &str, space: Space) -> Result<Arc<dyn Snapshotter>, EngineError> {
        match name {
            "" | snapshotters_overlay::NAME => Ok(self.overlay.bind(space)),
            snapshotters_native::NAME => Ok(self.native.bind(space)),
            other => Err(EngineError::UnknownSnapshotter {
                name: other.chars().take(128).collect(),
                known: self.names().join(", "),
            }),
        }
    }

    /// Frees the directories of removed snapshots. One snapshotter that fails does not keep the others from it.
    ///
    /// # Errors
    /// The first there was; what could not be freed is found again the next time.
    pub(crate) fn clean_up(&self) -> Result<(), SnapshotError> {
        self.overlay.cleanup().and(self.native.cleanup())
    }
}
