//! The command line of what keeps things and removes them: `namespaces`, `leases`, `gc`, `why`, `check`, `usage`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use storage_model::Namespace;

use super::format::{self, fields};
use super::list::{FilteredArgs, ListArgs};
use super::registry::LoginArgs;
use super::value::{Label, Subset, lifetime, size};

/// `namespaces ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum NamespacesVerb {
    /// List namespaces
    #[command(visible_alias = "list", after_help = format::help(fields::NAMESPACES))]
    Ls(ListArgs),
    /// Create a namespace
    #[command(visible_alias = "c")]
    Create {
        /// Its name
        name: Namespace,
        /// Labels
        #[arg(value_name = "LABEL=VALUE")]
        labels: Vec<Label>,
    },
    /// Set labels of a namespace, or take them away
    Label {
        /// Its name
        name: Namespace,
        /// Labels; an empty value takes one away
        #[arg(required = true, value_name = "LABEL=VALUE")]
        labels: Vec<Label>,
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
    #[command(visible_alias = "list", after_help = format::help(fields::LEASES))]
    Ls(FilteredArgs),
    /// Create a lease; prints its id
    Create {
        /// Its id [default: one is made up]
        #[arg(long)]
        id: Option<String>,
        /// How long it lasts: 24h, 30m, 7d; 0 is for ever
        #[arg(short = 'x', long, value_name = "TIME", default_value = "24h", value_parser = lifetime)]
        expires: Duration,
        /// Labels
        #[arg(value_name = "LABEL=VALUE")]
        labels: Vec<Label>,
    },
    /// List what a lease keeps, or change it
    #[command(after_help = format::help(fields::RESOURCES))]
    Resources {
        /// Lease
        id: String,
        /// Let it keep this too: content/DIGEST, images/NAME, ingests/REF, snapshots/SNAPSHOTTER/KEY
        #[arg(long, value_name = "TYPE/ID")]
        add: Vec<ResourceName>,
        /// Let it keep this no longer
        #[arg(long, value_name = "TYPE/ID")]
        remove: Vec<ResourceName>,
        /// What to print.
        #[command(flatten)]
        list: ListArgs,
    },
    /// Remove leases
    #[command(visible_aliases = ["remove", "delete", "del"])]
    Rm {
        /// Leases
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        /// Wait until what only they kept is gone
        #[arg(long)]
        sync: bool,
    },
}

/// Something a lease keeps, as it is typed: `snapshots/overlayfs/KEY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResourceName {
    /// As containerd writes it: `content`, `images`, `ingests`, `snapshots/overlayfs`.
    pub(crate) kind: String,
    /// Digest, name, reference or key.
    pub(crate) id: String,
}

impl std::str::FromStr for ResourceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || "write content/DIGEST, images/NAME, ingests/REF or snapshots/SNAPSHOTTER/KEY".to_owned();
        let (kind, rest) = text.split_once('/').ok_or_else(bad)?;
        let (kind, id) = match kind {
            "content" | "images" | "ingests" => (kind.to_owned(), rest),
            "snapshots" => {
                let (snapshotter, key) = rest.split_once('/').ok_or_else(bad)?;
                (format!("snapshots/{snapshotter}"), key)
            }
            _ => return Err(bad()),
        };
        if id.is_empty() || kind.ends_with('/') { Err(bad()) } else { Ok(Self { kind, id: id.to_owned() }) }
    }
}

pub(super) const GC_EXAMPLES: &str = "\
Examples:
  windlass gc                                          what nothing keeps goes
  windlass gc --dry-run                                only tell
  windlass gc --keep-storage 10GB                      then let go of images, least recently used first,
                                                       until the store takes no more than this
  windlass gc --keep-storage 10GB --high-water 15GB    but only once it takes more than 15 GB

Images in use by containers or leases stay, and those with the label windlass.io/pinned.";

/// `gc`.
#[derive(Debug, Default, Args)]
pub(crate) struct GcArgs {
    /// Remove nothing, only tell what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Let go of images too, least recently used first, until the store takes no more than this
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) keep_storage: Option<u64>,
    /// Begin with that only when the store takes more than this
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "keep_storage")]
    pub(crate) high_water: Option<u64>,
    /// Print only the names of what goes
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `why`.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// Digest or the beginning of one, key of a snapshot, name of an image, reference of an ingest
    pub(crate) name: String,
    /// Only what is of this kind: blob, snapshot, image or ingest
    #[arg(long, value_enum, hide_possible_values = true)]
    pub(crate) kind: Option<Kind>,
    /// Only snapshots of this snapshotter
    #[arg(long, value_name = "NAME")]
    pub(crate) snapshotter: Option<String>,
    /// Print only the names
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// What there is in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Content
    #[value(alias = "content")]
    Blob,
    /// Tree
    Snapshot,
    /// Name
    Image,
    /// Content on its way in
    Ingest,
}

impl Kind {
    /// As the engine takes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Snapshot => "snapshot",
            Self::Image => "image",
            Self::Ingest => "ingest",
        }
    }
}

pub(super) const CHECK_HELP: &str = "\
Examples:
  windlass check                          records, references, sizes: seconds
  windlass check --read-data              reads and hashes everything
  windlass check --read-data --subset 3/7 a seventh of it: each day another one, everything in a week
  windlass check --read-data --repair     fetches what is damaged again

Exit codes: 0 nothing is damaged, 1 everything that was damaged has been repaired, 2 damage is left,
3 the check could not be done.";

/// `check`.
#[derive(Debug, Default, Args)]
pub(crate) struct CheckArgs {
    /// Read and hash everything, not only compare records, sizes and types
    #[arg(long)]
    pub(crate) read_data: bool,
    /// Read only part N of T, from 1
    #[arg(long, value_name = "N/T", requires = "read_data")]
    pub(crate) subset: Option<Subset>,
    /// Put damaged things aside and fetch or unpack them again
    #[arg(long)]
    pub(crate) repair: bool,
    /// No progress: print only what is damaged
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Who we are where damaged content comes from.
    #[command(flatten)]
    pub(crate) login: LoginArgs,
}
