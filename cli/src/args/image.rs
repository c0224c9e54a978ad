//! The command line of `pull` and `images`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use storage_model::{Platform, Reference};

use super::ListArgs;

pub(super) const PULL_EXAMPLES: &str = "\
Examples:
  windlass pull alpine
  windlass pull --platform linux/arm64 docker.io/library/debian:bookworm
  windlass pull -u me registry.example.com/team/app:1.0
  windlass pull --plain-http registry.lan:5000/app

Names are completed as Docker completes them: alpine is docker.io/library/alpine:latest.
Logins in $DOCKER_CONFIG or ~/.docker/config.json are used. A pull that was interrupted
goes on where it stopped when it is asked for again.";

/// `images ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImagesVerb {
    /// List images
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Bring an image in from a registry
    #[command(after_help = PULL_EXAMPLES)]
    Pull(Box<PullArgs>),
    /// Remove images by name, then what only they kept
    #[command(visible_aliases = ["remove", "delete", "del"])]
    Rm(RemoveImagesArgs),
    /// Show an image: digests, layers, config
    #[command(visible_alias = "i")]
    Inspect(InspectArgs),
    /// Mount an image's tree read-only
    Mount(MountArgs),
    /// Take such a mount away
    #[command(visible_alias = "umount")]
    Unmount(UnmountArgs),
}

/// How a registry is spoken to.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RegistryArgs {
    /// Platform to take from a multi-platform image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<Platform>,
    /// Speak HTTP to a registry that is not on loopback
    #[arg(long)]
    pub(crate) plain_http: bool,
    /// Do not check the registry's certificate
    #[arg(short = 'k', long)]
    pub(crate) skip_verify: bool,
    /// PEM file with further certificates to trust
    #[arg(long = "tlscacert", alias = "ca-file", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Directory of HOST/hosts.toml files, as containerd reads them [default: /etc/containerd/certs.d]
    #[arg(long, value_name = "DIR")]
    pub(crate) hosts_dir: Option<PathBuf>,
    /// Read the password for --creds from standard input
    #[arg(long, requires = "creds")]
    pub(crate) password_stdin: bool,
    /// Snapshotter that unpacks [default: the engine's]
    #[arg(long, env = "WINDLASS_SNAPSHOTTER", hide_env = true, value_name = "NAME", hide = true)]
    pub(crate) snapshotter: Option<String>,
}

/// `pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Image, as [REGISTRY/]REPOSITORY[:TAG][@DIGEST]
    #[arg(value_name = "IMAGE")]
    pub(crate) reference: Reference,
    /// Log in with this name; the password is asked for when it is not given
    #[arg(short = 'u', long, value_name = "USER[:PASSWORD]")]
    pub(crate) creds: Option<String>,
    /// How to speak to the registry.
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// No progress: print only the image's name and digest
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `images rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveImagesArgs {
    /// Images, by name
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) names: Vec<String>,
    /// It is no failure when an image is not here
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// `images inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Image, by name
    #[arg(value_name = "IMAGE")]
    pub(crate) name: String,
}

/// `images mount`.
#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    /// Image, by name
    #[arg(value_name = "IMAGE")]
    pub(crate) name: String,
    /// Existing directory to mount at
    pub(crate) target: PathBuf,
}

/// `images unmount`.
#[derive(Debug, Args)]
pub(crate) struct UnmountArgs {
    /// Directory it is mounted at
    pub(crate) target: PathBuf,
}
