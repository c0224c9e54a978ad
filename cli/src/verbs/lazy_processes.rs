//! `lazy-keeper` and `lazy-server`: the processes behind lazy mounts. Nobody types these; see `lazy-mount`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use lazy_mount::Places;

use crate::args::Global;

/// What either is started with, beside `--root` and `--state`.
#[derive(Debug, Args)]
pub(crate) struct LazyProcessArgs {
    /// This program, to start the other one
    #[arg(long, value_name = "FILE")]
    program: PathBuf,
    /// Process id of a server whose keeper died
    #[arg(long, value_name = "PID")]
    adopt: Option<u32>,
}

/// `lazy-keeper`: until nothing is mounted lazily.
pub(crate) fn keeper(global: &Global, args: &LazyProcessArgs) -> ExitCode {
    log();
    lazy_mount::keeper_main(&places(global, args), args.adopt)
}

/// `lazy-server`: likewise.
pub(crate) fn server(global: &Global, args: &LazyProcessArgs) -> ExitCode {
    log();
    lazy_mount::server_main(&places(global, args))
}

fn places(global: &Global, args: &LazyProcessArgs) -> Places {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    Places {
        root: absolute(global.root()),
        state: absolute(global.state()),
        program: absolute(&args.program),
    }
}

/// Sends the log to standard error, a file, as `WINDLASS_LOG` filters it. Standard output is the protocol's.
fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("WINDLASS_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
}
