//! `images rm`: names go, and with the last of them what only they kept.

use runtime_api::containerd::services::images::v1::DeleteImageRequest;
use tonic::Code;

use crate::args::RemoveImagesArgs;
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::image;
use crate::output;
use crate::verbs::for_each;

/// `images rm`.
///
/// # Errors
/// [`CliError`]; every image that can be removed is.
pub(super) async fn run(client: &Client, args: &RemoveImagesArgs) -> Result<(), CliError> {
    let last = args.names.last().filter(|_| !args.r#async);
    for_each(&args.names, |typed| {
        // The last one waits until what only these images kept is gone, so that the space is free when we are done.
        let sync = last.is_some_and(|last| last == typed);
        async move {
            let found = match args.force {
                true => image::find(client, typed).await?,
                false => Some(image::get(client, typed).await?),
            };
            match found {
                Some(image) => remove(client, &image.name, args.force, sync).await,
                None => Ok(()),
            }
        }
    })
    .await
}

/// Removes one image by its whole name and prints that.
///
/// # Errors
/// The engine's; none when it is not here and that is no failure.
pub(super) async fn remove(client: &Client, name: &str, force: bool, sync: bool) -> Result<(), CliError> {
    let request = DeleteImageRequest { name: name.to_owned(), sync, target: None };
    match client.images().delete(request).await {
        Ok(_) => output::print(&format!("{}\n", output::printable(name))),
        Err(status) if force && status.code() == Code::NotFound => Ok(()),
        Err(status) => Err(failed(format!("remove image {name}"))(status)),
    }
}
