//! The snapshotters of an engine, by name.

use std::sync::Arc;

use lazy_snapshotter::{Lazy, Places};
use snapshotters_contract::{SnapshotError, Snapshotter};
use snapshotters_native::Native;
use snapshotters_overlay::Overlay;
use storage_content::{Space, Store};

use crate::{EngineConfig, EngineError};

/// Snapshotter of requests that name none.
pub(crate) const DEFAULT_SNAPSHOTTER: &str = snapshotters_overlay::NAME;

/// Every snapshotter over one store. Clones are handles on the same ones.
#[derive(Clone)]
pub(crate) struct Snapshotters {
    overlay: Overlay,
    native: Native,
    lazy: Lazy,
}

impl Snapshotters {
    /// Opens them; each discards what a crash left of it.
    ///
    /// # Errors
    /// That of the first that cannot be opened.
    pub(crate) fn open(store: &Store, config: &EngineConfig) -> Result<Self, SnapshotError> {
        let places =
            Places { root: config.root.clone(), state: config.state.clone(), program: config.exe.clone() };
        Ok(Self {
            overlay: Overlay::new(store)?,
            native: Native::new(store)?,
            lazy: Lazy::open(store, places)?,
        })
    }

    /// The one of images that are not unpacked.
    pub(crate) fn lazy(&self) -> &Lazy {
        &self.lazy
    }

    /// Their names, the default one first.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        vec![snapshotters_overlay::NAME, snapshotters_native::NAME, lazy_snapshotter::NAME]
    }

    /// The one called `name` (empty: the default), bound to `space`.
    ///
    /// # Errors
    /// [`EngineError::UnknownSnapshotter`] names those that there are.
    pub(crate) fn bind(&self, name: &str, space: Space) -> Result<Arc<dyn Snapshotter>, EngineError> {
        match name {
            "" | snapshotters_overlay::NAME => Ok(self.overlay.bind(space)),
            snapshotters_native::NAME => Ok(self.native.bind(space)),
            lazy_snapshotter::NAME => Ok(self.lazy.bind(space)),
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
        self.overlay.cleanup().and(self.native.cleanup()).and(self.lazy.cleanup())
    }
}
