//! `images mount` and `images unmount`.

use std::path::{Path, PathBuf};

use runtime_api::windlass::v1::{MountImageRequest, UnmountImageRequest};
use serde_json::json;

use crate::args::{Format, MountArgs, UnmountArgs};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::image;
use crate::interrupt;
use crate::output::{self, printable};

/// `images mount`: prints where.
///
/// # Errors
/// [`CliError`]; nothing is mounted then.
pub(super) async fn mount(client: &Client, args: &MountArgs, format: &Format) -> Result<(), CliError> {
    let image = image::get(client, &args.name).await?;
    let target = existing(&args.target)?;
    let what = format!("mount {} at {}", image.name, target.display());
    let request = MountImageRequest {
        image: image.name,
        target: target.to_string_lossy().into_owned(),
        snapshotter: args.snapshotter.name(),
        writable: args.rw,
        platform: args.platform.as_ref().map(ToString::to_string).unwrap_or_default(),
    };
    let call = async { client.engine().mount_image(request).await.map_err(failed(what)) };
    let mounted = interrupt::or_interrupted(call).await?.into_inner();
    let document = json!({ "target": mounted.target, "key": mounted.key, "chain_id": mounted.chain_id });
    output::document(format, &document, || format!("{}\n", printable(&mounted.target)))
}

/// `images unmount`.
///
/// # Errors
/// [`CliError`]; the mount is as before then.
pub(super) async fn unmount(client: &Client, args: &UnmountArgs) -> Result<(), CliError> {
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
