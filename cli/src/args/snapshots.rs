//! The command line of `snapshots`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::format::{self, fields};
use super::list::FilteredArgs;
use super::registry::CtrArgs;
use super::value::Label;

const DIFF_EXAMPLES: &str = "\
Examples:
  windlass snapshots diff my-container > changes.tar.gz
  windlass snapshots diff --media-type application/vnd.oci.image.layer.v1.tar A B | tar tv";

/// `snapshots ...`.
#[derive(Debug, Args)]
pub(crate) struct SnapshotsArgs {
    /// Snapshotter: overlayfs or native
    #[arg(
        long,
        env = "WINDLASS_SNAPSHOTTER",
        hide_env = true,
        value_name = "NAME",
        default_value = "overlayfs",
        global = true
    )]
    pub(crate) snapshotter: String,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: SnapshotsVerb,
}

/// `snapshots ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotsVerb {
    /// List snapshots
    #[command(visible_alias = "list", after_help = format::help(fields::SNAPSHOTS))]
    Ls(FilteredArgs),
    /// Show a snapshot, as JSON
    #[command(visible_alias = "inspect")]
    Info {
        /// Snapshot
        key: String,
    },
    /// Show which snapshot lies on which
    Tree,
    /// Write what a snapshot changes to standard output, as a layer
    #[command(after_help = DIFF_EXAMPLES)]
    Diff(DiffArgs),
    /// Show what snapshots take on the disk, each without those below it
    #[command(after_help = format::help(fields::USAGE))]
    Usage(UsageArgs),
    /// Make a committed snapshot of an active one
    Commit {
        /// Name of the committed snapshot
        name: String,
        /// The active one
        #[arg(value_name = "ACTIVE")]
        key: String,
        /// Label
        #[arg(long, value_name = "LABEL[=VALUE]")]
        label: Vec<Label>,
    },
    /// Start a writable snapshot; prints how it is mounted
    Prepare(PrepareArgs),
    /// Start a read-only view of a snapshot; prints how it is mounted
    View(PrepareArgs),
    /// Print how a snapshot is mounted
    #[command(visible_aliases = ["m", "mount"])]
    Mounts {
        /// Directory to mount at
        target: PathBuf,
        /// Snapshot
        key: String,
    },
    /// Remove snapshots
    #[command(visible_aliases = ["remove", "delete", "del"])]
    Rm {
        /// Snapshots; one on which another lies stays
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
    },
    /// Set labels of a snapshot, or take them away
    Label {
        /// Snapshot
        key: String,
        /// Labels; an empty value takes one away
        #[arg(required = true, value_name = "LABEL=VALUE")]
        labels: Vec<Label>,
    },
    /// Unpack an image that is here; prints its chain ID
    Unpack(UnpackArgs),
}

/// `snapshots diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Snapshot; alone: compared with its parent
    pub(crate) key: String,
    /// Snapshot that is compared with KEY
    pub(crate) other: Option<String>,
    /// What is made: an OCI or Docker layer, with the compression it says
    #[arg(long, value_name = "TYPE", default_value = storage_model::media::OCI_LAYER_GZIP)]
    pub(crate) media_type: String,
    /// Reference of the ingest [default: one is made up]
    #[arg(long = "ref", value_name = "REF")]
    pub(crate) reference: Option<String>,
    /// Keep the layer in the store too, and print nothing but its digest
    #[arg(long)]
    pub(crate) keep: bool,
    /// Label of the layer in the store
    #[arg(long, value_name = "LABEL[=VALUE]")]
    pub(crate) label: Vec<Label>,
}

/// `snapshots usage`.
#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    /// Snapshots [default: all]
    #[arg(value_name = "KEY")]
    pub(crate) keys: Vec<String>,
    /// Sizes in bytes
    #[arg(short)]
    pub(crate) bytes: bool,
    /// Print only the keys
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `snapshots prepare`, `snapshots view`.
#[derive(Debug, Args)]
pub(crate) struct PrepareArgs {
    /// Name of the new snapshot
    pub(crate) key: String,
    /// Committed snapshot below it [default: none]
    pub(crate) parent: Option<String>,
    /// Directory to mount at: what is printed is then a command
    #[arg(short, long, value_name = "DIR")]
    pub(crate) target: Option<PathBuf>,
    /// Print the mounts as JSON
    #[arg(long)]
    pub(crate) mounts: bool,
    /// Label
    #[arg(long, value_name = "LABEL[=VALUE]")]
    pub(crate) label: Vec<Label>,
}

/// `snapshots unpack`.
#[derive(Debug, Args)]
pub(crate) struct UnpackArgs {
    /// Image: its digest, the beginning of it, or its name
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Platform of a multi-platform image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<storage_model::Platform>,
    /// No progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Ctr's.
    #[command(flatten)]
    pub(crate) ctr: CtrArgs,
}
