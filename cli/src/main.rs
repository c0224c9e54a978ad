//! `windlass`, the one binary: the command line, the engine (`daemon`), and the monitor of a container (`shim`).
//!
//! Every verb but those two and `completion` is a client of an engine's socket; the engine is started when none answers
//! (`start`). A client is one thread with a small event loop, made after the command line has been understood.
#![forbid(unsafe_code)]

mod args;
mod client;
mod error;
mod image;
mod interrupt;
mod output;
mod progress;
mod pull;
mod run;
mod start;
mod transfer;
mod verbs;
mod words;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, TasksVerb, Verb};
use crate::error::{CliError, exit};

fn main() -> ExitCode {
    if let Some(code) = other_program() {
        return code;
    }
    let cli = Cli::parse();
    let outcome = match &cli.verb {
        Verb::Shim(args) => return verbs::daemon::shim(args),
        Verb::LazyKeeper(args) => return verbs::lazy_processes::keeper(&cli.global, args),
        Verb::LazyServer(args) => return verbs::lazy_processes::server(&cli.global, args),
        Verb::Daemon(args) => verbs::daemon::daemon(&cli.global, args).map(|()| exit::OK),
        Verb::Completion(args) => verbs::daemon::completion(args).map(|()| exit::OK),
        _ => client(&cli),
    };
    let code = outcome.unwrap_or_else(|error| {
        // Nobody can be told when standard error is closed too.
        let _ = io::stderr().write_all(words::report(&error).as_bytes());
        error.exit_code()
    });
    ExitCode::from(code)
}

/// The two programs that this one also is: containerd's shim, by its name, and an OCI runtime, by its first word. Both
/// have the command lines of others, and come before anything else has happened in this process.
fn other_program() -> Option<ExitCode> {
    if runtime_shim::v2::is_called() {
        return Some(runtime_shim::v2::main(std::env::args().skip(1)));
    }
    let mut words = std::env::args_os().skip(1);
    (words.next()? == runtime_embedded::VERB).then(|| runtime_embedded::main(words.collect()))
}

/// Runs a client's verb. Threads that still copy or wait when it is done are left behind: the process ends.
fn client(cli: &Cli) -> Result<u8, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| CliError::Process("the event loop", source))?;
    let outcome = runtime.block_on(act(cli));
    runtime.shutdown_background();
    outcome
}

async fn act(cli: &Cli) -> Result<u8, CliError> {
    let global = &cli.global;
    match &cli.verb {
        Verb::Run(args) => return run::run(global, args).await,
        Verb::Attach(args) => return run::attach_to(global, args).await,
        Verb::Tasks { verb: TasksVerb::Start(args) } => return run::start(global, args).await,
        Verb::Tasks { verb: TasksVerb::Attach(args) } => return run::attach_to(global, args).await,
        Verb::Tasks { verb: TasksVerb::Exec(args) } => return run::exec(global, args).await,
        Verb::Exec(args) => return run::exec(global, args).await,
        Verb::Check(args) => return verbs::check::run(global, args).await,
        Verb::Pull(args) => pull::run(global, args).await,
        Verb::Push(args) => transfer::push(global, args).await,
        Verb::Ps(args) => verbs::containers::ps(global, args).await,
        Verb::Logs(args) => verbs::life::logs::run(global, args).await,
        Verb::Start(args) => verbs::life::start(global, args).await,
        Verb::Stop(args) => verbs::life::stop(global, args).await,
        Verb::Restart(args) => verbs::life::restart(global, args).await,
        Verb::Kill(args) => verbs::containers::kill_many(global, args).await,
        Verb::Rm(args) => verbs::containers::rm(global, args).await,
        Verb::Pause(args) => verbs::life::pause(global, args).await,
        Verb::Unpause(args) => verbs::life::unpause(global, args).await,
        Verb::Wait(args) => verbs::life::wait(global, args).await,
        Verb::Stats(args) => verbs::life::stats::run(global, args).await,
        Verb::Top(args) => verbs::life::top::run(global, args).await,
        Verb::Cp(args) => verbs::life::copy::run(global, args).await,
        Verb::Inspect(args) => verbs::life::inspect::run(global, args).await,
        Verb::Update(args) => verbs::life::update(global, args).await,
        Verb::Images { verb } => verbs::images::run(global, verb).await,
        Verb::Containers { verb } => verbs::containers::run(global, verb).await,
        Verb::Tasks { verb } => verbs::containers::tasks(global, verb).await,
        Verb::Content { verb } => verbs::content::run(global, verb).await,
        Verb::Snapshots(args) => verbs::snapshots::run(global, args).await,
        Verb::Namespaces { verb } => verbs::namespaces::run(global, verb).await,
        Verb::Leases { verb } => verbs::leases::run(global, verb).await,
        Verb::Events(args) => verbs::events::run(global, args).await,
        Verb::Plugins { verb } => verbs::plugins::run(global, verb).await,
        Verb::Lazy { verb } => verbs::lazy::run(global, verb).await,
        Verb::Gc(args) => verbs::collect::run(global, args).await,
        Verb::Why(args) => verbs::why::run(global, args).await,
        Verb::Serve(args) => verbs::serve::run(global, args).await,
        Verb::Usage(args) => verbs::usage::run(global, args).await,
        Verb::Version(args) => verbs::status::version(global, args).await,
        Verb::Info => verbs::status::info(global).await,
        // Answered in `main`, without an event loop.
        Verb::Daemon(_) | Verb::Shim(_) | Verb::LazyKeeper(_) | Verb::LazyServer(_) | Verb::Completion(_) => {
            Ok(())
        }
    }?;
    Ok(exit::OK)
}
