//! `daemon`, `shim`, `completion`: the verbs that are no client of the engine.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::CommandFactory;
use runtime_daemon::{Budget, DaemonConfig};

use crate::args::{Cli, CompletionArgs, DaemonArgs, Global, ShimArgs};
use crate::error::CliError;
use crate::output;
use crate::start;

/// Where hosts.toml files are looked for, as containerd and nerdctl do.
pub(crate) const HOSTS_DIRS: [&str; 2] = ["/etc/containerd/certs.d", "/etc/docker/certs.d"];

/// What the log shows unless `WINDLASS_LOG` says otherwise.
const LOG_DEFAULT: &str = "info";

/// `daemon`: serves until SIGTERM or SIGINT.
///
/// # Errors
/// [`CliError::Daemon`].
pub(crate) fn daemon(global: &Global, args: &DaemonArgs) -> Result<(), CliError> {
    if args.background {
        // The terminal of the command that needs us is not ours: its Ctrl-C and its end do not concern us.
        storage_sys::process::new_session().map_err(|source| CliError::Process("a session", source))?;
    }
    log();
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let address = absolute(&global.socket());
    let config = DaemonConfig {
        root: absolute(global.root()),
        state: absolute(global.state()),
        address: address.clone(),
        exe: start::own_program().map_err(CliError::Start)?,
        hosts_dirs: HOSTS_DIRS.iter().map(PathBuf::from).collect(),
        budget: args
            .keep_storage
            .map(|keep_bytes| Budget { keep_bytes, above_bytes: args.high_water.unwrap_or(keep_bytes) }),
    };
    let background = args.background;
    let ready = move || {
        if background {
            // Whoever started us may be gone; we are ready all the same.
            let mut out = io::stdout().lock();
            let _ = writeln!(out, "{}", start::READY).and_then(|()| out.flush());
        } else {
            output::note(&format!("windlass: listening on {}", address.display()));
        }
    };
    runtime_daemon::serve(config, ready).map_err(CliError::Daemon)
}

/// Sends the log to standard error, as `WINDLASS_LOG` filters it (`tracing_subscriber`'s syntax).
fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("WINDLASS_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(LOG_DEFAULT));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && output::colours())
        .init();
}

/// `shim`: monitors the container of a bundle until it ends.
pub(crate) fn shim(args: &ShimArgs) -> ExitCode {
    runtime_shim::main(&args.bundle)
}

/// `completion`: the script, on standard output.
///
/// # Errors
/// [`CliError::Output`].
pub(crate) fn completion(args: &CompletionArgs) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "windlass", &mut script);
    output::print_bytes(&script)
}
