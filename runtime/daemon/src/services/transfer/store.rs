//! The image store as an end of a transfer, in the engine's words.

use runtime_api::containerd::types::Platform as WirePlatform;
use runtime_api::containerd::types::transfer as wire;
use runtime_engine::{ExportRequest, ImportRequest, PullRequest, PushRequest, RegistryOptions};
use storage_content::{ImageRecord, Space};
use tonic::Status;

use crate::call::CallError;
use crate::convert::checked_labels;
use crate::status::invalid;

/// Prefix of the name that containerd's clients make up when the user gives none; the engine makes up the same.
const MADE_UP: &str = "import-";

fn platform_in(platform: &WirePlatform) -> String {
    let WirePlatform { os, architecture, variant, .. } = platform;
    if variant.is_empty() { format!("{os}/{architecture}") } else { format!("{os}/{architecture}/{variant}") }
}

fn platforms_in(platforms: &[WirePlatform]) -> Vec<String> {
    platforms.iter().map(platform_in).collect()
}

/// A pull into `store`. No platforms means all of them; nothing is unpacked unless the client says where.
pub(super) fn pull(
    store: &wire::ImageStore,
    reference: &str,
    registry: RegistryOptions,
) -> Result<PullRequest, Status> {
    let mut platforms = platforms_in(&store.platforms);
    let platform = if platforms.is_empty() { String::new() } else { platforms.remove(0) };
    Ok(PullRequest {
        reference: reference.to_owned(),
        all_platforms: store.platforms.is_empty(),
        platform,
        platforms,
        no_unpack: store.unpacks.is_empty(),
        labels: checked_labels(store.labels.clone())?,
        snapshotter: snapshotter(store)?,
        registry,
        ..Default::default()
    })
}

/// The one snapshotter that the client wants images unpacked for.
fn snapshotter(store: &wire::ImageStore) -> Result<String, Status> {
    let mut names = store.unpacks.iter().map(|unpack| unpack.snapshotter.as_str());
    let first = names.next().unwrap_or_default();
    if names.any(|name| name != first) {
        return Err(invalid("an image is unpacked for one snapshotter at a time"));
    }
    Ok(first.to_owned())
}

pub(super) fn push(store: &wire::ImageStore, reference: &str, registry: RegistryOptions) -> PushRequest {
    PushRequest {
        image: store.name.clone(),
        reference: reference.to_owned(),
        platforms: platforms_in(&store.platforms),
        registry,
        ..Default::default()
    }
}

/// An import into `store`. Names that are here move to the images of the archive, as they do in containerd.
pub(super) fn import(
    store: &wire::ImageStore,
    archive: &wire::ImageImportStream,
) -> Result<ImportRequest, Status> {
    let prefix = store.extra_references.iter().find(|reference| reference.is_prefix);
    // A made-up prefix gives way to whole names in the archive, which is what the engine's own does.
    let base = prefix.map(|prefix| prefix.name.as_str()).filter(|name| !name.starts_with(MADE_UP));
    Ok(ImportRequest {
        base_name: base.unwrap_or_default().to_owned(),
        index_name: store.name.clone(),
        digests: prefix.is_some_and(|prefix| prefix.add_digest),
        skip_digest_for_named: prefix.is_some_and(|prefix| prefix.skip_named_digest),
        platforms: platforms_in(&store.platforms),
        no_unpack: store.unpacks.is_empty(),
        snapshotter: snapshotter(store)?,
        labels: checked_labels(store.labels.clone())?,
        compress_blobs: archive.force_compress,
        replace: true,
        ..Default::default()
    })
}

pub(super) fn export(store: &wire::ImageStore, archive: &wire::ImageExportStream) -> ExportRequest {
    let further = store.extra_references.iter().map(|reference| reference.name.clone());
    let images = Some(store.name.clone()).filter(|name| !name.is_empty()).into_iter().chain(further);
    ExportRequest {
        images: images.collect(),
        platforms: platforms_in(&archive.platforms),
        all_platforms: archive.all_platforms,
        skip_manifest_json: archive.skip_compatibility_manifest,
        skip_non_distributable: archive.skip_non_distributable,
    }
}

/// Gives the image `source` the names of `target`, exactly as they are written; names of other images move over.
///
/// # Errors
/// `NotFound` if there is no such image.
pub(super) fn tag(space: &Space, source: &str, target: &wire::ImageStore) -> Result<(), CallError> {
    let source = space.image(source)?;
    let labels = checked_labels(target.labels.clone())?;
    let labels = if labels.is_empty() { source.labels.clone() } else { labels };
    let further = target.extra_references.iter().filter(|reference| !reference.is_prefix);
    for name in std::iter::once(&target.name).chain(further.map(|reference| &reference.name)) {
        let record = ImageRecord::new(name.clone(), source.target.clone(), labels.clone());
        match space.create_image(record) {
            Err(error) if error.kind() == storage_content::ErrorKind::AlreadyExists => {
                space.update_image(name, |image| {
                    image.target = source.target.clone();
                    Ok(())
                })?;
            }
            made => drop(made?),
        }
    }
    Ok(())
}
