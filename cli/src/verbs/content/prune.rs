//! `content prune`: content that nothing keeps goes; with `references`, layers that only their manifests keep go too.
//!
//! Trees that are unpacked do not need their layers to run. What a manifest keeps is in its labels `containerd.io/gc.ref.content.*`:
//! without those of layers, layers go, and config and manifest stay, so that the image can still be run but no more be pushed.

use prost_types::FieldMask;
use runtime_api::containerd::services::content::v1::{Info, UpdateRequest};
use runtime_api::windlass::v1::{CollectRequest, CollectResponse, Doomed};
use serde_json::json;

use super::list;
use crate::args::{Format, PruneContentArgs, PruneVerb};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::output::{self, amount, printable};

/// Labels by which a manifest keeps its layers, as containerd writes them today (`.l.0`) and wrote them once (`.0`).
const LAYER_LABELS: &str = "containerd.io/gc.ref.content.";

/// `content prune [references]`.
///
/// # Errors
/// [`CliError`].
pub(super) async fn run(client: &Client, args: &PruneContentArgs, format: &Format) -> Result<(), CliError> {
    let mut labels = Vec::new();
    if let Some(PruneVerb::References) = args.verb {
        labels = drop_references(client, args.dry_run).await?;
    }
    let mut answer = CollectResponse::default();
    if !args.r#async {
        let request = CollectRequest { dry_run: args.dry_run, ..CollectRequest::default() };
        answer = client.engine().collect(request).await.map_err(failed("collect"))?.into_inner();
    }
    let blobs: Vec<&Doomed> = answer.doomed.iter().filter(|doomed| doomed.kind == "blob").collect();
    let digests: Vec<&str> = blobs.iter().map(|doomed| doomed.name.as_str()).collect();
    let document = json!({ "labels": labels, "content": digests, "freed_bytes": answer.freed_bytes });
    output::document(format, &document, || {
        let would = if args.dry_run { "would remove " } else { "" };
        let line = |doomed: &&Doomed| {
            format!("{would}{} ({})\n", printable(&doomed.name), amount::size(doomed.bytes))
        };
        let mut text: String = labels.iter().map(|label| format!("{would}{}\n", printable(label))).collect();
        text.extend(blobs.iter().map(line));
        text + &crate::verbs::collect::collected(&answer, args.dry_run) + "\n"
    })
}

/// Takes such labels away and returns what went: `DIGEST LABEL`.
async fn drop_references(client: &Client, is_dry: bool) -> Result<Vec<String>, CliError> {
    let mut gone = Vec::new();
    for info in list::all(client, &[]).await? {
        let names: Vec<String> = info.labels.keys().filter(|name| keeps_a_layer(name)).cloned().collect();
        if names.is_empty() {
            continue;
        }
        gone.extend(names.iter().map(|name| format!("{} {name}", info.digest)));
        if is_dry {
            continue;
        }
        let what = format!("label {}", info.digest);
        let paths = names.iter().map(|name| format!("labels.{name}")).collect();
        let info = Some(Info { digest: info.digest, ..Info::default() });
        let request = UpdateRequest { info, update_mask: Some(FieldMask { paths }) };
        client.content().update(request).await.map_err(failed(what))?;
    }
    Ok(gone)
}

fn keeps_a_layer(label: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    label.strip_prefix(LAYER_LABELS).is_some_and(|rest| number(rest.strip_prefix("l.").unwrap_or(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_layers_are_told_from_those_of_configs_and_manifests() {
        for (label, expected) in [
            ("containerd.io/gc.ref.content.l.0", true),
            ("containerd.io/gc.ref.content.12", true),
            ("containerd.io/gc.ref.content.config", false),
            ("containerd.io/gc.ref.content.m.0", false),
            ("containerd.io/gc.ref.content.l.", false),
            ("containerd.io/gc.ref.snapshot.overlayfs", false),
        ] {
            assert_eq!(keeps_a_layer(label), expected, "{label}");
        }
    }
}
