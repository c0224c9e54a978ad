//! `plugins ls`: the parts of the engine that containerd's clients ask for.

use std::collections::BTreeMap;
use std::time::SystemTime;

use runtime_api::containerd::services::introspection::v1::{Plugin, PluginsRequest};
use serde::Serialize;

use super::{Row, check_format, show};
use crate::args::{Format, Global, PluginListArgs, PluginsVerb, fields};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::output::{self, printable};

#[derive(Debug, Clone, Serialize)]
struct PluginRow {
    #[serde(rename = "type")]
    kind: String,
    id: String,
    platforms: Vec<String>,
    /// `ok`, `error`.
    status: &'static str,
    error: String,
    capabilities: Vec<String>,
    exports: BTreeMap<String, String>,
    requires: Vec<String>,
}

impl From<Plugin> for PluginRow {
    fn from(plugin: Plugin) -> Self {
        let platform = |platform: runtime_api::containerd::types::Platform| {
            let parts = [platform.os, platform.architecture, platform.variant];
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
        };
        Self {
            kind: plugin.r#type,
            id: plugin.id,
            platforms: plugin.platforms.into_iter().map(platform).collect(),
            status: if plugin.init_err.is_some() { "error" } else { "ok" },
            error: plugin.init_err.map(|error| error.message).unwrap_or_default(),
            capabilities: plugin.capabilities,
            exports: plugin.exports.into_iter().collect(),
            requires: plugin.requires,
        }
    }
}

impl Row for PluginRow {
    const HEADINGS: &'static [&'static str] = &["TYPE", "ID", "PLATFORMS", "STATUS"];
    const FIELDS: &'static [&'static str] = fields::PLUGINS;

    fn name(&self) -> &str {
        &self.id
    }

    fn cells(&self, _now: SystemTime) -> Vec<String> {
        vec![self.kind.clone(), self.id.clone(), self.platforms.join(","), self.status.to_owned()]
    }
}

impl PluginRow {
    /// Everything that is known of it, a line each.
    fn details(&self) -> String {
        let exports: Vec<String> =
            self.exports.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let lines = [
            ("type", self.kind.clone()),
            ("id", self.id.clone()),
            ("platforms", self.platforms.join(", ")),
            ("status", self.status.to_owned()),
            ("error", self.error.clone()),
            ("capabilities", self.capabilities.join(", ")),
            ("exports", exports.join(", ")),
            ("requires", self.requires.join(", ")),
        ];
        let told = lines.iter().filter(|(_, value)| !value.is_empty());
        told.map(|(name, value)| format!("{name:<13} {}\n", printable(value))).collect()
    }
}

/// `plugins ...`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn run(global: &Global, verb: &PluginsVerb) -> Result<(), CliError> {
    let PluginsVerb::Ls(PluginListArgs { list: args, detailed }) = verb;
    check_format::<PluginRow>(&global.format)?;
    let client = Client::connect(global).await?;
    let request = PluginsRequest { filters: args.filters.clone() };
    let listed = client.introspection().plugins(request).await.map_err(failed("list plug-ins"))?.into_inner();
    let rows: Vec<PluginRow> = listed.plugins.into_iter().map(PluginRow::from).collect();
    match &global.format {
        Format::Table if *detailed && !args.list.quiet => {
            output::print(&rows.iter().map(PluginRow::details).collect::<Vec<_>>().join("\n"))
        }
        format => show(&rows, &args.list, format),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime_api::google::rpc::Status;

    #[test]
    fn one_that_does_not_work_says_why() {
        let plugin = Plugin {
            r#type: "io.containerd.snapshotter.v1".to_owned(),
            id: "native".to_owned(),
            init_err: Some(Status { message: "no disk".to_owned(), ..Status::default() }),
            ..Plugin::default()
        };
        let row = PluginRow::from(plugin);
        assert!(row.details().contains("status        error\nerror         no disk\n"), "{}", row.details());
        crate::verbs::tests::fields_are_as_documented(&row);
    }
}
