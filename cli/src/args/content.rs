//! The command line of `content`.

use clap::{Args, Subcommand};
use storage_model::{Digest, Reference};

use super::format::{self, fields};
use super::list::{FilteredArgs, ListArgs};
use super::registry::{LoginArgs, PlatformsArgs};
use super::value::Label;

const INGEST_EXAMPLES: &str = "\
Examples:
  windlass content ingest my-upload < layer.tar.gz
  windlass content ingest --expected-digest sha256:... --keep r1 < file

The same REF again goes on where an interrupted one stopped, when standard input is a file.
What nothing keeps is removed by the next collection: --keep, a label or a lease (--lease) keeps it.";

/// `content ...`. A digest may be its beginning, with or without `sha256:`.
#[derive(Debug, Subcommand)]
pub(crate) enum ContentVerb {
    /// List content
    #[command(visible_alias = "list", after_help = format::help(fields::CONTENT))]
    Ls(FilteredArgs),
    /// Write content to standard output, as it is
    Get {
        /// Its digest, or the beginning of it
        digest: String,
    },
    /// Remove content, whatever keeps it
    #[command(visible_aliases = ["remove", "delete", "del"])]
    Rm {
        /// Digests
        #[arg(required = true, value_name = "DIGEST")]
        digests: Vec<String>,
    },
    /// Set labels of content, or take them away
    Label {
        /// Its digest
        digest: String,
        /// Labels; an empty value takes one away
        #[arg(required = true, value_name = "LABEL=VALUE")]
        labels: Vec<Label>,
    },
    /// Change a copy of content in an editor; prints the new digest
    Edit(EditArgs),
    /// List ingests: content that is on its way in
    #[command(after_help = format::help(fields::INGESTS))]
    Active(ActiveArgs),
    /// Store standard input as content; prints its digest
    #[command(after_help = INGEST_EXAMPLES)]
    Ingest(IngestArgs),
    /// Bring in an image's content from a registry without unpacking it
    Fetch(Box<FetchArgs>),
    /// Write a manifest or blob of a registry to standard output; no engine is needed
    FetchObject(FetchObjectArgs),
    /// Write blobs of a registry to standard output; no engine is needed
    FetchBlob(FetchBlobArgs),
    /// Send content to a registry
    PushObject(PushObjectArgs),
    /// Remove content that nothing keeps
    Prune(PruneContentArgs),
}

/// `content edit`.
#[derive(Debug, Args)]
pub(crate) struct EditArgs {
    /// Digest of what is changed
    pub(crate) digest: String,
    /// The editor, with arguments [default: $VISUAL, $EDITOR, vi]
    #[arg(long, value_name = "COMMAND")]
    pub(crate) editor: Option<String>,
    /// Refuse a result that is no JSON document
    #[arg(long)]
    pub(crate) validate: bool,
    /// Keep it from being collected (label containerd.io/gc.root)
    #[arg(long)]
    pub(crate) keep: bool,
}

/// `content active`.
#[derive(Debug, Args)]
pub(crate) struct ActiveArgs {
    /// Those whose reference matches this regular expression
    #[arg(value_name = "REGEXP")]
    pub(crate) pattern: Option<String>,
    /// What to print.
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

/// `content ingest`.
#[derive(Debug, Args)]
pub(crate) struct IngestArgs {
    /// Reference of the ingest: a name of your choice
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
    /// Refuse other than so many bytes
    #[arg(long, value_name = "BYTES")]
    pub(crate) expected_size: Option<u64>,
    /// Refuse other content
    #[arg(long, value_name = "DIGEST")]
    pub(crate) expected_digest: Option<Digest>,
    /// Label of the content
    #[arg(long, value_name = "LABEL[=VALUE]")]
    pub(crate) label: Vec<Label>,
    /// Keep it from being collected (label containerd.io/gc.root)
    #[arg(long)]
    pub(crate) keep: bool,
}

/// `content fetch`.
#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    /// Image, as [REGISTRY/]REPOSITORY[:TAG][@DIGEST]
    #[arg(value_name = "IMAGE")]
    pub(crate) reference: Reference,
    /// Which manifests.
    #[command(flatten)]
    pub(crate) platforms: PlatformsArgs,
    /// Label of the image
    #[arg(long, value_name = "LABEL[=VALUE]")]
    pub(crate) label: Vec<Label>,
    /// Layers that are fetched at once [default: the engine's choice]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_concurrent_downloads: Option<u32>,
    /// No progress: print only the image's name and digest
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Who we are there.
    #[command(flatten)]
    pub(crate) login: LoginArgs,
}

/// `content fetch-object`.
#[derive(Debug, Args)]
pub(crate) struct FetchObjectArgs {
    /// Where, as REGISTRY/REPOSITORY[:TAG][@DIGEST]
    pub(crate) reference: Reference,
    /// Digest of what is fetched [default: what REFERENCE stands for]
    #[arg(value_name = "DIGEST")]
    pub(crate) object: Option<Digest>,
    /// Who we are there.
    #[command(flatten)]
    pub(crate) login: LoginArgs,
}

/// `content fetch-blob`.
#[derive(Debug, Args)]
pub(crate) struct FetchBlobArgs {
    /// Where, as REGISTRY/REPOSITORY
    pub(crate) reference: Reference,
    /// Digests of what is fetched
    #[arg(required = true, value_name = "DIGEST")]
    pub(crate) digests: Vec<Digest>,
    /// Accepted: a registry's blobs have no type.
    #[arg(long, hide = true)]
    media_type: Option<String>,
    /// Who we are there.
    #[command(flatten)]
    pub(crate) login: LoginArgs,
}

/// `content push-object`.
#[derive(Debug, Args)]
pub(crate) struct PushObjectArgs {
    /// Where to, as REGISTRY/REPOSITORY[:TAG]; a tag is for manifests
    pub(crate) reference: Reference,
    /// Digest of what is sent
    pub(crate) digest: String,
    /// Its media type: those of manifests and indexes are sent as such, others as blobs
    pub(crate) media_type: String,
    /// Who we are there.
    #[command(flatten)]
    pub(crate) login: LoginArgs,
}

/// `content prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneContentArgs {
    /// What else to remove first.
    #[command(subcommand)]
    pub(crate) verb: Option<PruneVerb>,
    /// Remove nothing, only tell
    #[arg(long, visible_alias = "dry", global = true)]
    pub(crate) dry_run: bool,
    /// Do not wait for the collection
    #[arg(long, global = true)]
    pub(crate) r#async: bool,
}

/// `content prune ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum PruneVerb {
    /// Take away what lets manifests keep their layers, then what nothing keeps: trees that are unpacked stay
    References,
}
