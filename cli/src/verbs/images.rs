//! `images ls|rm|mount|unmount`.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use runtime_api::containerd::services::images::v1::DeleteImageRequest;
use runtime_api::windlass::v1::{MountImageRequest, UnmountImageRequest};
use serde::Serialize;
use tonic::Code;

use super::{Row, as_rfc3339, for_each, show};
use crate::args::{Format, Global, ImagesVerb, ListArgs, MountArgs, RemoveImagesArgs, UnmountArgs};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::image::{self, Details, Image};
use crate::output::{self, amount};
use crate::pull;

/// An image in a list.
#[derive(Debug, Clone, Serialize)]
struct ImageRow {
    name: String,
    digest: String,
    media_type: String,
    /// Absent when its documents cannot be read.
    platform: Option<String>,
    size_bytes: Option<u64>,
    #[serde(serialize_with = "as_rfc3339")]
    created: SystemTime,
    #[serde(serialize_with = "as_rfc3339")]
    updated: SystemTime,
    labels: std::collections::BTreeMap<String, String>,
}

impl Row for ImageRow {
    const HEADINGS: &'static [&'static str] = &["REF", "DIGEST", "PLATFORM", "SIZE", "AGE"];

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self, now: SystemTime) -> Vec<String> {
        vec![
            self.name.clone(),
            crate::progress::short(&self.digest),
            self.platform.clone().unwrap_or_default(),
            self.size_bytes.map(amount::size).unwrap_or_default(),
            amount::age(now, self.updated),
        ]
    }
}

impl ImageRow {
    fn new(image: Image, details: Option<&Details>) -> Self {
        Self {
            digest: image.target.digest.to_string(),
            media_type: image.target.media_type,
            platform: details.map(|details| details.platform().to_string()),
            size_bytes: details.map(Details::size),
            created: image.created,
            updated: image.updated,
            labels: image.labels,
            name: image.name,
        }
    }
}

/// `images ...`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn run(global: &Global, verb: &ImagesVerb) -> Result<(), CliError> {
    match verb {
        ImagesVerb::Ls(args) => ls(&Client::connect(global).await?, args, global.format).await,
        ImagesVerb::Pull(args) => pull::run(global, args).await,
        ImagesVerb::Rm(args) => remove(&Client::connect(global).await?, args).await,
        ImagesVerb::Inspect(args) => {
            super::inspect::run(&Client::connect(global).await?, args, global.format).await
        }
        ImagesVerb::Mount(args) => mount(&Client::connect(global).await?, args).await,
        ImagesVerb::Unmount(args) => unmount(&Client::connect(global).await?, args).await,
    }
}

async fn ls(client: &Client, args: &ListArgs, format: Format) -> Result<(), CliError> {
    let mut rows = Vec::new();
    for image in image::all(client).await? {
        // Names only: nothing of the content is needed. One image that cannot be read does not hide the others.
        let details = if args.quiet { None } else { Details::read(client, &image).await.ok() };
        rows.push(ImageRow::new(image, details.as_ref()));
    }
    show(&rows, args, format)
}

async fn remove(client: &Client, args: &RemoveImagesArgs) -> Result<(), CliError> {
    let last = args.names.last();
    for_each(&args.names, |typed| {
        remove_one(client, typed, args.force, last.is_some_and(|last| last == typed))
    })
    .await
}

async fn remove_one(client: &Client, typed: &str, force: bool, collect: bool) -> Result<(), CliError> {
    let image = match image::find(client, typed).await? {
        Some(image) => image,
        None if force => return Ok(()),
        None => return Err(image::not_found(client, typed)),
    };
    // The last one waits until what only these images kept is gone, so that the space is free when we are done.
    let request = DeleteImageRequest { name: image.name.clone(), sync: collect, target: None };
    match client.images().delete(request).await {
        Ok(_) => output::print(&format!("{}\n", output::printable(&image.name))),
        Err(status) if force && status.code() == Code::NotFound => Ok(()),
        Err(status) => Err(failed(format!("remove image {}", image.name))(status)),
    }
}

async fn mount(client: &Client, args: &MountArgs) -> Result<(), CliError> {
    let image = image::get(client, &args.name).await?;
    let target = existing(&args.target)?;
    let what = format!("mount {} at {}", image.name, target.display());
    let request = MountImageRequest {
        image: image.name,
        target: target.to_string_lossy().into_owned(),
        snapshotter: String::new(),
        ..MountImageRequest::default()
    };
    let mounted = client.engine().mount_image(request).await.map_err(failed(what))?.into_inner();
    output::print(&format!("{}\n", mounted.target))
}

async fn unmount(client: &Client, args: &UnmountArgs) -> Result<(), CliError> {
    let target = existing(&args.target)?;
    let what = format!("unmount {}", target.display());
    let request = UnmountImageRequest { target: target.to_string_lossy().into_owned() };
    client.engine().unmount_image(request).await.map_err(failed(what))?;
    Ok(())
}

/// The directory's one name: without links, from the root.
fn existing(path: &Path) -> Result<PathBuf, CliError> {
    path.canonicalize().map_err(|source| CliError::File {
        what: "find the directory",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::list;
    use std::time::Duration;

    fn rows() -> Vec<ImageRow> {
        let then = SystemTime::UNIX_EPOCH;
        let row = |name: &str, size_bytes: Option<u64>| ImageRow {
            name: name.to_owned(),
            digest: format!("sha256:{}", "ab".repeat(32)),
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            platform: size_bytes.map(|_| "linux/amd64".to_owned()),
            size_bytes,
            created: then,
            updated: then,
            labels: std::collections::BTreeMap::new(),
        };
        vec![row("docker.io/library/a:1", Some(1_572_864)), row("r.example/b:2", None)]
    }

    fn text(quiet: bool, format: Format) -> String {
        list(&rows(), &ListArgs { quiet }, format, SystemTime::UNIX_EPOCH + Duration::from_secs(180)).unwrap()
    }

    #[test]
    fn the_table_has_short_digests_sizes_and_ages() {
        assert_eq!(
            text(false, Format::Table),
            "\
REF                    DIGEST        PLATFORM     SIZE     AGE
docker.io/library/a:1  abababababab  linux/amd64  1.5 MiB  3m
r.example/b:2          abababababab  -            -        3m
"
        );
    }

    #[test]
    fn quiet_prints_names_one_a_line() {
        assert_eq!(text(true, Format::Table), "docker.io/library/a:1\nr.example/b:2\n");
    }

    #[test]
    fn json_is_one_document_with_whole_digests_and_bytes() {
        let value: serde_json::Value = serde_json::from_str(&text(false, Format::Json)).unwrap();
        assert_eq!(value[0]["size_bytes"], 1_572_864);
        assert_eq!(value[0]["digest"], format!("sha256:{}", "ab".repeat(32)));
        assert_eq!(value[0]["created"], "1970-01-01T00:00:00Z");
        assert!(value[1]["size_bytes"].is_null());
        assert_eq!(serde_json::from_str::<Vec<String>>(&text(true, Format::Json)).unwrap().len(), 2);
    }
}
