//! The command line of what looks at the engine, and of `serve`: `events`, `plugins`, `serve`.

use clap::{Args, Subcommand};

use super::format::{self, fields};
use super::list::FilteredArgs;

pub(super) const EVENTS_EXAMPLES: &str = "\
Examples:
  windlass events
  windlass events 'topic~=^/images/'
  windlass events --format '{{.Topic}} {{.Event.Name}}' 'namespace==default'";

/// `events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Which, as containerd writes it: topic==/images/create, namespace==default, event.name~=alpine
    #[arg(value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
}

/// `plugins ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum PluginsVerb {
    /// List the parts of the engine that clients ask for
    #[command(visible_alias = "list", after_help = format::help(fields::PLUGINS))]
    Ls(PluginListArgs),
}

/// `plugins ls`.
#[derive(Debug, Args)]
pub(crate) struct PluginListArgs {
    /// Which, and what to print.
    #[command(flatten)]
    pub(crate) list: FilteredArgs,
    /// Everything that is known of each
    #[arg(short, long)]
    pub(crate) detailed: bool,
}
