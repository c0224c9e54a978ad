//! The command line: what may be typed, and what each word means.
//!
//! Parsing touches nothing but the arguments and the environment: no file, no socket. A value that can be judged alone
//! (a name, a platform, a mount) is judged here, so that a typing error costs nobody a container.
//!
//! Not here: what the verbs do (`verbs`, `run`).

mod amounts;
mod containers;
mod content;
mod format;
mod images;
mod keep;
mod lazy;
mod life;
mod limits;
mod list;
mod network;
mod observe;
mod process;
mod registry;
mod security;
mod snapshots;
mod value;

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use storage_model::Namespace;

use crate::verbs::lazy_processes::LazyProcessArgs;

pub(crate) use containers::{ContainerRemoveArgs, ContainersVerb, KillArgs, StartTaskArgs, TasksVerb};
pub(crate) use content::{
    ActiveArgs, ContentVerb, EditArgs, FetchArgs, FetchBlobArgs, FetchObjectArgs, IngestArgs,
    PruneContentArgs, PruneVerb, PushObjectArgs,
};
pub(crate) use format::{Format, fields};
pub(crate) use images::{
    CheckImagesArgs, ConvertArgs, ExportArgs, ImagesVerb, ImportArgs, InspectArgs, LabelImageArgs, MountArgs,
    PruneImagesArgs, PullArgs, PushArgs, RemoveImagesArgs, TagArgs, UnmountArgs, UsageImageArgs,
};
pub(crate) use keep::{CheckArgs, GcArgs, LeasesVerb, NamespacesVerb, ResourceName, WhyArgs};
pub(crate) use lazy::{LazyVerb, TraceVerb};
pub(crate) use life::{
    CopyArgs, ExecArgs, KillManyArgs, LogsArgs, ManyArgs, OneArgs, PsArgs, StatsArgs, StopArgs, UpdateArgs,
};
pub(crate) use list::{FilteredArgs, ListArgs};
pub(crate) use observe::{EventsArgs, PluginListArgs, PluginsVerb, ServeArgs};
pub(crate) use process::{PullPolicy, RunArgs};
pub(crate) use registry::{LoginArgs, PlatformsArgs, RegistryArgs};
pub(crate) use security::SecurityArgs;
pub(crate) use snapshots::{DiffArgs, PrepareArgs, SnapshotsArgs, SnapshotsVerb, UnpackArgs, UsageArgs};
pub(crate) use value::{Bind, Label, Pair};

/// Where the engine keeps everything, unless told otherwise.
pub(crate) const DEFAULT_ROOT: &str = "/var/lib/windlass";

/// Where the engine keeps what a reboot may take: its socket, the bundles of running containers.
pub(crate) const DEFAULT_STATE: &str = "/run/windlass";

const EXAMPLES: &str = "\
Examples:
  windlass run --rm docker.io/library/alpine:latest echo hello
  windlass run --rm -t debian bash
  windlass pull --format json ghcr.io/owner/app:1.2
  windlass images ls --format '{{.Name}} {{.SizeBytes}}'
  windlass gc --dry-run

Files:
  /var/lib/windlass            images, snapshots, metadata; one engine at a time (--root)
  /var/lib/windlass/daemon.log what the engine said when it was started by a command
  /run/windlass/windlass.sock  where the engine listens (--address)

The engine starts by itself when a command needs it; `windlass daemon` runs it in the foreground.
Exit codes: 0 done, 1 failed, 2 wrong usage; `check` has its own (see there). `run` gives the
process's own code, 128+n when signal n ended it, 127 when the command was not found, 126 when
it could not be executed, 125 when the container could not be started.";

/// Pulls container images and runs them.
#[derive(Debug, Parser)]
#[command(name = "windlass", bin_name = "windlass", version, after_help = EXAMPLES, max_term_width = 110)]
// A wrapper may set a flag that its user sets again: the last one counts.
#[command(args_override_self = true)]
pub(crate) struct Cli {
    /// Flags every verb takes.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags every verb takes; they may stand before or after the verb.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Directory of images, snapshots and metadata [default: /var/lib/windlass]
    #[arg(long, global = true, env = "WINDLASS_ROOT", hide_env = true, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Directory of the socket and of running containers [default: /run/windlass]
    #[arg(long, global = true, env = "WINDLASS_STATE", hide_env = true, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Socket of a running engine; none is started when this is given [default: STATE/windlass.sock]
    #[arg(
        short = 'a',
        long,
        global = true,
        env = "WINDLASS_ADDRESS",
        hide_env = true,
        value_name = "SOCKET"
    )]
    address: Option<PathBuf>,
    /// Namespace: who uses one does not see the images and containers of another
    #[arg(
        short = 'n',
        long,
        global = true,
        env = "WINDLASS_NAMESPACE",
        hide_env = true,
        value_name = "NAME",
        default_value = "default"
    )]
    pub(crate) namespace: Namespace,
    /// Lease that keeps what the command makes
    #[arg(long, global = true, value_name = "ID")]
    pub(crate) lease: Option<String>,
    /// How results are written: table, json, or a template such as '{{.Name}} {{.Digest}}'
    #[arg(long, global = true, value_name = "FORMAT", default_value = "table", hide_default_value = true)]
    pub(crate) format: Format,
}

impl Global {
    /// The root directory.
    pub(crate) fn root(&self) -> &Path {
        self.root.as_deref().unwrap_or(Path::new(DEFAULT_ROOT))
    }

    /// The root directory if the user named one: an engine with another root is then the wrong one.
    pub(crate) fn wanted_root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// The state directory.
    pub(crate) fn state(&self) -> &Path {
        self.state.as_deref().unwrap_or(Path::new(DEFAULT_STATE))
    }

    /// The socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.address.clone().unwrap_or_else(|| self.state().join("windlass.sock"))
    }

    /// Whether the user named the socket: whoever listens there is then meant, and nobody else is started.
    pub(crate) fn is_address_given(&self) -> bool {
        self.address.is_some()
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Bring an image in from a registry
    #[command(after_help = images::PULL_EXAMPLES)]
    Pull(Box<PullArgs>),
    /// Send an image to a registry
    #[command(after_help = images::PUSH_EXAMPLES)]
    Push(Box<PushArgs>),
    /// Run a command in a new container
    #[command(after_help = process::RUN_EXAMPLES, override_usage = process::RUN_USAGE)]
    Run(Box<RunArgs>),
    /// List containers that run
    #[command(after_help = format::help(fields::CONTAINERS))]
    Ps(PsArgs),
    /// Run a command in a container that runs
    #[command(after_help = life::EXEC_EXAMPLES)]
    Exec(Box<ExecArgs>),
    /// Show what a container printed
    Logs(LogsArgs),
    /// Start containers that have ended again
    Start(ManyArgs),
    /// Be where a container's terminal is, or see what it prints
    Attach(OneArgs),
    /// Ask containers to end, and kill those that do not
    Stop(StopArgs),
    /// Stop containers and start them again
    Restart(StopArgs),
    /// Send a signal to containers
    Kill(KillManyArgs),
    /// Remove containers
    Rm(ContainerRemoveArgs),
    /// Freeze containers
    Pause(ManyArgs),
    /// Go on with frozen containers
    #[command(visible_alias = "resume")]
    Unpause(ManyArgs),
    /// Wait until containers have ended, and print their exit codes
    Wait(ManyArgs),
    /// Show what containers use, as it changes
    #[command(after_help = format::help(fields::STATS))]
    Stats(StatsArgs),
    /// Show the processes of a container
    #[command(after_help = format::help(fields::PROCESSES))]
    Top(OneArgs),
    /// Copy files between a container and this machine
    #[command(after_help = life::COPY_EXAMPLES)]
    Cp(CopyArgs),
    /// Show all that is known of containers, as JSON
    Inspect(ManyArgs),
    /// Change the limits or the restart policy of containers
    Update(Box<UpdateArgs>),
    /// Images: list, move, name, check, inspect, mount, convert, remove
    #[command(visible_aliases = ["image", "i"])]
    Images {
        /// What to do with them.
        #[command(subcommand)]
        verb: ImagesVerb,
    },
    /// Containers: list, show, label, remove
    #[command(visible_aliases = ["container", "c"])]
    Containers {
        /// What to do with them.
        #[command(subcommand)]
        verb: ContainersVerb,
    },
    /// Processes of containers: list, start, attach, signal, freeze, remove
    #[command(visible_aliases = ["task", "t"])]
    Tasks {
        /// What to do with them.
        #[command(subcommand)]
        verb: TasksVerb,
    },
    /// Stored content by digest: list, read, write, label, remove
    Content {
        /// What to do with it.
        #[command(subcommand)]
        verb: ContentVerb,
    },
    /// Snapshots: list, make, compare, remove
    #[command(visible_alias = "snapshot")]
    Snapshots(SnapshotsArgs),
    /// Namespaces: list, create, label, remove
    #[command(visible_aliases = ["namespace", "ns"])]
    Namespaces {
        /// What to do with them.
        #[command(subcommand)]
        verb: NamespacesVerb,
    },
    /// Leases, which keep things from being collected: list, create, change, remove
    #[command(visible_alias = "lease")]
    Leases {
        /// What to do with them.
        #[command(subcommand)]
        verb: LeasesVerb,
    },
    /// Show what happens, as it happens
    #[command(visible_alias = "event", after_help = observe::EVENTS_EXAMPLES)]
    Events(EventsArgs),
    /// Parts of the engine
    #[command(visible_alias = "plugin")]
    Plugins {
        /// What to do with them.
        #[command(subcommand)]
        verb: PluginsVerb,
    },
    /// Images shown before they have arrived: how they are here, completion, traces
    #[command(after_help = lazy::LAZY_HELP)]
    Lazy {
        /// What to do with them.
        #[command(subcommand)]
        verb: LazyVerb,
    },
    /// Remove what nothing keeps
    #[command(after_help = keep::GC_EXAMPLES)]
    Gc(GcArgs),
    /// Say what keeps something
    Why(WhyArgs),
    /// Compare what is stored with what it should be, and repair it
    #[command(after_help = keep::CHECK_HELP)]
    Check(Box<CheckArgs>),
    /// Show what the store takes on the disk
    #[command(visible_alias = "df", after_help = format::help(fields::KINDS))]
    Usage(ListArgs),
    /// Be a registry for others: read-only, from what is here
    #[command(after_help = observe::SERVE_HELP)]
    Serve(Box<ServeArgs>),
    /// Show the versions of this program and of the engine
    Version(VersionArgs),
    /// Show the engine: its directories, runtimes and features
    Info,
    /// Run the engine in the foreground
    Daemon(DaemonArgs),
    /// Monitor one container (started by the engine)
    #[command(hide = true)]
    Shim(ShimArgs),
    /// Hold the descriptors of lazy mounts (started by the engine)
    #[command(hide = true)]
    LazyKeeper(LazyProcessArgs),
    /// Serve lazy mounts (started by their keeper)
    #[command(hide = true)]
    LazyServer(LazyProcessArgs),
    /// Write a completion script for a shell to standard output
    #[command(after_help = "Example:\n  windlass completion bash > /etc/bash_completion.d/windlass")]
    Completion(CompletionArgs),
}

/// `version`.
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Only this program's version; the engine is not asked, nor started
    #[arg(long)]
    pub(crate) client: bool,
}

/// `daemon`.
#[derive(Debug, Args)]
pub(crate) struct DaemonArgs {
    /// Started by a command: leave its terminal and say `ready` on standard output
    #[arg(long, hide = true)]
    pub(crate) background: bool,
    /// Let go of images, least recently used first, whenever the store takes more than this
    #[arg(long, env = "WINDLASS_KEEP_STORAGE", hide_env = true, value_name = "SIZE", value_parser = value::size)]
    pub(crate) keep_storage: Option<u64>,
    /// Begin with that only when the store takes more than this
    #[arg(long, value_name = "SIZE", value_parser = value::size, requires = "keep_storage")]
    pub(crate) high_water: Option<u64>,
}

/// `shim`.
#[derive(Debug, Args)]
pub(crate) struct ShimArgs {
    /// Directory with the container's `shim.json`
    #[arg(long, value_name = "DIR")]
    pub(crate) bundle: PathBuf,
}

/// `completion`.
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests;
