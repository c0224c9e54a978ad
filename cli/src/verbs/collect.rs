//! `gc`: removes what nothing keeps, and images beyond a budget; or only tells.

use std::time::SystemTime;

use runtime_api::windlass::v1::{CollectRequest, CollectResponse, Doomed};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Row, check_format, list};
use crate::args::{Format, GcArgs, Global, ListArgs, fields};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::output::{self, amount};

/// Something that goes.
#[derive(Debug, Clone, Serialize)]
struct DoomedRow {
    namespace: String,
    kind: String,
    name: String,
    snapshotter: String,
    bytes: u64,
    reason: String,
}

impl From<Doomed> for DoomedRow {
    fn from(doomed: Doomed) -> Self {
        let Doomed { namespace, kind, name, snapshotter, bytes, reason } = doomed;
        Self { namespace, kind, name, snapshotter, bytes, reason }
    }
}

impl Row for DoomedRow {
    const HEADINGS: &'static [&'static str] = &["NAMESPACE", "KIND", "NAME", "SIZE", "REASON"];
    const FIELDS: &'static [&'static str] = fields::DOOMED;

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self, _now: SystemTime) -> Vec<String> {
        let kind = match self.snapshotter.as_str() {
            "" => self.kind.clone(),
            snapshotter => format!("{} ({snapshotter})", self.kind),
        };
        vec![self.namespace.clone(), kind, self.name.clone(), amount::size(self.bytes), self.reason.clone()]
    }
}

/// `gc`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn run(global: &Global, args: &GcArgs) -> Result<(), CliError> {
    check_format::<DoomedRow>(&global.format)?;
    let client = Client::connect(global).await?;
    let request = CollectRequest {
        dry_run: args.dry_run,
        with_budget: args.keep_storage.is_some(),
        keep_bytes: args.keep_storage.unwrap_or(0),
        above_bytes: args.high_water.unwrap_or(0),
    };
    let what = if args.dry_run { "tell what a collection would remove" } else { "collect" };
    let removed = client.engine().collect(request).await.map_err(failed(what))?.into_inner();
    output::print(&text(removed, args, &global.format)?)
}

fn text(removed: CollectResponse, args: &GcArgs, format: &Format) -> Result<String, CliError> {
    let summary = collected(&removed, args.dry_run);
    let mut totals = totals(&removed);
    let rows: Vec<DoomedRow> = removed.doomed.into_iter().map(DoomedRow::from).collect();
    let quiet = ListArgs { quiet: args.quiet };
    let names = || list(&rows, &quiet, format, SystemTime::now());
    match format {
        Format::Json if !args.quiet => {
            totals["doomed"] = json!(rows);
            output::json(&totals)
        }
        Format::Table if !args.quiet => {
            // A collection that was asked for is told in a line, one that is only considered as a list.
            let rows = if args.dry_run && !rows.is_empty() { names()? } else { String::new() };
            Ok(format!("{rows}{summary}\n"))
        }
        _ => names(),
    }
}

fn totals(removed: &CollectResponse) -> Value {
    json!({
        "blobs": removed.blobs,
        "snapshots": removed.snapshots,
        "ingests": removed.ingests,
        "images": removed.images,
        "leases": removed.leases,
        "freed_bytes": removed.freed_bytes,
    })
}

/// One line on what went or would go.
pub(crate) fn collected(removed: &CollectResponse, is_dry: bool) -> String {
    let count = |number: u64, one: &str| match number {
        0 => None,
        1 => Some(format!("1 {one}")),
        more => Some(format!("{more} {one}s")),
    };
    let parts: Vec<String> = [
        count(removed.images, "image"),
        count(removed.blobs, "blob"),
        count(removed.snapshots, "snapshot"),
        count(removed.ingests, "unfinished download"),
        count(removed.leases, "lease"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() {
        return "Nothing to remove".to_owned();
    }
    let (verb, freed) = if is_dry { ("Would remove", "to be freed") } else { ("Removed", "freed") };
    format!("{verb} {}: {} {freed}", parts.join(", "), amount::size(removed.freed_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed() -> CollectResponse {
        let doomed = Doomed {
            namespace: "default".to_owned(),
            kind: "blob".to_owned(),
            name: "sha256:ab".to_owned(),
            bytes: 2048,
            reason: "nothing keeps it".to_owned(),
            ..Doomed::default()
        };
        CollectResponse {
            blobs: 1,
            snapshots: 3,
            freed_bytes: 2048,
            doomed: vec![doomed],
            ..CollectResponse::default()
        }
    }

    #[test]
    fn a_collection_says_what_went() {
        assert_eq!(collected(&removed(), false), "Removed 1 blob, 3 snapshots: 2.0 KiB freed");
        assert_eq!(collected(&removed(), true), "Would remove 1 blob, 3 snapshots: 2.0 KiB to be freed");
        assert_eq!(collected(&CollectResponse::default(), false), "Nothing to remove");
    }

    #[test]
    fn a_dry_run_lists_each_thing_with_its_reason() {
        let dry = GcArgs { dry_run: true, ..GcArgs::default() };
        let shown = text(removed(), &dry, &Format::Table).unwrap();
        assert!(shown.contains("default    blob  sha256:ab  2.0 KiB  nothing keeps it\n"), "{shown}");
        let json: Value = serde_json::from_str(&text(removed(), &dry, &Format::Json).unwrap()).unwrap();
        assert_eq!((&json["blobs"], &json["doomed"][0]["name"]), (&json!(1), &json!("sha256:ab")));
        let quiet = GcArgs { quiet: true, ..GcArgs::default() };
        assert_eq!(text(removed(), &quiet, &Format::Table).unwrap(), "sha256:ab\n");
        crate::verbs::tests::fields_are_as_documented(&DoomedRow::from(removed().doomed.remove(0)));
    }
}
