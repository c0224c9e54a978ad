//! The OCI runtime that is built in: libcontainer behind the command line that runc and crun have.
//!
//! ```text
//! shim --exec--> windlass oci-runtime create ID   (one thread; it makes the container's process and ends)
//!                windlass oci-runtime start ID    (the process goes on to its program)
//! ```
//! libcontainer makes processes by `clone3` and runs ordinary Rust in them, which is sound only in a process with one
//! thread. So each call is a process of its own, as runc's are, and whoever calls does not see which runtime it is.
//!
//! It runs from a read-only view of this program ([`storage_sys::sealed`]): a container cannot write to it.
//!
//! Not here: what is in a spec (`runtime-container`), who watches the process (`runtime-shim`).
#![forbid(unsafe_code)]

mod args;
mod error;
mod exec;
mod life;
mod limits;
mod log;
mod report;

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::Parser;

use args::{Args, Verb};
pub use error::EmbeddedError;

/// The first word of this program's command line that makes it an OCI runtime.
pub const VERB: &str = "oci-runtime";

/// An OCI runtime's command line; `words` are the arguments after [`VERB`].
///
/// To be called first thing in a process of its own, while that has one thread.
pub fn main(words: Vec<OsString>) -> ExitCode {
    let args = match Args::try_parse_from(std::iter::once(OsString::from("runc")).chain(words.clone())) {
        Ok(args) => args,
        Err(error) => {
            // Help and version are no errors, and go to standard output.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let outcome = seal(&args.verb, &words).and_then(|()| act(&args));
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log::error(&args, &error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Executes this program again from where it cannot be written to, unless that is so already. Only what runs inside a
/// container needs it.
fn seal(verb: &Verb, words: &[OsString]) -> Result<(), EmbeddedError> {
    let enters = matches!(verb, Verb::Create(_) | Verb::Run(_) | Verb::Exec(_));
    if !enters || storage_sys::sealed::is_sealed().map_err(EmbeddedError::Seal)? {
        return Ok(());
    }
    let program = storage_sys::sealed::program().map_err(EmbeddedError::Seal)?;
    let path = storage_sys::process::descriptor_path(program.as_fd());
    let error = Command::new(path).arg0("windlass").arg(VERB).args(words).exec();
    Err(EmbeddedError::Seal(error))
}

fn act(args: &Args) -> Result<u8, EmbeddedError> {
    match &args.verb {
        Verb::Create(create) => life::create(args, create).map(|_| 0),
        Verb::Run(run) => life::run(args, run),
        Verb::Start { id } => life::start(args, id).map(|()| 0),
        Verb::Kill(kill) => life::kill(args, kill).map(|()| 0),
        Verb::Delete { force, id } => life::delete(args, id, *force).map(|()| 0),
        Verb::Pause { id } => life::pause(args, id).map(|()| 0),
        Verb::Resume { id } => life::resume(args, id).map(|()| 0),
        Verb::Exec(exec) => exec::exec(args, exec),
        Verb::Update(update) => limits::update(args, update).map(|()| 0),
        Verb::State { id } => report::state(args, id).map(|()| 0),
        Verb::List(list) => report::list(args, list).map(|()| 0),
        Verb::Ps { format, id } => report::ps(args, id, format).map(|()| 0),
    }
}
