//! The command line of what is done with containers that are there: `ps`, `exec`, `logs`, `stop`, `stats`, `cp` and their kin.

use std::path::PathBuf;

use clap::Args;

use super::amounts::{restart, seconds, signal_name};
use super::limits::CgroupArgs;
use super::list::ListArgs;
use super::value::absolute;

pub(super) const EXEC_EXAMPLES: &str = "\
Examples:
  windlass exec web ls /etc
  windlass exec -it web sh

Exit code: that of the process; 126 when it could not be executed, 127 when it was not found, 128+n when signal n ended it,
125 when there is no such container, or it does not run.";

pub(super) const COPY_EXAMPLES: &str = "\
Examples:
  windlass cp web:/etc/passwd .
  windlass cp ./site web:/srv
  windlass cp web:/var/log - | tar t

One side is a container's: ID:PATH. A path that ends in /. means what is in the directory. `-` is a tar on standard input
or output.";

/// `ps`.
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Those that have ended too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// What to print.
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

/// One container.
#[derive(Debug, Args)]
pub(crate) struct OneArgs {
    /// Container
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// Several containers.
#[derive(Debug, Args)]
pub(crate) struct ManyArgs {
    /// Containers
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
}

/// `stop`, `restart`.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Containers
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Seconds to wait before it is killed [default: the container's own, or 10]
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) time: Option<u32>,
    /// Signal that asks it to end [default: the container's own, or SIGTERM]
    #[arg(short, long, value_name = "SIGNAL", value_parser = signal_name)]
    pub(crate) signal: Option<String>,
}

/// `kill`.
#[derive(Debug, Args)]
pub(crate) struct KillManyArgs {
    /// Containers
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Signal, by name or number
    #[arg(short, long, value_parser = super::value::signal, default_value = "SIGKILL")]
    pub(crate) signal: u32,
    /// To every process of the container
    #[arg(short, long)]
    pub(crate) all: bool,
}

/// `exec`, `tasks exec`.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Container, then the command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "ID COMMAND [ARG]...", num_args = 2..)]
    words: Vec<String>,
    /// Give the process a terminal
    #[arg(short, long, visible_alias = "terminal")]
    pub(crate) tty: bool,
    /// Pass standard input on
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Start it and leave it running
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Name of the process [default: one is made up]
    #[arg(long, value_name = "NAME")]
    pub(crate) exec_id: Option<String>,
    /// Environment variable; NAME alone takes the value it has here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// File of such variables
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Directory the process starts in
    #[arg(short = 'w', long, alias = "workdir", value_name = "DIR", value_parser = absolute)]
    pub(crate) cwd: Option<String>,
    /// User and group, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// All capabilities
    #[arg(long)]
    pub(crate) privileged: bool,
}

impl ExecArgs {
    /// The container as it was typed.
    pub(crate) fn id(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The command and its arguments.
    pub(crate) fn command(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }
}

/// `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Container
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Go on as more is printed, until the container has ended
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// The last so many lines alone, or all
    #[arg(short = 'n', long, value_name = "LINES", value_parser = tail, default_value = "all", hide_default_value = true)]
    pub(crate) tail: Tail,
    /// When each line was printed
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Nothing printed before: 10m for ten minutes ago, or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = super::amounts::moment)]
    pub(crate) since: Option<std::time::SystemTime>,
    /// Nothing printed after
    #[arg(long, value_name = "TIME", value_parser = super::amounts::moment)]
    pub(crate) until: Option<std::time::SystemTime>,
}

/// How many lines of the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail(pub(crate) Option<usize>);

fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" | "-1" => Ok(Tail(None)),
        _ => text
            .parse()
            .map(|lines| Tail(Some(lines)))
            .map_err(|_| format!("{text:?} is not a number of lines")),
    }
}

/// `stats`.
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Containers [default: all that run]
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// One round of figures, and no more
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Seconds between two rounds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600), default_value = "1")]
    pub(crate) interval: u32,
}

/// `cp`.
#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// From: PATH, ID:PATH, or - for a tar on standard input
    pub(crate) source: String,
    /// To: PATH, ID:PATH, or - for a tar on standard output
    pub(crate) destination: String,
    /// Follow a link that is the source itself
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,
    /// Keep the owners' numbers
    #[arg(short, long)]
    pub(crate) archive: bool,
}

/// `update`.
#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// Containers
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// New limits.
    #[command(flatten)]
    pub(crate) limits: CgroupArgs,
    /// New policy: no, always, unless-stopped, on-failure[:COUNT]
    #[arg(long, value_name = "WHEN", value_parser = restart)]
    pub(crate) restart: Option<String>,
}
