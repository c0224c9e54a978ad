//! The snapshotter bound to one namespace: overlay's calls, and the mounts of stacks that come and go with what stands on
//! them.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use snapshotters_contract::{
    ActiveKey, CommittedName, Info, LabelChange, LayerTarget, Mount, SnapshotError, Snapshotter, Tree, Usage,
};
use storage_content::Space;
use storage_model::Labels;

use crate::{Lazy, NAME};

/// See [`Lazy::bind`].
pub(crate) struct Bound {
    pub(crate) lazy: Lazy,
    pub(crate) space: Space,
    pub(crate) ordinary: Arc<dyn Snapshotter>,
}

impl Snapshotter for Bound {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(
        &self,
        key: &ActiveKey,
        parent: Option<&CommittedName>,
        labels: &Labels,
    ) -> Result<Vec<Mount>, SnapshotError> {
        self.ordinary.prepare(key, parent, labels)
    }

    fn view(
        &self,
        key: &ActiveKey,
        parent: Option<&CommittedName>,
        labels: &Labels,
    ) -> Result<Vec<Mount>, SnapshotError> {
        self.ordinary.view(key, parent, labels)
    }

    fn mounts(&self, key: &ActiveKey) -> Result<Vec<Mount>, SnapshotError> {
        self.ordinary.mounts(key)
    }

    fn commit_with_usage(
        &self,
        key: &ActiveKey,
        name: &CommittedName,
        rebase: Option<&CommittedName>,
        labels: &Labels,
        counted: Option<Usage>,
    ) -> Result<(), SnapshotError> {
        let stood = self.lazy.is_shown_below(&self.space, key.as_str());
        self.ordinary.commit_with_usage(key, name, rebase, labels, counted)?;
        if stood {
            self.lazy.hide_unused();
        }
        Ok(())
    }

    fn stat(&self, key: &str) -> Result<Info, SnapshotError> {
        self.ordinary.stat(key)
    }

    fn update(&self, key: &str, change: LabelChange) -> Result<Info, SnapshotError> {
        self.ordinary.update(key, change)
    }

    fn usage(&self, key: &str) -> Result<Usage, SnapshotError> {
        self.ordinary.usage(key)
    }

    fn walk(&self, visit: &mut dyn FnMut(Info) -> ControlFlow<()>) -> Result<(), SnapshotError> {
        self.ordinary.walk(visit)
    }

    fn remove(&self, key: &str) -> Result<(), SnapshotError> {
        let stood = self.lazy.is_shown_below(&self.space, key);
        self.ordinary.remove(key)?;
        if stood {
            self.lazy.hide_unused();
        }
        Ok(())
    }

    fn cleanup(&self) -> Result<(), SnapshotError> {
        self.lazy.cleanup()
    }

    fn layer_target(&self, key: &ActiveKey) -> Result<LayerTarget, SnapshotError> {
        self.ordinary.layer_target(key)
    }

    fn layers(&self, name: &CommittedName) -> Result<Vec<PathBuf>, SnapshotError> {
        self.ordinary.layers(name)
    }

    fn trees(&self, name: &CommittedName) -> Result<Vec<Tree>, SnapshotError> {
        self.ordinary.trees(name)
    }
}
