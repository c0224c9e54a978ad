//! `images prune`: images that no container uses.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use runtime_api::windlass::v1::ListContainersRequest;

use super::remove::remove;
use crate::args::{Format, PruneImagesArgs};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::image::{self, Image};
use crate::output::{self, printable};
use crate::verbs::for_each;

/// Labels that keep an image from being pruned or let go: ours, and Kubernetes'.
const PINNED: [(&str, Option<&str>); 2] =
    [("windlass.io/pinned", None), ("io.cri-containerd.pinned", Some("pinned"))];

/// `images prune`.
///
/// # Errors
/// [`CliError`]; every image that can be removed is.
pub(super) async fn run(client: &Client, args: &PruneImagesArgs, format: &Format) -> Result<(), CliError> {
    let images = image::matching(client, &args.filters).await?;
    let listed = client.engine().list_containers(ListContainersRequest {}).await;
    let containers = listed.map_err(failed("list containers"))?.into_inner().containers;
    let used: HashSet<String> = containers.into_iter().map(|container| container.image).collect();
    let names = unused(&images, &used, args.older_than, SystemTime::now());
    if args.dry_run {
        return output::document(format, &names, || {
            names.iter().map(|name| format!("would remove {}\n", printable(name))).collect()
        });
    }
    let last = names.last().cloned();
    for_each(&names, |name| {
        let sync = last.as_deref() == Some(name);
        // Somebody else may have removed it meanwhile.
        remove(client, name, true, sync)
    })
    .await
}

/// Names of images that nobody uses, nobody pinned, and that are old enough.
fn unused(images: &[Image], used: &HashSet<String>, older: Option<Duration>, now: SystemTime) -> Vec<String> {
    let is_old = |image: &Image| {
        older.is_none_or(|older| now.duration_since(image.updated).is_ok_and(|age| age >= older))
    };
    let going =
        images.iter().filter(|image| !used.contains(&image.name) && !is_pinned(image) && is_old(image));
    going.map(|image| image.name.clone()).collect()
}

fn is_pinned(image: &Image) -> bool {
    PINNED.iter().any(|(name, wanted)| {
        image.labels.get(*name).is_some_and(|value| wanted.is_none_or(|wanted| value == wanted))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage_model::{Descriptor, media};

    #[test]
    fn used_pinned_and_young_images_stay() {
        let image = |name: &str, label: Option<(&str, &str)>, age: u64| Image {
            name: name.to_owned(),
            target: Descriptor::of(media::OCI_MANIFEST, b"m"),
            created: SystemTime::UNIX_EPOCH,
            updated: SystemTime::UNIX_EPOCH + Duration::from_secs(1000 - age),
            labels: label.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        };
        let images = [
            image("old", None, 900),
            image("young", None, 1),
            image("used", None, 900),
            image("pinned", Some(("windlass.io/pinned", "true")), 900),
            image("kube", Some(("io.cri-containerd.pinned", "pinned")), 900),
        ];
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let used = HashSet::from(["used".to_owned()]);
        assert_eq!(unused(&images, &used, None, now), ["old", "young"]);
        assert_eq!(unused(&images, &used, Some(Duration::from_secs(60)), now), ["old"]);
    }
}
