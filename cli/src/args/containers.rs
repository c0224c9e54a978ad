//! The command line of `containers` and `tasks`.

use clap::{Args, Subcommand};

use super::format::{self, fields};
use super::life::{ExecArgs, ManyArgs, OneArgs};
use super::list::ListArgs;
use super::value::{Label, signal};

/// `containers ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum ContainersVerb {
    /// List containers
    #[command(visible_alias = "list", after_help = format::help(fields::CONTAINERS))]
    Ls(ListArgs),
    /// Show a container with its runtime spec, as JSON
    #[command(visible_alias = "inspect")]
    Info {
        /// Container
        id: String,
    },
    /// Remove containers
    #[command(visible_aliases = ["remove", "delete", "del"])]
    Rm(ContainerRemoveArgs),
    /// Set labels of a container, or take them away with an empty value
    Label {
        /// Container
        id: String,
        /// Labels
        #[arg(required = true, value_name = "LABEL[=VALUE]")]
        labels: Vec<Label>,
    },
}

/// `containers rm`, `tasks rm`.
#[derive(Debug, Args)]
pub(crate) struct ContainerRemoveArgs {
    /// Containers
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Kill those that run
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// `tasks ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum TasksVerb {
    /// List the processes of containers
    #[command(visible_alias = "list", after_help = format::help(fields::TASKS))]
    Ls(ListArgs),
    /// Send a signal to a container's process
    Kill(KillArgs),
    /// Start a container that has ended
    Start(StartTaskArgs),
    /// Be where a container's terminal is, or see what it prints
    Attach(OneArgs),
    /// Run a command in a container that runs
    Exec(Box<ExecArgs>),
    /// Freeze containers
    Pause(ManyArgs),
    /// Go on with frozen containers
    Resume(ManyArgs),
    /// Show the processes of a container
    #[command(after_help = format::help(fields::PROCESSES))]
    Ps(OneArgs),
    /// Show what a container uses
    #[command(visible_alias = "metric", after_help = format::help(fields::STATS))]
    Metrics(OneArgs),
    /// Remove containers whose process has ended, with their snapshots
    #[command(visible_aliases = ["remove", "delete", "del"])]
    Rm(ContainerRemoveArgs),
}

/// `tasks start`.
#[derive(Debug, Args)]
pub(crate) struct StartTaskArgs {
    /// Container
    pub(crate) id: String,
    /// Leave it running
    #[arg(short, long)]
    pub(crate) detach: bool,
}

/// `tasks kill`.
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// Container
    pub(crate) id: String,
    /// Signal, by name or number
    #[arg(short, long, value_parser = signal, default_value = "SIGTERM")]
    pub(crate) signal: u32,
    /// To every process of the container
    #[arg(long)]
    pub(crate) all: bool,
}
