//! The command line of `run`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use storage_model::{Identifier, Platform};

use super::registry::{RegistryArgs, SnapshotterArgs};
use super::value::{Bind, Pair, absolute, bind, mount};

pub(super) const RUN_USAGE: &str = "windlass run [OPTIONS] IMAGE [COMMAND [ARG]...]";

pub(super) const RUN_EXAMPLES: &str = "\
Examples:
  windlass run --rm alpine echo hello
  windlass run --rm -t debian bash
  windlass run -d --name web -v /srv/www:/www:ro --net-host httpd
  echo 'print(6 * 7)' | windlass run --rm python python3 -
  windlass run --rm --mount type=tmpfs,dst=/scratch,options=size=64m alpine df /scratch

Everything after IMAGE is the command. It replaces the image's CMD and follows its ENTRYPOINT.
Standard input, output and error are the container's. Without -t, Ctrl-C sends SIGINT to the process.";

/// `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Image, then the command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE [COMMAND [ARG]...]", hide = true)]
    words: Vec<String>,
    /// Remove the container when its process ends
    #[arg(long)]
    pub(crate) rm: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Standard input is always the container's; accepted so that -it works
    #[arg(short, long, hide = true)]
    pub(crate) interactive: bool,
    /// Print the container's id and leave it running
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Name of the container [default: one is made up]
    #[arg(long, value_name = "ID")]
    pub(crate) name: Option<Identifier>,
    /// Environment variable; NAME alone takes the value it has here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// File of such variables, one a line; # starts a comment line
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Directory the process starts in
    #[arg(short = 'w', long, alias = "workdir", value_name = "DIR", value_parser = absolute)]
    pub(crate) cwd: Option<String>,
    /// User and group, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Use the network of this machine
    #[arg(long)]
    pub(crate) net_host: bool,
    /// Mount, as type=bind,src=/a,dst=/b,options=rbind:ro
    #[arg(long, value_name = "KEY=VALUE,...", value_parser = mount)]
    pub(crate) mount: Vec<Bind>,
    /// Bind mount
    #[arg(short, long, value_name = "SRC:DST[:ro]", value_parser = bind)]
    pub(crate) volume: Vec<Bind>,
    /// Name or path of the OCI runtime [default: the first that works]
    #[arg(long, value_name = "RUNTIME")]
    pub(crate) runtime: Option<String>,
    /// Replace the image's entrypoint: a word, or a JSON array of words; "" is none
    #[arg(long, value_name = "WORD")]
    pub(crate) entrypoint: Option<String>,
    /// Host name in the container
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Mount the root read-only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// All capabilities, all devices, no seccomp filter
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Label of the container
    #[arg(short, long, value_name = "LABEL[=VALUE]")]
    pub(crate) label: Vec<Pair>,
    /// When to ask the registry: always, missing, or never
    #[arg(long, value_enum, value_name = "WHEN", default_value_t, hide_possible_values = true)]
    pub(crate) pull: PullPolicy,
    /// No progress when the image is pulled
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Log in to the registry with this name
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub(crate) creds: Option<String>,
    /// Platform to take from a multi-platform image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<Platform>,
    /// Who unpacks.
    #[command(flatten)]
    pub(crate) snapshotter: SnapshotterArgs,
    /// How to speak to the registry.
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

impl RunArgs {
    /// The image as it was typed.
    pub(crate) fn image(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The command and its arguments.
    pub(crate) fn command(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }
}

/// When `run` asks the registry for its image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullPolicy {
    /// Each time, in case the tag has moved
    Always,
    /// When it is not here
    #[default]
    Missing,
    /// Not at all
    Never,
}
