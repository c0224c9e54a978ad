//! containerd's shim: `containerd-shim-windlass-v1`, shim protocol v2 and v3 over ttrpc.
//!
//! ```text
//!  containerd or windlass --exec--> shim start: binds the socket, leaves the shim behind, prints the address
//!                         --ttrpc-> shim: Create, Start, Exec, Kill, Wait, Delete, ... ; events go the other way
//!                         --exec--> shim delete: takes away what a killed shim left behind
//! ```
//! One process serves a container, or all of a pod ([`start`]). It outlives the daemon that started it; a daemon that
//! comes back connects to the same socket and finds every state and every exit status ([`process`]).
//!
//! Threads, no event loop: one that reaps ([`reaper`]), one that tells events ([`publisher`]), one that announces ends,
//! and one for each call at work and each stream copied. Stacks are small, and only what is touched is memory.
//!
//! Not here: `windlass run`'s shim, which hands the client's own descriptors through (the modules beside this one).
mod adopt;
mod args;
mod begin;
mod cgroup;
mod container;
mod delete;
mod life;
mod logger;
mod oom;
mod process;
mod publisher;
mod reaper;
mod service;
mod start;
mod stats;
mod streams;

use std::io::{self, Write};
use std::process::ExitCode;

use args::{Action, Args};

/// File name of the shim's program: containerd derives it from the runtime's name, [`RUNTIME_NAME`].
pub const PROGRAM_NAME: &str = "containerd-shim-windlass-v1";

/// The runtime's name in containerd.
pub const RUNTIME_NAME: &str = "io.containerd.windlass.v1";

/// Environment variable that names the directory of shims' sockets; `/run/containerd/s` without it.
pub const SOCKETS_VARIABLE: &str = "WINDLASS_SHIM_SOCKETS";

/// Environment variable that names the OCI runtime where a task's options name none.
pub const RUNTIME_VARIABLE: &str = "WINDLASS_OCI_RUNTIME";

/// Stack of a thread, in bytes.
const THREAD_STACK_BYTES: usize = 256 * 1024;

/// Whether this program was called by the name of containerd's shim.
pub fn is_called() -> bool {
    std::env::args_os()
        .next()
        .is_some_and(|name| std::path::Path::new(&name).file_name().is_some_and(|name| name == PROGRAM_NAME))
}

/// The program `containerd-shim-windlass-v1`; `words` are its arguments without its name.
///
/// To be called first thing in a process of its own, while that has one thread.
pub fn main(words: impl IntoIterator<Item = String>) -> ExitCode {
    let outcome = Args::parse(words).map_err(Box::from).and_then(|args| match args.action {
        Action::Version => say(&format!("{PROGRAM_NAME}:\n  Version:  {}\n", env!("CARGO_PKG_VERSION"))),
        Action::Start => start::start(&args).and_then(|address| say(&address)),
        Action::Delete => delete::delete(&args).and_then(|response| Ok(io::stdout().write_all(&response)?)),
        Action::Serve => service::serve(&args),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{PROGRAM_NAME}: {}", container::words(&*error));
            ExitCode::FAILURE
        }
    }
}

fn say(words: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut out = io::stdout().lock();
    out.write_all(words.as_bytes())?;
    Ok(out.flush()?)
}

/// Starts a small thread.
fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(THREAD_STACK_BYTES).spawn(work).map(drop)
}
