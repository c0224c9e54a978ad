//! `usage`: what the store takes on the disk, by kind, and what a collection would give back.

use std::time::SystemTime;

use runtime_api::windlass::v1::{DiskUsageRequest, KindUsage};
use serde::Serialize;

use super::{Row, check_format, list};
use crate::args::{Format, Global, ListArgs, fields};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::output::{self, amount};

#[derive(Debug, Clone, Serialize)]
struct KindRow {
    kind: String,
    count: u64,
    bytes: u64,
    reclaimable_bytes: u64,
}

impl From<KindUsage> for KindRow {
    fn from(usage: KindUsage) -> Self {
        let KindUsage { kind, count, bytes, reclaimable_bytes } = usage;
        Self { kind, count, bytes, reclaimable_bytes }
    }
}

impl Row for KindRow {
    const HEADINGS: &'static [&'static str] = &["KIND", "COUNT", "SIZE", "RECLAIMABLE"];
    const FIELDS: &'static [&'static str] = fields::KINDS;

    fn name(&self) -> &str {
        &self.kind
    }

    fn cells(&self, _now: SystemTime) -> Vec<String> {
        let sizes = [amount::size(self.bytes), amount::size(self.reclaimable_bytes)];
        let [size, reclaimable] = sizes;
        vec![self.kind.clone(), self.count.to_string(), size, reclaimable]
    }
}

/// `usage`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn run(global: &Global, args: &ListArgs) -> Result<(), CliError> {
    check_format::<KindRow>(&global.format)?;
    let client = Client::connect(global).await?;
    let answer = client.engine().disk_usage(DiskUsageRequest {}).await;
    let kinds = answer.map_err(failed("measure the store"))?.into_inner().kinds;
    let mut rows: Vec<KindRow> = kinds.into_iter().map(KindRow::from).collect();
    if matches!(global.format, Format::Table) && !args.quiet {
        rows.push(sum(&rows));
    }
    output::print(&list(&rows, args, &global.format, SystemTime::now())?)
}

fn sum(rows: &[KindRow]) -> KindRow {
    let add = |number: fn(&KindRow) -> u64| rows.iter().map(number).fold(0, u64::saturating_add);
    KindRow {
        kind: "total".to_owned(),
        count: add(|row| row.count),
        bytes: add(|row| row.bytes),
        reclaimable_bytes: add(|row| row.reclaimable_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_sum() {
        let row = |bytes| KindRow { kind: "blobs".to_owned(), count: 1, bytes, reclaimable_bytes: 1 };
        let total = sum(&[row(1024), row(1024)]);
        assert_eq!(total.cells(SystemTime::UNIX_EPOCH), ["total", "2", "2.0 KiB", "2 B"]);
        crate::verbs::tests::fields_are_as_documented(&total);
    }
}
