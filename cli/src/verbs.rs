//! The verbs about what is there. Each asks the engine, turns the answer into rows, and the rows into text.
//!
//! Rows are plain structs: the same ones become a table for people and JSON for programs, by pure functions.

pub(crate) mod containers;
pub(crate) mod content;
pub(crate) mod daemon;
pub(crate) mod images;
pub(crate) mod inspect;
pub(crate) mod keep;
pub(crate) mod status;

use serde::Serialize;

use crate::args::{Format, ListArgs};
use crate::error::CliError;
use crate::output::table::Table;
use crate::output::{self, amount};

/// A row of a list.
pub(crate) trait Row: Serialize {
    /// Headings of its columns.
    const HEADINGS: &'static [&'static str];

    /// What `-q` prints.
    fn name(&self) -> &str;

    /// Its cells, one for each heading; an empty one is shown as `-`.
    fn cells(&self, now: std::time::SystemTime) -> Vec<String>;
}

/// A list as text: names, a table, or JSON.
///
/// # Errors
/// [`CliError::Json`].
pub(crate) fn list<R: Row>(
    rows: &[R],
    args: &ListArgs,
    format: Format,
    now: std::time::SystemTime,
) -> Result<String, CliError> {
    match (args.quiet, format) {
        (true, Format::Json) => output::json(&rows.iter().map(Row::name).collect::<Vec<_>>()),
        (false, Format::Json) => output::json(&rows),
        (true, Format::Table) => {
            Ok(rows.iter().map(|row| format!("{}\n", output::printable(row.name()))).collect())
        }
        (false, Format::Table) => {
            let mut table = Table::new(R::HEADINGS);
            rows.iter().for_each(|row| table.row(row.cells(now)));
            Ok(table.render())
        }
    }
}

/// Prints a list.
///
/// # Errors
/// [`CliError::Json`], [`CliError::Output`].
pub(crate) fn show<R: Row>(rows: &[R], args: &ListArgs, format: Format) -> Result<(), CliError> {
    output::print(&list(rows, args, format, std::time::SystemTime::now())?)
}

/// Longest list of labels in a table, in characters; JSON has all of them.
const CELL_CHARS_MAX: usize = 60;

/// Labels on one line, as many as there is room for.
pub(crate) fn labels(labels: &std::collections::BTreeMap<String, String>) -> String {
    shortened(
        &labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(","),
        CELL_CHARS_MAX,
    )
}

/// The beginning of `text`, with dots if there is more of it than `chars_max` characters.
pub(crate) fn shortened(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let kept: String = text.chars().take(chars_max.saturating_sub(3)).collect();
    format!("{kept}...")
}

/// A protobuf time as one of ours; absent is 1970.
pub(crate) fn time(stamp: Option<prost_types::Timestamp>) -> std::time::SystemTime {
    stamp.map_or(std::time::SystemTime::UNIX_EPOCH, |stamp| amount::time(stamp.seconds, stamp.nanos))
}

/// Times as RFC 3339 in JSON.
pub(crate) fn as_rfc3339<S: serde::Serializer>(
    time: &std::time::SystemTime,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&amount::rfc3339(*time))
}

/// Does `act` for each of `names`; failures are told one by one as they happen, and then counted.
///
/// # Errors
/// [`CliError::Some`] if any failed; the failure itself when there was only one name.
pub(crate) async fn for_each<'a, F>(
    names: &'a [String],
    mut act: impl FnMut(&'a str) -> F,
) -> Result<(), CliError>
where
    F: Future<Output = Result<(), CliError>>,
{
    let mut failed = 0;
    for name in names {
        match act(name).await {
            Ok(()) => {}
            Err(error) if names.len() == 1 || error.is_silent() => return Err(error),
            Err(error) => {
                output::note(crate::words::report(&error).trim_end());
                failed += 1;
            }
        }
    }
    if failed == 0 { Ok(()) } else { Err(CliError::Some { failed, all: names.len() }) }
}
