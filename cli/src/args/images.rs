//! The command line of `images`, `pull` and `push`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use storage_model::{Platform, Reference};

use super::format::{self, fields};
use super::lazy::LazyArgs;
use super::list::FilteredArgs;
use super::registry::{CtrArgs, LoginArgs, PlatformsArgs, SnapshotterArgs};
use super::value::{Label, age};

pub(super) const PULL_EXAMPLES: &str = "\
Examples:
  windlass pull alpine
  windlass pull --platform linux/arm64 docker.io/library/debian:bookworm
  windlass pull -u me registry.example.com/team/app:1.0
  windlass pull --plain-http registry.lan:5000/app

Names are completed as Docker completes them: alpine is docker.io/library/alpine:latest.
Logins in $DOCKER_CONFIG or ~/.docker/config.json are used. A pull that was interrupted
goes on where it stopped when it is asked for again.";

pub(super) const PUSH_EXAMPLES: &str = "\
Examples:
  windlass push registry.example.com/team/app:1.0
  windlass push registry.example.com/team/base:stable debian
  windlass push --all-platforms localhost:5000/mirror/alpine alpine

Only what the registry has not is sent; layers it has in another repository are mounted from there.
The tag is written last.";

const IMPORT_EXAMPLES: &str = "\
Examples:
  windlass images import app.tar
  docker save app:1 | windlass images import -
  windlass images import --index-name localhost/bundle:1 layout.tar

OCI layouts and `docker save` archives are read, compressed or not, as a stream.";

const EXPORT_EXAMPLES: &str = "\
Examples:
  windlass images export alpine.tar alpine
  windlass images export - alpine debian | docker load
  windlass images export --all-platforms both.tar alpine";

/// `images ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImagesVerb {
    /// List images
    #[command(visible_alias = "list", after_help = format::help(fields::IMAGES))]
    Ls(FilteredArgs),
    /// Bring an image in from a registry
    #[command(after_help = PULL_EXAMPLES)]
    Pull(Box<PullArgs>),
    /// Send an image to a registry
    #[command(after_help = PUSH_EXAMPLES)]
    Push(Box<PushArgs>),
    /// Bring images in from an archive
    #[command(after_help = IMPORT_EXAMPLES)]
    Import(Box<ImportArgs>),
    /// Write images into an archive
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(ExportArgs),
    /// Give an image further names
    Tag(TagArgs),
    /// Set labels of an image, or take them away
    Label(LabelImageArgs),
    /// Remove images by name, then what only they kept
    #[command(visible_aliases = ["remove", "delete", "del"])]
    Rm(RemoveImagesArgs),
    /// Say which images are complete and unpacked
    #[command(after_help = format::help(fields::IMAGE_CHECKS))]
    Check(CheckImagesArgs),
    /// Show what each layer of an unpacked image takes on the disk
    #[command(after_help = format::help(fields::USAGE))]
    Usage(UsageImageArgs),
    /// Show an image: config, and everything it is made of as a tree
    #[command(visible_alias = "i")]
    Inspect(InspectArgs),
    /// Mount an image's tree
    Mount(MountArgs),
    /// Take such a mount away
    #[command(visible_alias = "umount")]
    Unmount(UnmountArgs),
    /// Make an image of the same trees with its layers in another compression
    Convert(ConvertArgs),
    /// Remove images that no container uses
    Prune(PruneImagesArgs),
}

/// `pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Image, as [REGISTRY/]REPOSITORY[:TAG][@DIGEST]
    #[arg(value_name = "IMAGE")]
    pub(crate) reference: Reference,
    /// Which manifests; those of further platforms are unpacked too, with --all-platforms only this machine's.
    #[command(flatten)]
    pub(crate) platforms: PlatformsArgs,
    /// Who unpacks.
    #[command(flatten)]
    pub(crate) snapshotter: SnapshotterArgs,
    /// Whether it is shown before it has arrived.
    #[command(flatten)]
    pub(crate) lazy: LazyArgs,
    /// Bring the content only; it is unpacked when it is first used
    #[arg(long)]
    pub(crate) no_unpack: bool,
    /// Label of the image
    #[arg(long, value_name = "LABEL[=VALUE]")]
    pub(crate) label: Vec<Label>,
    /// Layers that are fetched at once [default: the engine's choice]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_concurrent_downloads: Option<u32>,
    /// Print the chain ID of the unpacked image too
    #[arg(long)]
    pub(crate) print_chainid: bool,
    /// No progress: print only the image's name and digest
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Who we are there.
    #[command(flatten)]
    pub(crate) login: LoginArgs,
    /// Ctr's.
    #[command(flatten)]
    pub(crate) ctr: CtrArgs,
}

/// `push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Where to, as REGISTRY/REPOSITORY[:TAG]
    pub(crate) reference: Reference,
    /// What: a name, a digest, or the beginning of one [default: the image called like REFERENCE]
    pub(crate) image: Option<String>,
    /// Which manifests; by default all that are here.
    #[command(flatten)]
    pub(crate) platforms: PlatformsArgs,
    /// Push this manifest or index of the image instead of its target
    #[arg(long = "manifest", value_name = "DIGEST")]
    pub(crate) manifest: Option<storage_model::Digest>,
    /// Accepted: the type is that of the content.
    #[arg(long, hide = true, requires = "manifest")]
    manifest_type: Option<String>,
    /// Blobs that are sent at once [default: the engine's choice]
    #[arg(long, alias = "max-concurrent-uploads", value_name = "NUMBER")]
    pub(crate) max_concurrent_uploaded_layers: Option<u32>,
    /// No progress: print only the name and digest
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Who we are there.
    #[command(flatten)]
    pub(crate) login: LoginArgs,
    /// Ctr's.
    #[command(flatten)]
    pub(crate) ctr: CtrArgs,
}

/// `images import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The archive; - is standard input
    pub(crate) file: PathBuf,
    /// Name of the images that the archive names by tag alone [default: import-YYYY-MM-DD]
    #[arg(long, value_name = "NAME")]
    pub(crate) base_name: Option<String>,
    /// Give the archive's index as a whole this name too
    #[arg(long, value_name = "NAME")]
    pub(crate) index_name: Option<String>,
    /// Name images that have no name BASE@DIGEST
    #[arg(long)]
    pub(crate) digests: bool,
    /// With --digests, leave images alone that have a name
    #[arg(long, requires = "digests")]
    pub(crate) skip_digest_for_named: bool,
    /// Which manifests.
    #[command(flatten)]
    pub(crate) platforms: PlatformsArgs,
    /// Store the content only
    #[arg(long)]
    pub(crate) no_unpack: bool,
    /// Who unpacks.
    #[command(flatten)]
    pub(crate) snapshotter: SnapshotterArgs,
    /// Label of the images
    #[arg(long, value_name = "LABEL[=VALUE]")]
    pub(crate) label: Vec<Label>,
    /// Compress layers that are not
    #[arg(long)]
    pub(crate) compress_blobs: bool,
    /// Let names that stand for other images stand for these; without it they are an error
    #[arg(long)]
    pub(crate) replace: bool,
    /// No progress: print only names and digests
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Ctr's.
    #[command(flatten)]
    pub(crate) ctr: CtrArgs,
}

/// `images export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// File to write; - is standard output
    #[arg(value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Images, by name or digest
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// Which manifests.
    #[command(flatten)]
    pub(crate) platforms: PlatformsArgs,
    /// Leave out manifest.json, which `docker load` reads
    #[arg(long)]
    pub(crate) skip_manifest_json: bool,
    /// Leave out layers that may not be passed on
    #[arg(long)]
    pub(crate) skip_non_distributable: bool,
    /// No progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Ctr's.
    #[command(flatten)]
    pub(crate) ctr: CtrArgs,
}

/// `images tag`.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// Image, by name or digest
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Further names
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Replace images that have such a name
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Take the names as they are, without completing them
    #[arg(long)]
    pub(crate) skip_reference_check: bool,
    /// Ctr's.
    #[command(flatten)]
    pub(crate) ctr: CtrArgs,
}

/// `images label`.
#[derive(Debug, Args)]
pub(crate) struct LabelImageArgs {
    /// Image, by name or digest
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Labels; an empty value takes one away
    #[arg(value_name = "LABEL=VALUE")]
    pub(crate) labels: Vec<Label>,
    /// Take all other labels away
    #[arg(short, long)]
    pub(crate) replace_all: bool,
}

/// `images rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveImagesArgs {
    /// Images, by name or digest
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) names: Vec<String>,
    /// It is no failure when an image is not here
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Wait until what only they kept is gone; this is the default
    #[arg(long, overrides_with = "async")]
    pub(crate) sync: bool,
    /// Do not wait: what only they kept goes soon
    #[arg(long, overrides_with = "sync")]
    pub(crate) r#async: bool,
}

/// `images check`.
#[derive(Debug, Args)]
pub(crate) struct CheckImagesArgs {
    /// Which, and what to print.
    #[command(flatten)]
    pub(crate) list: FilteredArgs,
    /// Whose unpacked trees.
    #[command(flatten)]
    pub(crate) snapshotter: SnapshotterArgs,
}

/// `images usage`.
#[derive(Debug, Args)]
pub(crate) struct UsageImageArgs {
    /// Image, by name or digest
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Whose unpacked trees.
    #[command(flatten)]
    pub(crate) snapshotter: SnapshotterArgs,
}

/// `images inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Image, by name or digest
    #[arg(value_name = "IMAGE")]
    pub(crate) name: String,
    /// Show the documents in the tree as well
    #[arg(long)]
    pub(crate) content: bool,
}

/// `images mount`.
#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    /// Image, by name or digest
    #[arg(value_name = "IMAGE")]
    pub(crate) name: String,
    /// Existing directory to mount at
    pub(crate) target: PathBuf,
    /// Writable: changes go to a snapshot that `unmount` removes
    #[arg(long, visible_alias = "writable")]
    pub(crate) rw: bool,
    /// Platform of a multi-platform image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<Platform>,
    /// Who unpacks.
    #[command(flatten)]
    pub(crate) snapshotter: SnapshotterArgs,
    /// Ctr's.
    #[command(flatten)]
    pub(crate) ctr: CtrArgs,
}

/// `images unmount`.
#[derive(Debug, Args)]
pub(crate) struct UnmountArgs {
    /// Directory it is mounted at
    pub(crate) target: PathBuf,
    /// Accepted: the snapshot below always goes with its mount.
    #[arg(long, hide = true)]
    rm: bool,
}

/// `images convert`.
#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// Image, by name or digest
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Name of the new image
    #[arg(value_name = "NAME")]
    pub(crate) target: String,
    /// Compression of the layers: gzip, zstd or uncompressed
    #[arg(long, value_enum, value_name = "KIND", hide_possible_values = true)]
    pub(crate) compression: Option<LayerCompression>,
    /// The same as --compression uncompressed
    #[arg(long, conflicts_with = "compression")]
    pub(crate) uncompress: bool,
    /// Layers that are read before they have arrived, as gzip: for stargz-snapshotter and us
    #[arg(long, group = "form", conflicts_with_all = ["compression", "uncompress"])]
    pub(crate) estargz: bool,
    /// The same as zstd, for one of two families: containers (podman, buildah; the default) or stargz
    #[arg(
        long, group = "form", value_enum, value_name = "DIALECT", num_args = 0..=1, require_equals = true,
        default_missing_value = "containers", hide_possible_values = true,
        conflicts_with_all = ["compression", "uncompress"]
    )]
    pub(crate) zstd_chunked: Option<Dialect>,
    /// Tables of contents beside the image, whose layers stay: SOCI, of version 2 (the default) or 1
    #[arg(
        long, group = "form", value_name = "VERSION", num_args = 0..=1, require_equals = true,
        default_missing_value = "2", value_parser = clap::value_parser!(u8).range(1..=2),
        conflicts_with_all = ["compression", "uncompress", "level", "prioritize"]
    )]
    pub(crate) soci: Option<u8>,
    /// What is read first, put first: a file with a path a line, or a trace of `lazy trace export`
    #[arg(long, value_name = "FILE", requires = "form")]
    pub(crate) prioritize: Option<PathBuf>,
    /// Level of the compression: gzip 1 to 9, zstd 1 to 22
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) level: Option<i32>,
    /// Use OCI media types throughout
    #[arg(long)]
    pub(crate) oci: bool,
    /// Which manifests.
    #[command(flatten)]
    pub(crate) platforms: PlatformsArgs,
    /// No progress: print only the digest
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Whose zstd:chunked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dialect {
    /// podman's and buildah's
    Containers,
    /// stargz-snapshotter's
    Stargz,
}

impl ConvertArgs {
    /// The lazy form that is asked for, as the engine takes it; empty is none.
    pub(crate) fn form(&self) -> &'static str {
        match (self.estargz, self.zstd_chunked, self.soci) {
            (true, ..) => "estargz",
            (_, Some(Dialect::Containers), _) => "zstd-chunked",
            (_, Some(Dialect::Stargz), _) => "zstd-chunked=stargz",
            (.., Some(1)) => "soci=1",
            (.., Some(_)) => "soci",
            (false, None, None) => "",
        }
    }
}

/// How layers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LayerCompression {
    /// What every reader knows
    Gzip,
    /// Smaller and faster
    Zstd,
    /// Plain tar
    #[value(alias = "none")]
    Uncompressed,
}

impl LayerCompression {
    /// As the engine takes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Uncompressed => "uncompressed",
        }
    }
}

/// `images prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneImagesArgs {
    /// All of them
    #[arg(long, required_unless_present_any = ["older_than", "filters"])]
    pub(crate) all: bool,
    /// Those that were last brought in before this much time: 12h, 30d
    #[arg(long, value_name = "TIME", value_parser = age)]
    pub(crate) older_than: Option<std::time::Duration>,
    /// Those that match, as `images ls` takes it
    #[arg(value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
    /// Remove nothing, only tell
    #[arg(long, visible_alias = "dry")]
    pub(crate) dry_run: bool,
}
