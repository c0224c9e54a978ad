//! Which layer a committed snapshot was unpacked from: found through the images that have it.

use snapshotters_contract::CommittedName;
use storage_content::Space;
use storage_model::{Compression, Descriptor, DiffId, ProtectionDomain, chain_ids, media};

use crate::image::contents::{Contents, Wanted};
use crate::image::documents;
use crate::layers::PlatformImage;
use crate::{Engine, EngineError};

/// A layer, as an image has it.
pub(super) struct StackedLayer {
    pub(super) descriptor: Descriptor,
    pub(super) compression: Compression,
    pub(super) diff_id: DiffId,
}

impl Engine {
    /// The layer of snapshot `name`, once for each image of `space` that has it. Images that cannot be read are passed over:
    /// they have findings of their own.
    ///
    /// # Errors
    /// [`EngineError::Store`] if the images cannot be listed.
    pub(super) fn layers_of(
        &self,
        space: &Space,
        name: &CommittedName,
    ) -> Result<Vec<(String, StackedLayer)>, EngineError> {
        let mut found = Vec::new();
        for image in space.images()? {
            let Ok(contents) = Contents::read(space, &image.name, &image.target, &Wanted::Here) else {
                continue;
            };
            for member in contents.members {
                if !media::is_config(&member.manifest.config.media_type) {
                    continue;
                }
                let config = documents::config(space, &image.name, &member.manifest.config);
                let platform =
                    config.and_then(|bytes| PlatformImage::read(&image.name, member.manifest, &bytes));
                if let Some(layer) = platform.ok().and_then(|image| layer_at(&image, name)) {
                    found.push((image.name.clone(), layer));
                    break;
                }
            }
        }
        Ok(found)
    }
}

/// The layer of `image` whose unpacked stack is called `name`.
fn layer_at(image: &PlatformImage, name: &CommittedName) -> Option<StackedLayer> {
    let diff_ids = &image.config.rootfs.diff_ids;
    let at = chain_ids(diff_ids)
        .iter()
        .position(|chain| ProtectionDomain::Plain.snapshot_name(chain) == name.as_str())?;
    Some(StackedLayer {
        descriptor: image.manifest.layers.get(at)?.clone(),
        compression: *image.compressions.get(at)?,
        diff_id: diff_ids[at],
    })
}
