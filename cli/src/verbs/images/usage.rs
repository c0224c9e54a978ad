//! `images usage`: what each snapshot of an unpacked image takes on the disk.

use runtime_api::containerd::services::snapshots::v1::UsageRequest;
use tonic::Code;

use super::check::{SNAPSHOTTER_DEFAULT, of_interest};
use crate::args::{Format, ListArgs, UsageImageArgs};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::image::{self, Contents, Stored};
use crate::verbs::snapshots::UsageRow;
use crate::verbs::{check_format, show};

/// `images usage`.
///
/// # Errors
/// [`CliError`]; [`CliError::NotUnpacked`] for an image that has no snapshots.
pub(super) async fn run(client: &Client, args: &UsageImageArgs, format: &Format) -> Result<(), CliError> {
    check_format::<UsageRow>(format)?;
    let snapshotter = args.snapshotter.snapshotter.as_deref().unwrap_or(SNAPSHOTTER_DEFAULT);
    let image = image::get(client, &args.image).await?;
    let contents = Contents::read(&mut Stored::ask(client).await?, &image).await?;
    let chains = of_interest(&contents).map(|variant| variant.chains()).unwrap_or_default();
    let mut rows = Vec::new();
    for chain in chains.iter().rev() {
        let key = chain.to_string();
        let request = UsageRequest { snapshotter: snapshotter.to_owned(), key: key.clone() };
        match client.snapshots().usage(request).await {
            Ok(usage) => rows.push(UsageRow::new(key, &usage.into_inner())),
            Err(status) if status.code() == Code::NotFound => {
                let (name, snapshotter) = (image.name, snapshotter.to_owned());
                return Err(CliError::NotUnpacked { name, snapshotter });
            }
            Err(status) => return Err(failed(format!("measure {key}"))(status)),
        }
    }
    if rows.is_empty() {
        return Err(CliError::NotUnpacked { name: image.name, snapshotter: snapshotter.to_owned() });
    }
    show(&rows, &ListArgs::default(), format)
}
