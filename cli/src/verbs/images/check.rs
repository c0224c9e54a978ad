//! `images check`: which images are complete, and which are unpacked.
//!
//! It looks at what is recorded, for this machine's platform or the only one there is; `windlass check` looks at the bytes.

use std::collections::HashSet;
use std::time::SystemTime;

use runtime_api::containerd::services::snapshots::v1::ListSnapshotsRequest;
use serde::Serialize;
use storage_model::Platform;

use crate::args::{CheckImagesArgs, Format, fields};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::image::{self, Contents, Image, Stored};
use crate::output::amount;
use crate::verbs::{Row, check_format, show};

/// Snapshotter of images when none is named.
pub(super) const SNAPSHOTTER_DEFAULT: &str = "overlayfs";

/// An image with its state.
#[derive(Debug, Clone, Serialize)]
struct CheckRow {
    name: String,
    media_type: String,
    digest: String,
    /// `complete`, `incomplete`, `unavailable`, `error`.
    status: &'static str,
    present: usize,
    /// 0 when nobody knows, because the manifest is absent.
    required: usize,
    present_bytes: u64,
    required_bytes: u64,
    unpacked: bool,
    /// Digests of what is not here.
    missing: Vec<String>,
}

impl Row for CheckRow {
    const HEADINGS: &'static [&'static str] = &["REF", "TYPE", "DIGEST", "STATUS", "SIZE", "UNPACKED"];
    const FIELDS: &'static [&'static str] = fields::IMAGE_CHECKS;

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self, _now: SystemTime) -> Vec<String> {
        let required = if self.required == 0 { "?".to_owned() } else { self.required.to_string() };
        let sizes = (amount::size(self.present_bytes), amount::size(self.required_bytes));
        vec![
            self.name.clone(),
            self.media_type.clone(),
            crate::progress::short(&self.digest),
            match self.status {
                "error" => "error".to_owned(),
                status => format!("{status} ({}/{required})", self.present),
            },
            if self.required == 0 { format!("{}/?", sizes.0) } else { format!("{}/{}", sizes.0, sizes.1) },
            self.unpacked.to_string(),
        ]
    }
}

impl CheckRow {
    fn new(image: Image, contents: Option<&Contents>, snapshots: &HashSet<String>) -> Self {
        let mut row = Self {
            name: image.name,
            media_type: image.target.media_type,
            digest: image.target.digest.to_string(),
            status: "error",
            present: 0,
            required: 0,
            present_bytes: 0,
            required_bytes: 0,
            unpacked: false,
            missing: Vec::new(),
        };
        let Some(contents) = contents else { return row };
        row.status = "unavailable";
        let Some(variant) = of_interest(contents) else { return row };
        (row.present, row.required) = variant.counts();
        (row.present_bytes, row.required_bytes) = variant.bytes();
        row.missing = variant.missing().iter().map(ToString::to_string).collect();
        row.status = match (variant.manifest.is_here, variant.is_complete()) {
            (false, _) => "unavailable",
            (true, false) => "incomplete",
            (true, true) => "complete",
        };
        let top = variant.chains().last().map(ToString::to_string);
        row.unpacked = top.is_some_and(|chain| snapshots.contains(&chain));
        row
    }
}

/// The variant for this machine; of an image for others only, the first that is here.
pub(super) fn of_interest(contents: &Contents) -> Option<image::Variant<'_>> {
    let host = contents.best(&Platform::host());
    let any = || contents.variants().into_iter().min_by_key(|variant| !variant.manifest.is_here);
    host.filter(|variant| variant.manifest.is_here).or_else(any)
}

/// `images check`.
///
/// # Errors
/// [`CliError::Some`] when images could not be looked at: they are in the list as `error`.
pub(super) async fn run(client: &Client, args: &CheckImagesArgs, format: &Format) -> Result<(), CliError> {
    check_format::<CheckRow>(format)?;
    let snapshotter = args.snapshotter.snapshotter.as_deref().unwrap_or(SNAPSHOTTER_DEFAULT);
    let images = image::matching(client, &args.list.filters).await?;
    let snapshots = committed(client, snapshotter).await?;
    let mut stored = Stored::ask(client).await?;
    let (mut rows, mut failures) = (Vec::new(), 0);
    let all = images.len();
    for image in images {
        let contents = Contents::read(&mut stored, &image).await;
        if let Err(error) = &contents {
            crate::output::note(crate::words::report(error).trim_end());
            failures += 1;
        }
        rows.push(CheckRow::new(image, contents.ok().as_ref(), &snapshots));
    }
    if args.list.list.quiet {
        rows.retain(|row| row.status == "complete" && row.unpacked);
    }
    show(&rows, &args.list.list, format)?;
    if failures == 0 { Ok(()) } else { Err(CliError::Some { failed: failures, all }) }
}

/// Names of the committed snapshots.
async fn committed(client: &Client, snapshotter: &str) -> Result<HashSet<String>, CliError> {
    let what = format!("list snapshots of {snapshotter}");
    let filters = vec!["kind==committed".to_owned()];
    let request = ListSnapshotsRequest { snapshotter: snapshotter.to_owned(), filters };
    let mut stream = client.snapshots().list(request).await.map_err(failed(&*what))?.into_inner();
    let mut names = HashSet::new();
    while let Some(part) = stream.message().await.map_err(failed(&*what))? {
        names.extend(part.info.into_iter().map(|info| info.name));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::contents::tests::{index, manifest};
    use crate::verbs::tests::fields_are_as_documented;
    use storage_model::{Descriptor, media};

    fn row(contents: Option<&Contents>) -> CheckRow {
        let image = Image {
            name: "a:1".to_owned(),
            target: Descriptor::of(media::OCI_INDEX, b"index"),
            created: SystemTime::UNIX_EPOCH,
            updated: SystemTime::UNIX_EPOCH,
            labels: std::collections::BTreeMap::new(),
        };
        CheckRow::new(image, contents, &HashSet::new())
    }

    #[test]
    fn what_is_absent_decides_the_status() {
        let host = Platform::host().to_string();
        let host = host.split('/').take(2).collect::<Vec<_>>().join("/");
        for (contents, status) in [
            (Some(index(vec![manifest(Some(&host), true)])), "incomplete (2/3)"),
            (Some(index(vec![manifest(Some(&host), false)])), "unavailable (0/?)"),
            (
                Some(index(vec![manifest(Some(&host), false), manifest(Some("linux/s390x"), true)])),
                "incomplete (2/3)",
            ),
            (None, "error"),
        ] {
            assert_eq!(row(contents.as_ref()).cells(SystemTime::UNIX_EPOCH)[3], status);
        }
        fields_are_as_documented(&row(None));
    }
}
