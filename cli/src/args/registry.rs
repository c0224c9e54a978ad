//! How a registry is spoken to, and for which platforms: what `pull`, `push` and `fetch` have in common.

use std::path::PathBuf;

use clap::Args;
use storage_model::Platform;

/// How a registry is spoken to. Whoever takes it has an argument `creds` too.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Registry options")]
pub(crate) struct RegistryArgs {
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
}

/// How a registry is spoken to, and who we are there.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Registry options")]
pub(crate) struct LoginArgs {
    /// Log in with this name; the password is asked for when it is not given
    #[arg(short = 'u', long, visible_alias = "user", value_name = "USER[:PASSWORD]")]
    pub(crate) creds: Option<String>,
    /// The rest of it.
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// Which manifests of an index.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PlatformsArgs {
    /// Platform of a multi-platform image; may be repeated [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Vec<Platform>,
    /// Every platform
    #[arg(long, conflicts_with = "platform")]
    pub(crate) all_platforms: bool,
}

impl PlatformsArgs {
    /// As the engine takes them.
    pub(crate) fn names(&self) -> Vec<String> {
        self.platform.iter().map(ToString::to_string).collect()
    }
}

/// The snapshotter of a command that unpacks.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SnapshotterArgs {
    /// Snapshotter that unpacks: overlayfs or native [default: the engine's]
    #[arg(long, env = "WINDLASS_SNAPSHOTTER", hide_env = true, value_name = "NAME")]
    pub(crate) snapshotter: Option<String>,
}

impl SnapshotterArgs {
    /// As the engine takes it.
    pub(crate) fn name(&self) -> String {
        self.snapshotter.clone().unwrap_or_default()
    }
}

/// Flags of `ctr` that choose between two ways of its own; here there is one, and it always syncs.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct CtrArgs {
    /// Accepted.
    #[arg(long, hide = true)]
    local: bool,
    /// Accepted: what is done here is always on the disk.
    #[arg(long, hide = true)]
    sync_fs: bool,
}
