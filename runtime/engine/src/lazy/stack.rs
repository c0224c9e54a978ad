//! Which images are shown, by looking at their snapshots; and which snapshotter an image that is here is used with.

use lazy_snapshotter::Stack;
use snapshotters_contract::CommittedName;
use storage_content::ErrorKind;
use storage_model::{Namespace, ProtectionDomain};

use super::LazyError;
use super::choice::Choice;
use crate::layers::PlatformImage;
use crate::{Engine, EngineError};

impl Engine {
    /// The described layers that `image` is shown by; none if it is not shown, or only partly.
    pub(crate) fn stack_of(
        &self,
        namespace: &Namespace,
        image: &PlatformImage,
    ) -> Result<Option<Stack>, EngineError> {
        let Some(chain) = image.chain() else { return Ok(None) };
        let name: CommittedName = ProtectionDomain::Plain.snapshot_name(&chain).parse()?;
        let stack = match self.lazy().stack(&self.space(namespace), &name) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            stack => stack?,
        };
        // The same chain may be shown for an image with other blobs: that is this one's tree only once it is proved.
        let own = |stack: &Stack| {
            if stack.verified.iter().all(|verified| *verified) {
                return true;
            }
            let blobs = image.manifest.layers.iter().map(|layer| layer.digest);
            blobs.eq(stack.layers.iter().map(|layer| layer.blob))
        };
        Ok(stack.filter(own))
    }

    /// The snapshotter that `image` is used with when nobody names one: the one that has it, the default one first.
    ///
    /// # Errors
    /// [`LazyError::TwoFaced`] if the image was found to be another than it showed.
    pub(crate) fn home_of(
        &self,
        namespace: &Namespace,
        image: &crate::Image,
    ) -> Result<&'static str, EngineError> {
        let space = self.space(namespace);
        let ordinary = self.snapshotter("", space.clone())?;
        let Some(chain) = &image.chain else { return Ok(ordinary.name()) };
        let name = ProtectionDomain::Plain.snapshot_name(chain);
        let config = space.blob(&image.manifest.config.digest)?.labels;
        let has = |snapshotter: &str| {
            let (key, value) = crate::image::documents::keeps_snapshot(snapshotter, chain);
            config.get(&key) == Some(&value)
        };
        if has(ordinary.name()) && ordinary.stat(&name).is_ok() {
            return Ok(ordinary.name());
        }
        let lazy = self.snapshotter(lazy_snapshotter::NAME, space.clone())?;
        if !has(lazy.name()) || lazy.stat(&name).is_err() {
            return Ok(ordinary.name());
        }
        match Choice::read(&space, &image.descriptor.digest).and_then(|choice| choice.lied) {
            Some(difference) => {
                let (name, layer) = (image.record.name.clone(), image.descriptor.digest);
                Err(LazyError::TwoFaced { name, layer, difference }.into())
            }
            None => Ok(lazy.name()),
        }
    }

    /// Bytes and number of reads of the last recorded start of an image.
    pub(crate) fn traced(&self, layers: &[lazy_snapshotter::Layer]) -> Option<(u64, u64)> {
        let trace = self.lazy().shown().trace(&lazy_snapshotter::StackId::of(layers))?;
        let bytes = trace.events.iter().map(|event| event.length).sum();
        Some((bytes, trace.events.len() as u64))
    }
}
