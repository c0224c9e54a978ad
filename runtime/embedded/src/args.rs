//! The command line: that of runc, as far as shims and the validation suites use it.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

/// Where containers' states are kept, unless told otherwise.
const ROOT: &str = "/run/windlass/oci";

/// An OCI runtime.
#[derive(Debug, Parser)]
#[command(name = "runc", version, disable_help_subcommand = true)]
pub(crate) struct Args {
    /// Where the runtime keeps the states of its containers
    #[arg(long, global = true, default_value = ROOT)]
    pub(crate) root: PathBuf,
    /// A file for errors, beside standard error
    #[arg(long, global = true)]
    pub(crate) log: Option<PathBuf>,
    /// `text` or `json`
    #[arg(long, global = true, default_value = "text")]
    pub(crate) log_format: String,
    /// Accepted for compatibility
    #[arg(long, global = true)]
    pub(crate) debug: bool,
    /// Keep cgroups through systemd
    #[arg(long, global = true)]
    pub(crate) systemd_cgroup: bool,
    /// Accepted for compatibility: it is found out
    #[arg(long, global = true)]
    pub(crate) rootless: Option<String>,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Makes a container; its process waits for `start`
    Create(CreateArgs),
    /// Makes a container and starts it
    Run(RunArgs),
    /// Lets the process of a created container go on to its program
    Start { id: String },
    /// Runs another process in a container
    Exec(ExecArgs),
    /// Sends a signal
    Kill(KillArgs),
    /// Takes a container away
    Delete {
        /// Also one that runs, which is killed
        #[arg(short, long)]
        force: bool,
        id: String,
    },
    /// Prints a container's state
    State { id: String },
    /// Stops every process where it is
    Pause { id: String },
    /// Lets paused processes go on
    Resume { id: String },
    /// Sets limits
    Update(UpdateArgs),
    /// Lists the containers
    List(ListArgs),
    /// Lists the processes of a container
    Ps {
        /// `json` or `table`
        #[arg(short, long, default_value = "table")]
        format: String,
        id: String,
    },
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct CreateArgs {
    /// Directory of the bundle; the current one without it
    #[arg(short, long, default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// Socket to which the terminal's master is sent
    #[arg(long)]
    pub(crate) console_socket: Option<PathBuf>,
    /// File for the process id
    #[arg(long)]
    pub(crate) pid_file: Option<PathBuf>,
    /// Move the root instead of pivoting
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Accepted for compatibility: the caller's keyring is kept
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
    /// Descriptors beyond standard error to pass on
    #[arg(long, default_value_t = 0)]
    pub(crate) preserve_fds: i32,
    pub(crate) id: String,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct RunArgs {
    /// Return when the process runs
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Leave the container when it has ended
    #[arg(long)]
    pub(crate) keep: bool,
    #[command(flatten)]
    pub(crate) create: CreateArgs,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ExecArgs {
    /// File with the process as JSON
    #[arg(short, long)]
    pub(crate) process: Option<PathBuf>,
    /// Return when the process runs
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Socket to which the terminal's master is sent
    #[arg(long)]
    pub(crate) console_socket: Option<PathBuf>,
    /// File for the process id
    #[arg(long)]
    pub(crate) pid_file: Option<PathBuf>,
    /// A terminal for the process
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Its working directory
    #[arg(long)]
    pub(crate) cwd: Option<PathBuf>,
    /// Variables, as KEY=VALUE
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    /// UID or UID:GID
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Further groups
    #[arg(short = 'g', long)]
    pub(crate) additional_gids: Vec<u32>,
    /// Further capabilities
    #[arg(short, long)]
    pub(crate) cap: Vec<String>,
    /// No further rights by executing
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// Descriptors beyond standard error to pass on
    #[arg(long, default_value_t = 0)]
    pub(crate) preserve_fds: i32,
    /// Although the container is paused
    #[arg(long)]
    pub(crate) ignore_paused: bool,
    pub(crate) id: String,
    /// The command
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct KillArgs {
    /// To every process of the container
    #[arg(short, long)]
    pub(crate) all: bool,
    pub(crate) id: String,
    /// A number or a name
    #[arg(default_value = "SIGTERM")]
    pub(crate) signal: String,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct UpdateArgs {
    /// File with the resources as JSON; `-` for standard input
    #[arg(short, long)]
    pub(crate) resources: Option<PathBuf>,
    /// Memory, in bytes
    #[arg(short, long)]
    pub(crate) memory: Option<i64>,
    /// Most processes
    #[arg(long)]
    pub(crate) pids_limit: Option<i64>,
    /// Weight of CPU time
    #[arg(long)]
    pub(crate) cpu_share: Option<u64>,
    /// Microseconds of CPU time a period
    #[arg(long)]
    pub(crate) cpu_quota: Option<i64>,
    /// A period, in microseconds
    #[arg(long)]
    pub(crate) cpu_period: Option<u64>,
    pub(crate) id: String,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ListArgs {
    /// `json` or `table`
    #[arg(short, long, default_value = "table")]
    pub(crate) format: String,
    /// Ids alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_fits_together() {
        Args::command().debug_assert();
    }

    #[test]
    fn shims_command_lines_are_understood() {
        let words = "runc --root /r --log /l --log-format json create --bundle /b --pid-file /p --console-socket pty-0 c1";
        let args = Args::try_parse_from(words.split(' ')).unwrap();
        assert_eq!((args.root, args.log_format.as_str()), (PathBuf::from("/r"), "json"));
        let Verb::Create(create) = args.verb else { panic!("create") };
        assert_eq!((create.id.as_str(), create.console_socket), ("c1", Some(PathBuf::from("pty-0"))));
        let words = "runc exec --detach --process /p.json --pid-file /p c1";
        assert!(
            matches!(Args::try_parse_from(words.split(' ')).unwrap().verb, Verb::Exec(exec) if exec.detach)
        );
        let words = "runc exec -t c1 ls -la --color";
        let Verb::Exec(exec) = Args::try_parse_from(words.split(' ')).unwrap().verb else { panic!("exec") };
        assert_eq!(exec.command, ["ls", "-la", "--color"]);
    }
}
