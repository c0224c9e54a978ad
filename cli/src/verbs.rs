//! The verbs about what is there. Each asks the engine, turns the answer into rows, and the rows into text.
//!
//! Rows are plain structs: the same ones become a table for people and JSON for programs, by pure functions.

pub(crate) mod check;
pub(crate) mod collect;
pub(crate) mod containers;
pub(crate) mod content;
pub(crate) mod daemon;
pub(crate) mod events;
pub(crate) mod images;
pub(crate) mod lazy;
pub(crate) mod lazy_processes;
pub(crate) mod leases;
pub(crate) mod life;
pub(crate) mod namespaces;
pub(crate) mod plugins;
pub(crate) mod serve;
pub(crate) mod snapshots;
pub(crate) mod status;
pub(crate) mod usage;
pub(crate) mod why;

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;

use crate::args::{Format, Label, ListArgs};
use crate::error::CliError;
use crate::output::table::Table;
use crate::output::{self, amount};

/// A row of a list.
pub(crate) trait Row: Serialize {
    /// Headings of its columns.
    const HEADINGS: &'static [&'static str];

    /// What a template may name, as `--help` lists it: the keys of its JSON, and columns that read otherwise.
    const FIELDS: &'static [&'static str];

    /// What `-q` prints.
    fn name(&self) -> &str;

    /// Its cells, one for each heading; an empty one is shown as `-`.
    fn cells(&self, now: SystemTime) -> Vec<String>;
}

/// A list as text: names, a table, JSON, or as a template says.
///
/// # Errors
/// [`CliError::Json`], [`CliError::Template`].
pub(crate) fn list<R: Row>(
    rows: &[R],
    args: &ListArgs,
    format: &Format,
    now: SystemTime,
) -> Result<String, CliError> {
    match (args.quiet, format) {
        (true, Format::Json) => output::json(&rows.iter().map(Row::name).collect::<Vec<_>>()),
        (true, _) => Ok(rows.iter().map(|row| format!("{}\n", output::printable(row.name()))).collect()),
        (false, Format::Json) => output::json(&rows),
        (false, Format::Table) => {
            let mut table = Table::new(R::HEADINGS);
            rows.iter().for_each(|row| table.row(row.cells(now)));
            Ok(table.render())
        }
        (false, Format::Template(template)) => {
            template.check(R::FIELDS)?;
            let values = rows.iter().map(|row| fields(row, now)).collect::<Result<Vec<_>, _>>()?;
            Ok(template.render_all(&values)?)
        }
    }
}

/// What a template may name: the row's JSON, and its cells by their headings where the JSON has no such key.
fn fields<R: Row>(row: &R, now: SystemTime) -> Result<Value, CliError> {
    let mut value = serde_json::to_value(row).map_err(CliError::Json)?;
    if let Some(object) = value.as_object_mut() {
        for (heading, cell) in R::HEADINGS.iter().zip(row.cells(now)) {
            let key = heading.to_lowercase().replace(' ', "_");
            object.entry(key).or_insert(Value::String(cell));
        }
    }
    Ok(value)
}

/// Prints a list.
///
/// # Errors
/// [`CliError::Json`], [`CliError::Template`], [`CliError::Output`].
pub(crate) fn show<R: Row>(rows: &[R], args: &ListArgs, format: &Format) -> Result<(), CliError> {
    output::print(&list(rows, args, format, SystemTime::now())?)
}

/// Refuses a template with fields that `R` has not, before anything is asked or done.
///
/// # Errors
/// [`CliError::Template`].
pub(crate) fn check_format<R: Row>(format: &Format) -> Result<(), CliError> {
    match format {
        Format::Template(template) => Ok(template.check(R::FIELDS)?),
        Format::Table | Format::Json => Ok(()),
    }
}

/// Labels as the engine takes them.
pub(crate) fn label_map(labels: &[Label]) -> HashMap<String, String> {
    labels.iter().map(|label| (label.name.clone(), label.value.clone())).collect()
}

/// What content or a snapshot needs to be kept by itself: containerd's label, whose value is when it was set.
const ROOT_LABEL: &str = "containerd.io/gc.root";

/// `labels` of something that the next collection shall not remove.
pub(crate) fn kept(mut labels: HashMap<String, String>) -> HashMap<String, String> {
    labels.entry(ROOT_LABEL.to_owned()).or_insert_with(|| amount::rfc3339(SystemTime::now()));
    labels
}

/// Labels to be changed, and the mask that says which; an empty value takes one away.
pub(crate) fn label_change(labels: &[Label]) -> (HashMap<String, String>, prost_types::FieldMask) {
    let paths = labels.iter().map(|label| format!("labels.{}", label.name)).collect();
    (label_map(labels), prost_types::FieldMask { paths })
}

/// Labels as `ctr` prints them: `a=b,c=d`.
pub(crate) fn all_labels(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

/// Longest list of labels in a table, in characters; JSON has all of them.
const CELL_CHARS_MAX: usize = 60;

/// Labels on one line, as many as there is room for.
pub(crate) fn labels(labels: &BTreeMap<String, String>) -> String {
    shortened(&all_labels(labels), CELL_CHARS_MAX)
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
pub(crate) fn time(stamp: Option<prost_types::Timestamp>) -> SystemTime {
    stamp.map_or(SystemTime::UNIX_EPOCH, |stamp| amount::time(stamp.seconds, stamp.nanos))
}

/// Times as RFC 3339 in JSON.
pub(crate) fn as_rfc3339<S: serde::Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::output::template::capitals;

    /// Holds a list to what `--help` says of its fields.
    pub(crate) fn fields_are_as_documented<R: Row>(row: &R) {
        let value = fields(row, SystemTime::UNIX_EPOCH).unwrap();
        let mut have: Vec<String> = value.as_object().unwrap().keys().map(|key| capitals(key)).collect();
        let mut told: Vec<String> = R::FIELDS.iter().map(|field| (*field).to_owned()).collect();
        have.sort();
        told.sort();
        assert_eq!(have, told);
        assert_eq!(row.cells(SystemTime::UNIX_EPOCH).len(), R::HEADINGS.len());
    }

    #[derive(Serialize)]
    struct Sample {
        name: &'static str,
        size_bytes: u64,
    }

    impl Row for Sample {
        const HEADINGS: &'static [&'static str] = &["NAME", "SIZE"];
        const FIELDS: &'static [&'static str] = &["Name", "SizeBytes", "Size"];

        fn name(&self) -> &str {
            self.name
        }

        fn cells(&self, _now: SystemTime) -> Vec<String> {
            vec![self.name.to_owned(), amount::size(self.size_bytes)]
        }
    }

    fn text(format: &str, quiet: bool) -> Result<String, CliError> {
        let rows = [Sample { name: "a", size_bytes: 2048 }, Sample { name: "b", size_bytes: 1 }];
        list(&rows, &ListArgs { quiet }, &format.parse().unwrap(), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn one_list_in_every_format() {
        assert_eq!(text("table", false).unwrap(), "NAME  SIZE\na     2.0 KiB\nb     1 B\n");
        assert_eq!(text("{{.Name}}={{.Size}}={{.SizeBytes}}", false).unwrap(), "a=2.0 KiB=2048\nb=1 B=1\n");
        assert_eq!(
            text(r"table {{.Size}}\t{{.Name}}", false).unwrap(),
            "SIZE     NAME\n2.0 KiB  a\n1 B      b\n"
        );
        assert_eq!(text("table", true).unwrap(), "a\nb\n");
        assert_eq!(text("json", true).unwrap(), "[\n  \"a\",\n  \"b\"\n]\n");
    }

    #[test]
    fn a_misspelt_field_is_told_even_of_an_empty_list() {
        let rows: [Sample; 0] = [];
        let format = "{{.Nmae}}".parse().unwrap();
        let error = list(&rows, &ListArgs::default(), &format, SystemTime::UNIX_EPOCH).unwrap_err();
        assert!(matches!(error, CliError::Template(_)) && error.exit_code() == 2);
        fields_are_as_documented(&Sample { name: "a", size_bytes: 1 });
    }
}
