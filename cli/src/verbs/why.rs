//! `why`: what keeps something from being collected, as chains from what keeps by itself.

use std::time::SystemTime;

use runtime_api::windlass::v1::{Kept, WhyRequest};
use serde::Serialize;

use super::{Row, check_format, list};
use crate::args::{Format, Global, ListArgs, WhyArgs, fields};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::output::{self, printable};

/// One thing and what keeps it.
#[derive(Debug, Clone, Serialize)]
struct KeptRow {
    kind: String,
    name: String,
    snapshotter: String,
    kept: bool,
    /// Each from its root on.
    chains: Vec<Vec<String>>,
}

impl From<Kept> for KeptRow {
    fn from(kept: Kept) -> Self {
        let chains: Vec<Vec<String>> = kept.chains.into_iter().map(|chain| chain.links).collect();
        Self {
            kept: !chains.is_empty(),
            kind: kept.kind,
            name: kept.name,
            snapshotter: kept.snapshotter,
            chains,
        }
    }
}

impl Row for KeptRow {
    const HEADINGS: &'static [&'static str] = &["KIND", "NAME", "KEPT"];
    const FIELDS: &'static [&'static str] = fields::KEPT;

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self, _now: SystemTime) -> Vec<String> {
        vec![self.kind.clone(), self.name.clone(), self.kept.to_string()]
    }
}

impl KeptRow {
    /// The thing, and below it each chain, one link deeper a line.
    fn text(&self) -> String {
        let place = match self.snapshotter.as_str() {
            "" => String::new(),
            snapshotter => format!(" ({snapshotter})"),
        };
        let mut text = format!("{} {}{place}", self.kind, self.name);
        if !self.kept {
            text.push_str("\n  nothing keeps it: the next collection removes it");
        }
        for chain in &self.chains {
            for (depth, link) in chain.iter().enumerate() {
                let arm =
                    if depth == 0 { String::new() } else { format!("{}└─ ", "   ".repeat(depth - 1)) };
                text.push_str(&format!("\n  {arm}{}", printable(link)));
            }
        }
        text + "\n"
    }
}

/// `why`.
///
/// # Errors
/// [`CliError`]; the engine's `NotFound` when nothing is called so.
pub(crate) async fn run(global: &Global, args: &WhyArgs) -> Result<(), CliError> {
    check_format::<KeptRow>(&global.format)?;
    let client = Client::connect(global).await?;
    let request = WhyRequest {
        name: args.name.clone(),
        kind: args.kind.map(|kind| kind.name().to_owned()).unwrap_or_default(),
        snapshotter: args.snapshotter.clone().unwrap_or_default(),
    };
    let what = format!("look for what keeps {}", args.name);
    let answer = client.engine().why(request).await.map_err(failed(what))?.into_inner();
    let rows: Vec<KeptRow> = answer.kept.into_iter().map(KeptRow::from).collect();
    if rows.is_empty() {
        let (name, namespace) = (args.name.clone(), client.namespace().to_string());
        return Err(CliError::NotFound { kind: "content, snapshot, image or ingest", name, namespace });
    }
    let text = match (&global.format, args.quiet) {
        (Format::Table, false) => rows.iter().map(KeptRow::text).collect::<String>(),
        (format, quiet) => list(&rows, &ListArgs { quiet }, format, SystemTime::now())?,
    };
    output::print(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime_api::windlass::v1::KeeperChain;

    #[test]
    fn each_chain_is_drawn_from_its_root_down() {
        let chain = |links: &[&str]| KeeperChain { links: links.iter().map(|l| (*l).to_owned()).collect() };
        let kept = Kept {
            kind: "blob".to_owned(),
            name: "sha256:c".to_owned(),
            chains: vec![chain(&["image a:1", "content sha256:b", "content sha256:c"]), chain(&["lease l"])],
            ..Kept::default()
        };
        let row = KeptRow::from(kept);
        assert_eq!(
            row.text(),
            "blob sha256:c\n  image a:1\n  └─ content sha256:b\n     └─ content sha256:c\n  lease l\n"
        );
        crate::verbs::tests::fields_are_as_documented(&row);
        let doomed =
            KeptRow::from(Kept { kind: "snapshot".to_owned(), name: "k".to_owned(), ..Kept::default() });
        assert!(doomed.text().contains("the next collection removes it"));
    }
}
