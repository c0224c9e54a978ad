//! The command line of the verbs about what is there: containers, tasks, content, snapshots, namespaces, leases.

use clap::{Args, Subcommand};
use storage_model::{Digest, Namespace};

use super::value::{Pair, signal};

/// `... ls`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ListArgs {
    /// Print only the names
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `containers ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum ContainersVerb {
    /// List containers
    #[command(visible_alias = "list")]
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
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Send a signal to a container's process
    Kill(KillArgs),
    /// Remove containers whose process has ended, with their snapshots
    #[command(visible_aliases = ["remove", "delete", "del"])]
    Rm(ContainerRemoveArgs),
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

/// `content ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum ContentVerb {
    /// List content
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Write content to standard output, as it is
    Get {
        /// Its digest, whole
        digest: Digest,
    },
}

/// `snapshots ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotsVerb {
    /// List snapshots
    #[command(visible_alias = "list")]
    Ls(SnapshotListArgs),
}

/// `snapshots ls`.
#[derive(Debug, Args)]
pub(crate) struct SnapshotListArgs {
    /// What to print.
    #[command(flatten)]
    pub(crate) list: ListArgs,
    /// Snapshotter
    #[arg(
        long,
        env = "WINDLASS_SNAPSHOTTER",
        hide_env = true,
        value_name = "NAME",
        default_value = "overlayfs"
    )]
    pub(crate) snapshotter: String,
}

/// `namespaces ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum NamespacesVerb {
    /// List namespaces
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Create a namespace
    #[command(visible_alias = "c")]
    Create {
        /// Its name
        name: Namespace,
        /// Labels
        #[arg(value_name = "LABEL=VALUE")]
        labels: Vec<Pair>,
    },
    /// Remove empty namespaces
    #[command(visible_aliases = ["remove", "delete", "del"])]
    Rm {
        /// Namespaces
        #[arg(required = true, value_name = "NAME")]
        names: Vec<Namespace>,
    },
}

/// `leases ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum LeasesVerb {
    /// List leases
    #[command(visible_alias = "list")]
    Ls(ListArgs),
}
