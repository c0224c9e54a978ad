//! The command line of what looks at the engine, and of `serve`: `events`, `plugins`, `serve`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::format::{self, fields};
use super::list::FilteredArgs;
use super::registry::LoginArgs;
use super::value::lifetime;

pub(super) const EVENTS_EXAMPLES: &str = "\
Examples:
  windlass events
  windlass events 'topic~=^/images/'
  windlass events --format '{{.Topic}} {{.Event.Name}}' 'namespace==default'";

/// `events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Which, as containerd writes it: topic=="/images/create", namespace==default, event.name~=alpine
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

pub(super) const SERVE_HELP: &str = "\
Examples:
  windlass serve
  windlass serve --listen 0.0.0.0:5000 --pull-through --registry docker.io
  skopeo copy --src-tls-verify=false docker://localhost:5000/library/alpine dir:alpine

An image REGISTRY/REPOSITORY:TAG is at /v2/REPOSITORY with ?ns=REGISTRY (mirrors of containerd), at
/v2/REGISTRY/REPOSITORY, and at /v2/REPOSITORY when only one registry has it (docker's registry-mirrors).
Nobody is asked for a login: whoever reaches the port reads every image of the namespace, and with
--pull-through what the credentials given here may read. Nothing can be written.";

/// `serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address and port to listen at; port 0 is a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    pub(crate) listen: String,
    /// Pull what is asked for and not here
    #[arg(long)]
    pub(crate) pull_through: bool,
    /// How long a tag is taken for granted before its registry is asked again
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = lifetime, requires = "pull_through")]
    pub(crate) fresh: Duration,
    /// Pull from this registry only; may be repeated [default: any with a public name]
    #[arg(long, value_name = "HOST", requires = "pull_through")]
    pub(crate) registry: Vec<String>,
    /// Speak https with this certificate (PEM, with those between it and its authority)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// How the registries that are pulled from are spoken to.
    #[command(flatten)]
    pub(crate) login: LoginArgs,
}
