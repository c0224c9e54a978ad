//! `images ...`: which verb is where, and those that change one record.

mod check;
mod inspect;
mod list;
mod mount;
mod prune;
mod remove;
mod usage;

use std::collections::BTreeMap;

use prost_types::FieldMask;
use runtime_api::containerd::services::images::v1::{Image as WireImage, UpdateImageRequest};
use runtime_api::windlass::v1::TagRequest;

use super::{all_labels, label_change, label_map};
use crate::args::{Format, Global, ImagesVerb, LabelImageArgs, TagArgs};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::image;
use crate::output::{self, printable};
use crate::{pull, transfer};

/// `images ...`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn run(global: &Global, verb: &ImagesVerb) -> Result<(), CliError> {
    let format = &global.format;
    let connect = || Client::connect(global);
    match verb {
        ImagesVerb::Pull(args) => pull::run(global, args).await,
        ImagesVerb::Push(args) => transfer::push(global, args).await,
        ImagesVerb::Import(args) => transfer::import(global, args).await,
        ImagesVerb::Export(args) => transfer::export(global, args).await,
        ImagesVerb::Convert(args) => transfer::convert(global, args).await,
        ImagesVerb::Ls(args) => list::run(&connect().await?, args, format).await,
        ImagesVerb::Check(args) => check::run(&connect().await?, args, format).await,
        ImagesVerb::Usage(args) => usage::run(&connect().await?, args, format).await,
        ImagesVerb::Inspect(args) => inspect::run(&connect().await?, args, format).await,
        ImagesVerb::Tag(args) => tag(&connect().await?, args, format).await,
        ImagesVerb::Label(args) => label(&connect().await?, args, format).await,
        ImagesVerb::Rm(args) => remove::run(&connect().await?, args).await,
        ImagesVerb::Prune(args) => prune::run(&connect().await?, args, format).await,
        ImagesVerb::Mount(args) => mount::mount(&connect().await?, args, format).await,
        ImagesVerb::Unmount(args) => mount::unmount(&connect().await?, args).await,
    }
}

async fn tag(client: &Client, args: &TagArgs, format: &Format) -> Result<(), CliError> {
    let image = image::get(client, &args.image).await?;
    let mut names = Vec::new();
    for name in &args.names {
        names.push(if args.skip_reference_check {
            name.clone()
        } else {
            image::reference(name)?.to_string()
        });
    }
    let what = format!("tag {} as {}", image.name, names.join(", "));
    let request = TagRequest { image: image.name, names, force: args.force };
    let made = client.engine().tag(request).await.map_err(failed(what))?.into_inner().names;
    output::document(format, &made, || made.iter().map(|name| format!("{}\n", printable(name))).collect())
}

async fn label(client: &Client, args: &LabelImageArgs, format: &Format) -> Result<(), CliError> {
    let image = image::get(client, &args.image).await?;
    let (labels, mask) = match args.replace_all {
        true => (label_map(&args.labels), FieldMask { paths: vec!["labels".to_owned()] }),
        false => label_change(&args.labels),
    };
    // Nothing to change is a question: which labels are there?
    let labels: BTreeMap<String, String> = if mask.paths.is_empty() {
        image.labels
    } else {
        let what = format!("label {}", image.name);
        let request = UpdateImageRequest {
            image: Some(WireImage { name: image.name, labels, ..WireImage::default() }),
            update_mask: Some(mask),
            source_date_epoch: None,
        };
        let updated = client.images().update(request).await.map_err(failed(what))?.into_inner();
        updated.image.unwrap_or_default().labels.into_iter().collect()
    };
    output::document(format, &labels, || format!("{}\n", printable(&all_labels(&labels))))
}
