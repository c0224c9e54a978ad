//! `snapshots ls|info|usage`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use runtime_api::containerd::services::snapshots::v1::{
    Info, Kind, ListSnapshotsRequest, StatSnapshotRequest, UsageRequest, UsageResponse,
};
use serde::Serialize;
use serde_json::json;
use tonic::Code;

use super::Of;
use crate::args::{FilteredArgs, Format, ListArgs, UsageArgs, fields};
use crate::client::failed;
use crate::error::CliError;
use crate::output::{self, amount};
use crate::verbs::{Row, as_rfc3339, check_format, show, time};

/// A snapshot in a list.
#[derive(Debug, Clone, Serialize)]
pub(super) struct SnapshotRow {
    pub(super) key: String,
    pub(super) parent: String,
    pub(super) kind: &'static str,
    #[serde(serialize_with = "as_rfc3339")]
    created: SystemTime,
    #[serde(serialize_with = "as_rfc3339")]
    updated: SystemTime,
    labels: BTreeMap<String, String>,
}

impl From<Info> for SnapshotRow {
    fn from(info: Info) -> Self {
        let kind = match info.kind() {
            Kind::Unknown => "unknown",
            Kind::View => "view",
            Kind::Active => "active",
            Kind::Committed => "committed",
        };
        Self {
            kind,
            created: time(info.created_at),
            updated: time(info.updated_at),
            key: info.name,
            parent: info.parent,
            labels: info.labels.into_iter().collect(),
        }
    }
}

impl Row for SnapshotRow {
    const HEADINGS: &'static [&'static str] = &["KEY", "PARENT", "KIND", "AGE"];
    const FIELDS: &'static [&'static str] = fields::SNAPSHOTS;

    fn name(&self) -> &str {
        &self.key
    }

    fn cells(&self, now: SystemTime) -> Vec<String> {
        vec![self.key.clone(), self.parent.clone(), self.kind.to_owned(), amount::age(now, self.created)]
    }
}

/// `snapshots ls`.
///
/// # Errors
/// [`CliError`].
pub(super) async fn run(of: &Of<'_>, args: &FilteredArgs) -> Result<(), CliError> {
    check_format::<SnapshotRow>(of.format)?;
    show(&all(of, &args.filters).await?, &args.list, of.format)
}

/// Snapshots that match any of `filters`.
///
/// # Errors
/// The engine's.
pub(super) async fn all(of: &Of<'_>, filters: &[String]) -> Result<Vec<SnapshotRow>, CliError> {
    let what = format!("list snapshots of {}", of.snapshotter);
    let request = ListSnapshotsRequest { snapshotter: of.snapshotter(), filters: filters.to_vec() };
    let mut stream = of.client.snapshots().list(request).await.map_err(failed(&*what))?.into_inner();
    let mut rows = Vec::new();
    while let Some(part) = stream.message().await.map_err(failed(&*what))? {
        rows.extend(part.info.into_iter().map(SnapshotRow::from));
    }
    Ok(rows)
}

/// One snapshot.
///
/// # Errors
/// The engine's.
pub(super) async fn stat(of: &Of<'_>, key: &str) -> Result<Info, CliError> {
    let request = StatSnapshotRequest { snapshotter: of.snapshotter(), key: key.to_owned() };
    let what = format!("look for snapshot {key}");
    let answer = of.client.snapshots().stat(request).await.map_err(failed(what))?.into_inner();
    Ok(answer.info.unwrap_or_default())
}

/// `snapshots info`: as `ctr` prints it.
///
/// # Errors
/// [`CliError`].
pub(super) async fn info(of: &Of<'_>, key: &str) -> Result<(), CliError> {
    let row = SnapshotRow::from(stat(of, key).await?);
    let mut letters = row.kind.chars();
    let kind: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    let document = json!({
        "Kind": kind,
        "Name": row.key,
        "Parent": row.parent,
        "Labels": row.labels,
        "Created": amount::rfc3339_nanos(row.created),
        "Updated": amount::rfc3339_nanos(row.updated),
    });
    let text = output::json(&document)?;
    output::document(of.format, &document, || text)
}

/// What one snapshot takes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct UsageRow {
    key: String,
    size_bytes: u64,
    inodes: u64,
}

impl UsageRow {
    /// From the engine's answer for `key`.
    pub(crate) fn new(key: String, usage: &UsageResponse) -> Self {
        let number = |number: i64| u64::try_from(number).unwrap_or(0);
        Self { key, size_bytes: number(usage.size), inodes: number(usage.inodes) }
    }
}

impl Row for UsageRow {
    const HEADINGS: &'static [&'static str] = &["KEY", "SIZE", "INODES"];
    const FIELDS: &'static [&'static str] = fields::USAGE;

    fn name(&self) -> &str {
        &self.key
    }

    fn cells(&self, _now: SystemTime) -> Vec<String> {
        vec![self.key.clone(), amount::size(self.size_bytes), self.inodes.to_string()]
    }
}

/// `snapshots usage`.
///
/// # Errors
/// [`CliError`].
pub(super) async fn usage(of: &Of<'_>, args: &UsageArgs) -> Result<(), CliError> {
    check_format::<UsageRow>(of.format)?;
    let is_all = args.keys.is_empty();
    let keys = match is_all {
        true => all(of, &[]).await?.into_iter().map(|row| row.key).collect(),
        false => args.keys.clone(),
    };
    let mut rows = Vec::with_capacity(keys.len());
    for key in keys {
        let request = UsageRequest { snapshotter: of.snapshotter(), key: key.clone() };
        match of.client.snapshots().usage(request).await {
            Ok(usage) => rows.push(UsageRow::new(key, &usage.into_inner())),
            // It went between the list and the question.
            Err(status) if is_all && status.code() == Code::NotFound => {}
            Err(status) => return Err(failed(format!("measure snapshot {key}"))(status)),
        }
    }
    // Bytes are a template's matter: the same columns, another cell.
    match (args.bytes && !args.quiet, of.format) {
        (true, Format::Table) => {
            let format = r"table {{.Key}}\t{{.SizeBytes}}\t{{.Inodes}}".parse()?;
            show(&rows, &ListArgs::default(), &format)
        }
        _ => show(&rows, &ListArgs { quiet: args.quiet }, of.format),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::{list, tests::fields_are_as_documented};

    #[test]
    fn snapshots_say_what_kind_they_are() {
        let info =
            |name: &str, kind: Kind| Info { name: name.to_owned(), kind: kind.into(), ..Info::default() };
        let rows: Vec<SnapshotRow> = [info("a", Kind::Active), info("b", Kind::Committed)]
            .into_iter()
            .map(SnapshotRow::from)
            .collect();
        let text = list(&rows, &ListArgs::default(), &Format::Table, SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(
            text,
            "KEY  PARENT  KIND       AGE\na    -       active     now\nb    -       committed  now\n"
        );
        fields_are_as_documented(&rows[0]);
    }

    #[test]
    fn sizes_are_never_negative() {
        let row = UsageRow::new("k".to_owned(), &UsageResponse { size: -1, inodes: 3 });
        assert_eq!(row.cells(SystemTime::UNIX_EPOCH), ["k", "0 B", "3"]);
        fields_are_as_documented(&row);
    }
}
