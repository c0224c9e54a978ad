//! `content ls` and `content active`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use runtime_api::containerd::services::content::v1::{Info, ListContentRequest, ListStatusesRequest, Status};
use serde::Serialize;

use crate::args::{ActiveArgs, FilteredArgs, Format, fields};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::output::amount;
use crate::verbs::{Row, as_rfc3339, check_format, labels, show, time};

/// Content in a list.
#[derive(Debug, Clone, Serialize)]
struct ContentRow {
    digest: String,
    size_bytes: u64,
    #[serde(serialize_with = "as_rfc3339")]
    created: SystemTime,
    #[serde(serialize_with = "as_rfc3339")]
    updated: SystemTime,
    labels: BTreeMap<String, String>,
}

impl From<Info> for ContentRow {
    fn from(info: Info) -> Self {
        Self {
            digest: info.digest,
            size_bytes: u64::try_from(info.size).unwrap_or(0),
            created: time(info.created_at),
            updated: time(info.updated_at),
            labels: info.labels.into_iter().collect(),
        }
    }
}

impl Row for ContentRow {
    const HEADINGS: &'static [&'static str] = &["DIGEST", "SIZE", "AGE", "LABELS"];
    const FIELDS: &'static [&'static str] = fields::CONTENT;

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

/// An ingest in a list.
#[derive(Debug, Clone, Serialize)]
struct IngestRow {
    #[serde(rename = "ref")]
    reference: String,
    /// Bytes that have arrived.
    offset_bytes: u64,
    /// Of so many; 0 when nobody has said.
    total_bytes: u64,
    expected: String,
    #[serde(serialize_with = "as_rfc3339")]
    started: SystemTime,
    #[serde(serialize_with = "as_rfc3339")]
    updated: SystemTime,
}

impl From<Status> for IngestRow {
    fn from(status: Status) -> Self {
        Self {
            reference: status.r#ref,
            offset_bytes: u64::try_from(status.offset).unwrap_or(0),
            total_bytes: u64::try_from(status.total).unwrap_or(0),
            expected: status.expected,
            started: time(status.started_at),
            updated: time(status.updated_at),
        }
    }
}

impl Row for IngestRow {
    const HEADINGS: &'static [&'static str] = &["REF", "SIZE", "TOTAL", "AGE"];
    const FIELDS: &'static [&'static str] = fields::INGESTS;

    fn name(&self) -> &str {
        &self.reference
    }

    fn cells(&self, now: SystemTime) -> Vec<String> {
        let total = if self.total_bytes == 0 { String::new() } else { amount::size(self.total_bytes) };
        vec![self.reference.clone(), amount::size(self.offset_bytes), total, amount::age(now, self.started)]
    }
}

/// `content ls`.
///
/// # Errors
/// [`CliError`].
pub(super) async fn run(client: &Client, args: &FilteredArgs, format: &Format) -> Result<(), CliError> {
    check_format::<ContentRow>(format)?;
    let rows: Vec<ContentRow> = all(client, &args.filters).await?.into_iter().map(ContentRow::from).collect();
    show(&rows, &args.list, format)
}

/// Content that matches any of `filters`.
///
/// # Errors
/// The engine's.
pub(super) async fn all(client: &Client, filters: &[String]) -> Result<Vec<Info>, CliError> {
    let what = "list content";
    let request = ListContentRequest { filters: filters.to_vec() };
    let mut stream = client.content().list(request).await.map_err(failed(what))?.into_inner();
    let mut found = Vec::new();
    while let Some(part) = stream.message().await.map_err(failed(what))? {
        found.extend(part.info);
    }
    Ok(found)
}

/// `content active`.
///
/// # Errors
/// [`CliError`].
pub(super) async fn active(client: &Client, args: &ActiveArgs, format: &Format) -> Result<(), CliError> {
    check_format::<IngestRow>(format)?;
    // Nobody knows what a pattern holds: its quotes are taken out of the filter's own way.
    let quoted = |pattern: &String| format!("ref~={}", quoted(pattern));
    let request = ListStatusesRequest { filters: args.pattern.iter().map(quoted).collect() };
    let listed = client.content().list_statuses(request).await.map_err(failed("list ingests"))?.into_inner();
    let mut rows: Vec<IngestRow> = listed.statuses.into_iter().map(IngestRow::from).collect();
    rows.sort_by(|a, b| a.reference.cmp(&b.reference));
    show(&rows, &args.list, format)
}

/// A value for a filter, in quotes as Go writes them.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::tests::fields_are_as_documented;

    #[test]
    fn a_negative_size_is_no_panic() {
        let row = ContentRow::from(Info { size: -1, ..Info::default() });
        assert_eq!(row.size_bytes, 0);
        fields_are_as_documented(&row);
    }

    #[test]
    fn an_ingest_of_unknown_size_has_no_total() {
        let row = IngestRow::from(Status { r#ref: "r".to_owned(), offset: 2048, ..Status::default() });
        assert_eq!(row.cells(SystemTime::UNIX_EPOCH), ["r", "2.0 KiB", "", "now"]);
        fields_are_as_documented(&row);
    }

    #[test]
    fn a_pattern_is_a_value_the_filter_reads_back() {
        assert_eq!(quoted(r#"a\.b"c"#), r#""a\\.b\"c""#);
        let filter = format!("ref~={}", quoted(r"^layer-[0-9]+\.gz$"));
        assert!(runtime_api::filter::Filters::parse(&[filter]).is_ok());
    }
}
