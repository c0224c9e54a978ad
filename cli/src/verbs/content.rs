//! `content ls|get` and `snapshots ls`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use runtime_api::containerd::services::content::v1::{Info, ListContentRequest};
use runtime_api::containerd::services::snapshots::v1::{self as snapshots, Kind, ListSnapshotsRequest};
use serde::Serialize;
use storage_model::Digest;

use super::{Row, as_rfc3339, labels, show, time};
use crate::args::{ContentVerb, Global, SnapshotListArgs, SnapshotsVerb};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::output::{self, amount};

/// Content in a list.
#[derive(Debug, Clone, Serialize)]
struct ContentRow {
    digest: String,
    size_bytes: u64,
    #[serde(serialize_with = "as_rfc3339")]
    created: SystemTime,
    labels: BTreeMap<String, String>,
}

impl From<Info> for ContentRow {
    fn from(info: Info) -> Self {
        Self {
            digest: info.digest,
            size_bytes: u64::try_from(info.size).unwrap_or(0),
            created: time(info.created_at),
            labels: info.labels.into_iter().collect(),
        }
    }
}

impl Row for ContentRow {
    const HEADINGS: &'static [&'static str] = &["DIGEST", "SIZE", "AGE", "LABELS"];

    fn name(&self) -> &str {
        &self.digest
    }

    fn cells(&self, now: SystemTime) -> Vec<String> {
        vec![
            self.digest.clone(),
            amount::size(self.size_bytes),
            amount::age(now, self.created),
            labels(&self.labels),
        ]
    }
}

/// A snapshot in a list.
#[derive(Debug, Clone, Serialize)]
struct SnapshotRow {
    key: String,
    parent: String,
    kind: &'static str,
    #[serde(serialize_with = "as_rfc3339")]
    created: SystemTime,
    labels: BTreeMap<String, String>,
}

impl From<snapshots::Info> for SnapshotRow {
    fn from(info: snapshots::Info) -> Self {
        let kind = match info.kind() {
            Kind::Unknown => "unknown",
            Kind::View => "view",
            Kind::Active => "active",
            Kind::Committed => "committed",
        };
        Self {
            kind,
            created: time(info.created_at),
            key: info.name,
            parent: info.parent,
            labels: info.labels.into_iter().collect(),
        }
    }
}

impl Row for SnapshotRow {
    const HEADINGS: &'static [&'static str] = &["KEY", "PARENT", "KIND", "AGE"];

    fn name(&self) -> &str {
        &self.key
    }

    fn cells(&self, now: SystemTime) -> Vec<String> {
        vec![self.key.clone(), self.parent.clone(), self.kind.to_owned(), amount::age(now, self.created)]
    }
}

/// `content ...`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn run(global: &Global, verb: &ContentVerb) -> Result<(), CliError> {
    let client = Client::connect(global).await?;
    match verb {
        ContentVerb::Ls(args) => show(&all(&client).await?, args, global.format),
        ContentVerb::Get { digest } => get(&client, digest).await,
    }
}

async fn all(client: &Client) -> Result<Vec<ContentRow>, CliError> {
    let what = "list content";
    let request = ListContentRequest { filters: Vec::new() };
    let mut stream = client.content().list(request).await.map_err(failed(what))?.into_inner();
    let mut rows = Vec::new();
    while let Some(part) = stream.message().await.map_err(failed(what))? {
        rows.extend(part.info.into_iter().map(ContentRow::from));
    }
    Ok(rows)
}

async fn get(client: &Client, digest: &Digest) -> Result<(), CliError> {
    let what = format!("get {digest}");
    let mut stream = client.read(&digest.to_string()).await.map_err(failed(what.clone()))?;
    while let Some(part) = stream.message().await.map_err(failed(what.clone()))? {
        output::print_bytes(&part.data)?;
    }
    Ok(())
}

/// `snapshots ...`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn snapshots(global: &Global, verb: &SnapshotsVerb) -> Result<(), CliError> {
    let SnapshotsVerb::Ls(args) = verb;
    let client = Client::connect(global).await?;
    show(&all_snapshots(&client, args).await?, &args.list, global.format)
}

async fn all_snapshots(client: &Client, args: &SnapshotListArgs) -> Result<Vec<SnapshotRow>, CliError> {
    let what = format!("list snapshots of {}", args.snapshotter);
    let request = ListSnapshotsRequest { snapshotter: args.snapshotter.clone(), filters: Vec::new() };
    let mut stream = client.snapshots().list(request).await.map_err(failed(what.clone()))?.into_inner();
    let mut rows = Vec::new();
    while let Some(part) = stream.message().await.map_err(failed(what.clone()))? {
        rows.extend(part.info.into_iter().map(SnapshotRow::from));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Format, ListArgs};
    use crate::verbs::list;

    #[test]
    fn snapshots_say_what_kind_they_are() {
        let info = |name: &str, kind: Kind| snapshots::Info {
            name: name.to_owned(),
            kind: kind.into(),
            ..snapshots::Info::default()
        };
        let rows: Vec<SnapshotRow> = [info("a", Kind::Active), info("b", Kind::Committed)]
            .into_iter()
            .map(SnapshotRow::from)
            .collect();
        let text = list(&rows, &ListArgs { quiet: false }, Format::Table, SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(
            text,
            "KEY  PARENT  KIND       AGE\na    -       active     now\nb    -       committed  now\n"
        );
    }

    #[test]
    fn a_negative_size_is_no_panic() {
        assert_eq!(ContentRow::from(Info { size: -1, ..Info::default() }).size_bytes, 0);
    }
}
