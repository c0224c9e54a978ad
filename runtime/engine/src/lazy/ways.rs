//! How each image of a pull is brought: whole, or shown before it has arrived.

use std::collections::BTreeMap;
use std::sync::Arc;

use storage_model::{Digest, Labels};

use super::choice::Choice;
use super::plan::{Asked, Decision, How, Plan, decide};
use super::{LazyMode, publish};
use crate::layers::{PlatformImage, Stack, Task};
use crate::pull::{PullRequest, Target};
use crate::{EngineError, lazy::complete::Work};

/// How each image of a pull is brought.
#[derive(Debug)]
pub(crate) struct Ways {
    /// Snapshotter of what is unpacked.
    ordinary: &'static str,
    /// By digest of the config: images that are shown.
    plans: BTreeMap<Digest, Plan>,
    /// By digest of the manifest: what was chosen, and the layers whose blobs are not brought now.
    manifests: BTreeMap<Digest, (Choice, Vec<Digest>)>,
}

impl Ways {
    /// Decides for each image that `target` wants unpacked.
    ///
    /// # Errors
    /// Those of [`decide`].
    pub(crate) async fn choose(
        task: &Task,
        target: &Target,
        request: &PullRequest,
        ordinary: &'static str,
    ) -> Result<Self, EngineError> {
        let mut ways = Self { ordinary, plans: BTreeMap::new(), manifests: BTreeMap::new() };
        let elsewhere = !matches!(request.snapshotter.as_str(), "" | lazy_snapshotter::NAME);
        let Some(origin) = task.origin.as_ref().filter(|_| request.lazy != LazyMode::Never && !elsewhere)
        else {
            return Ok(ways);
        };
        for image in &target.images {
            let Some(manifest) = target.manifest_of(image) else { continue };
            let asked = Asked { mode: request.lazy, manifest, origin };
            let (plan, choice) = match decide(task, image, asked).await? {
                Decision::Full(None) => continue,
                Decision::Full(Some(choice)) => (None, choice),
                Decision::Lazy(plan) => {
                    let choice = Choice { no_fill: request.no_fill, ..plan.choice.clone() };
                    (Some(plan), choice)
                }
            };
            let absent = plan.iter().flat_map(|plan| &plan.layers);
            let absent = absent.filter(|layer| !matches!(layer.how, How::Opaque));
            let absent = absent.map(|layer| layer.descriptor.digest).collect();
            ways.manifests.insert(manifest.digest, (choice, absent));
            ways.plans.extend(plan.map(|plan| (image.manifest.config.digest, plan)));
        }
        Ok(ways)
    }

    /// Brings one image its way.
    ///
    /// # Errors
    /// Those of the way.
    pub(crate) async fn bring(
        &self,
        task: &Task,
        image: &Arc<PlatformImage>,
        request: &PullRequest,
    ) -> Result<(), EngineError> {
        let plan = self.plans.get(&image.manifest.config.digest);
        let (Some(plan), Some(origin)) = (plan, &task.origin) else {
            let snapshotter = task.engine.snapshotter(self.ordinary, task.space.clone())?;
            return Stack::new(task, image, &snapshotter).bring().await;
        };
        let from = publish::origin(&task.engine, &origin.reference, &request.registry);
        publish::publish(task, plan, from).await
    }

    /// Snapshotter of the image with the config `config`.
    pub(crate) fn snapshotter(&self, config: &Digest) -> &'static str {
        if self.plans.contains_key(config) { lazy_snapshotter::NAME } else { self.ordinary }
    }

    /// Changes the labels of the document `digest`: a manifest says what was chosen, and keeps only what is here.
    pub(crate) fn label(&self, digest: &Digest, labels: &mut Labels) {
        let Some((choice, absent)) = self.manifests.get(digest) else { return };
        let absent: Vec<String> = absent.iter().map(ToString::to_string).collect();
        labels.retain(|_, value| !absent.contains(value));
        labels.extend(choice.label());
    }

    /// Why, for who pulled: of the first image.
    pub(crate) fn reasons(&self) -> Vec<String> {
        self.manifests.values().next().map(|(choice, _)| choice.reasons.clone()).unwrap_or_default()
    }

    /// Begins to complete what is shown, where that is wanted.
    pub(crate) fn complete(&self, task: &Task, target: &Target, request: &PullRequest) {
        if request.no_fill {
            return;
        }
        for image in &target.images {
            let shown = self.plans.contains_key(&image.manifest.config.digest);
            if let (true, Some(manifest), Some(origin)) = (shown, target.manifest_of(image), &task.origin) {
                task.engine.complete_soon(Work {
                    namespace: task.space.namespace().clone(),
                    name: task.name.to_string(),
                    manifest: manifest.clone(),
                    image: image.clone(),
                    origin: origin.clone(),
                });
            }
        }
    }
}
