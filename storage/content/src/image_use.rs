//! Which images are used, and which could go when room is needed.
//!
//! A use is a hint for whoever must let something go: it is written without a sync, and one of the last seconds before a
//! power cut may be forgotten.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::SystemTime;

use storage_model::{Labels, Namespace};

use crate::collect::Node;
use crate::container::ContainerRecord;
use crate::image::ImageRecord;
use crate::lease;
use crate::metadata::Durability;
use crate::metadata::key::{self, check_name};
use crate::space::Space;
use crate::store::Store;
use crate::{StoreError, Subject};

/// An image that nobody uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdleImage {
    /// Its namespace.
    pub namespace: Namespace,
    /// What it is.
    pub image: ImageRecord,
}

/// Labels that keep an image from being let go: ours, by being there with any value but `false`, and the kubelet's.
const PINNED_LABEL: &str = "windlass.io/pinned";
const CRI_PINNED: (&str, &str) = ("io.cri-containerd.pinned", "pinned");

impl ImageRecord {
    /// Whether someone said that it must not be let go for want of room.
    pub fn is_pinned(&self) -> bool {
        is_pinned(&self.labels)
    }
}

fn is_pinned(labels: &Labels) -> bool {
    labels.get(PINNED_LABEL).is_some_and(|value| value != "false")
        || labels.get(CRI_PINNED.0).is_some_and(|value| value == CRI_PINNED.1)
}

impl Space {
    /// Notes that an image is used now. Cheap: it waits for no disk. One that does not exist is fine.
    ///
    /// # Errors
    /// [`StoreError::Metadata`] or [`StoreError::Full`] if it could not be noted: no reason not to go on.
    pub fn mark_image_used(&self, name: &str) -> Result<(), StoreError> {
        check_name(Subject::Image, name)?;
        let image_key = key::key(&self.namespace, &[name]);
        // Without a namespace's record there is no image, and nothing to write.
        self.change_known(Durability::Written, [Node::image(&self.namespace, name)], |transaction| {
            let Some(mut image) = transaction.lock::<ImageRecord>(&image_key)? else { return Ok(()) };
            image.used = Some(SystemTime::now());
            transaction.put(&image_key, &image)
        })
    }
}

impl Store {
    /// The images that could be let go for want of room, of all namespaces, the one used longest ago first. Left out are
    /// pinned ones (labels `windlass.io/pinned` and `io.cri-containerd.pinned=pinned`), those that a container was made
    /// from, and those that a lease lists, by name or by target.
    ///
    /// # Errors
    /// [`StoreError::Metadata`] or [`StoreError::Record`] if the records cannot be read.
    pub fn least_used_images(&self) -> Result<Vec<IdleImage>, StoreError> {
        let mut busy = HashSet::new();
        self.0.metadata.walk(&[], |row, record: ContainerRecord| {
            if let Some((namespace, _)) = key::split_namespace(row) {
                busy.insert(Node::image(&namespace, &record.image));
            }
            ControlFlow::Continue(())
        })?;
        lease::walk_resources(&self.0.metadata, &[], |namespace, _, resource| {
            busy.extend(resource.node(&namespace));
        })?;
        let mut idle = Vec::new();
        self.0.metadata.walk(&[], |row, image: ImageRecord| {
            if let Some((namespace, _)) = key::split_namespace(row) {
                let nodes =
                    [Node::image(&namespace, &image.name), Node::blob(&namespace, &image.target.digest)];
                if !image.is_pinned() && !nodes.iter().any(|node| busy.contains(node)) {
                    idle.push(IdleImage { namespace, image });
                }
            }
            ControlFlow::Continue(())
        })?;
        idle.sort_by_key(|one| one.image.last_used());
        Ok(idle)
    }
}
