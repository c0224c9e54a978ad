//! The command line of `run`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use storage_model::{Identifier, Platform};

use super::amounts::{restart, seconds, signal_name};
use super::lazy::LazyArgs;
use super::limits::LimitArgs;
use super::network::NetworkArgs;
use super::registry::{RegistryArgs, SnapshotterArgs};
use super::security::SecurityArgs;
use super::value::{Bind, Pair, absolute, bind, mount, tmpfs};

pub(super) const RUN_USAGE: &str = "windlass run [OPTIONS] IMAGE [COMMAND [ARG]...]";

pub(super) const RUN_EXAMPLES: &str = "\
Examples:
  windlass run --rm alpine echo hello
  windlass run --rm -t debian bash
  windlass run -d --name web -p 8080:80 -v /srv/www:/www:ro --restart always httpd
  echo 'print(6 * 7)' | windlass run --rm python python3 -
  windlass run --rm --mount type=tmpfs,dst=/scratch,options=size=64m alpine df /scratch

Networks (--net): none, the default, has loopback only; bridge reaches out, and -p publishes ports on it; host is
this machine's; container:ID is another container's; other names are CNI networks of /etc/cni/net.d.

Everything after IMAGE is the command. It replaces the image's CMD and follows its ENTRYPOINT.
Standard input, output and error are the container's. Without -t, Ctrl-C sends SIGINT to the process.";

/// `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Image, then the command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE [COMMAND [ARG]...]", hide = true)]
    words: Vec<String>,
    /// Remove the container when its process ends
    #[arg(long)]
    pub(crate) rm: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Standard input is always the container's; accepted so that -it works
    #[arg(short, long, hide = true)]
    pub(crate) interactive: bool,
    /// Print the container's id and leave it running
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Name of the container [default: one is made up]
    #[arg(long, value_name = "ID")]
    pub(crate) name: Option<Identifier>,
    /// Directory that is the root instead of an image; the first word is then the command
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = "", value_parser = any_path)]
    pub(crate) rootfs: Option<PathBuf>,
    /// Start it again when it ends: no, always, unless-stopped, on-failure[:COUNT]
    #[arg(long, value_name = "WHEN", value_parser = restart)]
    pub(crate) restart: Option<String>,
    /// Run a small first process that reaps what is left behind and passes signals on
    #[arg(long)]
    pub(crate) init: bool,
    /// Environment variable; NAME alone takes the value it has here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// File of such variables, one a line; # starts a comment line
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Directory the process starts in
    #[arg(short = 'w', long, alias = "workdir", value_name = "DIR", value_parser = absolute)]
    pub(crate) cwd: Option<String>,
    /// User and group, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Mount, as type=bind,src=/a,dst=/b,options=rbind:ro
    #[arg(long, value_name = "KEY=VALUE,...", value_parser = mount)]
    pub(crate) mount: Vec<Bind>,
    /// Bind mount
    #[arg(short, long, value_name = "SRC:DST[:ro]", value_parser = bind)]
    pub(crate) volume: Vec<Bind>,
    /// Empty directory in memory
    #[arg(long, value_name = "DST[:OPTION,...]", value_parser = tmpfs)]
    pub(crate) tmpfs: Vec<Bind>,
    /// Name or path of the OCI runtime [default: the first that works]
    #[arg(long, value_name = "RUNTIME")]
    pub(crate) runtime: Option<String>,
    /// Replace the image's entrypoint: a word, or a JSON array of words; "" is none
    #[arg(long, value_name = "WORD")]
    pub(crate) entrypoint: Option<String>,
    /// Host name in the container
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Domain name in the container
    #[arg(long, value_name = "NAME")]
    pub(crate) domainname: Option<String>,
    /// Mount the root read-only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Label of the container
    #[arg(short, long, value_name = "LABEL[=VALUE]")]
    pub(crate) label: Vec<Pair>,
    /// File of labels, one a line; # starts a comment line
    #[arg(long, value_name = "FILE")]
    pub(crate) label_file: Vec<PathBuf>,
    /// Annotation of the runtime spec
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) annotation: Vec<Pair>,
    /// Signal that `stop` sends first [default: the image's, or SIGTERM]
    #[arg(long, value_name = "SIGNAL", value_parser = signal_name)]
    pub(crate) stop_signal: Option<String>,
    /// Seconds that `stop` waits after it [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) stop_timeout: Option<u32>,
    /// Where output goes that nobody is attached to: json-file, none, or a URI (file:///PATH, binary:///PROGRAM)
    #[arg(long, value_name = "DRIVER", visible_alias = "log-uri")]
    pub(crate) log_driver: Option<String>,
    /// Option of it: max-size=10m, max-file=3
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) log_opt: Vec<Pair>,
    /// Write the process id of the container here
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Write the id of the container here; the file must not exist
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// When to ask the registry: always, missing, or never
    #[arg(long, value_enum, value_name = "WHEN", default_value_t, hide_possible_values = true)]
    pub(crate) pull: PullPolicy,
    /// No progress when the image is pulled
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Log in to the registry with this name
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub(crate) creds: Option<String>,
    /// Platform to take from a multi-platform image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<Platform>,
    /// What it may use.
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// What it may do.
    #[command(flatten)]
    pub(crate) security: SecurityArgs,
    /// Whom it reaches.
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// Who unpacks.
    #[command(flatten)]
    pub(crate) snapshotter: SnapshotterArgs,
    /// Whether it is shown before it has arrived.
    #[command(flatten)]
    pub(crate) lazy: LazyArgs,
    /// How to speak to the registry.
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

impl RunArgs {
    /// The image as it was typed; empty when a directory is the root.
    pub(crate) fn image(&self) -> &str {
        match self.root() {
            Some(_) => "",
            None => self.words.first().map_or("", String::as_str),
        }
    }

    /// The directory that is the root: that of `--rootfs DIR`, or as `ctr` has it, `--rootfs` and the first word.
    pub(crate) fn root(&self) -> Option<&Path> {
        match self.rootfs.as_deref() {
            Some(path) if path.as_os_str().is_empty() => self.words.first().map(Path::new),
            other => other,
        }
    }

    /// The command and its arguments.
    pub(crate) fn command(&self) -> &[String] {
        let given_apart = self.rootfs.as_ref().is_some_and(|path| !path.as_os_str().is_empty());
        self.words.get(usize::from(!given_apart)..).unwrap_or_default()
    }
}

/// When `run` asks the registry for its image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullPolicy {
    /// Each time, in case the tag has moved
    Always,
    /// When it is not here
    #[default]
    Missing,
    /// Not at all
    Never,
}

/// A path, or none where `--rootfs` stands alone: clap's own reader of paths refuses that.
fn any_path(text: &str) -> Result<PathBuf, std::convert::Infallible> {
    Ok(PathBuf::from(text))
}
