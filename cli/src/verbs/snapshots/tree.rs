//! `snapshots tree`: which snapshot lies on which.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::Of;
use super::list::{SnapshotRow, all};
use crate::error::CliError;
use crate::output::{self, printable};

/// `snapshots tree`.
///
/// # Errors
/// [`CliError`].
pub(super) async fn run(of: &Of<'_>) -> Result<(), CliError> {
    let rows = all(of, &[]).await?;
    let forest = Forest::new(&rows);
    output::document(of.format, &forest.document(), || forest.text())
}

/// Snapshots by what they lie on. Chains are up to 500 long and may fork anywhere, so nothing here calls itself.
struct Forest<'a> {
    /// Those that lie on nothing that is known.
    roots: Vec<&'a SnapshotRow>,
    above: BTreeMap<&'a str, Vec<&'a SnapshotRow>>,
}

impl<'a> Forest<'a> {
    fn new(rows: &'a [SnapshotRow]) -> Self {
        let known: BTreeSet<&str> = rows.iter().map(|row| row.key.as_str()).collect();
        let mut forest = Self { roots: Vec::new(), above: BTreeMap::new() };
        for row in rows {
            match known.contains(row.parent.as_str()) {
                true => forest.above.entry(&row.parent).or_default().push(row),
                false => forest.roots.push(row),
            }
        }
        forest
    }

    fn above(&self, key: &str) -> &[&'a SnapshotRow] {
        self.above.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    /// A line a snapshot. One that is alone on its parent stands below it without another step to the right: a chain of 100
    /// layers is a column, and what is shown as a branch is one.
    fn text(&self) -> String {
        let mut text = String::new();
        let mut pending: Vec<(&SnapshotRow, String, &str)> = Vec::new();
        self.roots.iter().rev().for_each(|row| pending.push((row, String::new(), "")));
        while let Some((row, indent, arm)) = pending.pop() {
            let kind = if row.kind == "committed" { String::new() } else { format!(" ({})", row.kind) };
            text.push_str(&format!("{indent}{arm}{}{kind}\n", printable(&row.key)));
            let below = match arm {
                "├─ " => format!("{indent}│  "),
                "└─ " => format!("{indent}   "),
                _ => indent,
            };
            let above = self.above(&row.key);
            for (at, child) in above.iter().enumerate().rev() {
                let arm = if at + 1 == above.len() { "└─ " } else { "├─ " };
                let (indent, arm) = match above.len() {
                    1 => (below.clone(), "· "),
                    _ => (below.clone(), arm),
                };
                pending.push((child, indent, arm));
            }
        }
        text
    }

    /// Each snapshot with the keys of those that lie on it.
    fn document(&self) -> Value {
        let mut nodes = Vec::new();
        let mut pending: Vec<&SnapshotRow> = self.roots.iter().rev().copied().collect();
        while let Some(row) = pending.pop() {
            let above = self.above(&row.key);
            let keys: Vec<&str> = above.iter().map(|child| child.key.as_str()).collect();
            nodes.push(json!({ "key": row.key, "parent": row.parent, "kind": row.kind, "children": keys }));
            pending.extend(above.iter().rev());
        }
        Value::Array(nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime_api::containerd::services::snapshots::v1::{Info, Kind};

    fn row(key: &str, parent: &str, kind: Kind) -> SnapshotRow {
        let info =
            Info { name: key.to_owned(), parent: parent.to_owned(), kind: kind.into(), ..Info::default() };
        info.into()
    }

    #[test]
    fn chains_are_columns_and_forks_are_branches() {
        let rows = [
            row("base", "", Kind::Committed),
            row("app", "base", Kind::Committed),
            row("c1", "app", Kind::Active),
            row("c2", "app", Kind::View),
            row("on-c2", "c2", Kind::Committed),
            row("lost", "gone", Kind::Committed),
        ];
        let forest = Forest::new(&rows);
        assert_eq!(forest.text(), "base\n· app\n├─ c1 (active)\n└─ c2 (view)\n   · on-c2\nlost\n");
        assert_eq!(forest.document()[1]["children"], json!(["c1", "c2"]));
    }

    #[test]
    fn a_long_chain_is_drawn_without_going_deep() {
        let rows: Vec<SnapshotRow> =
            (0..100_000).map(|n| row(&format!("{n}"), &format!("{}", n - 1), Kind::Committed)).collect();
        assert_eq!(Forest::new(&rows).text().lines().count(), 100_000);
    }
}
