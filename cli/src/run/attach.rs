//! From a shim that waits to the exit code: starting the process, and standing between it and the user.
//!
//! Without a terminal the process has our own standard descriptors and nothing passes through here; only signals do.
//! The thread that waits for the end asks over the same connection the start was asked on, before anything else, so that
//! a process that ends at once is not missed.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use runtime_api::windlass::v1::{RemoveContainerRequest, RunResponse};
use runtime_shim::{Client as Shim, ClientError, ExitStatus};
use tokio::sync::oneshot;

use super::id_file::write_pid;
use super::signals::{self, Forward, Signals};
use super::terminal::Terminal;
use crate::client::Client;
use crate::error::CliError;
use crate::output;

/// How a process is attended.
#[derive(Debug, Clone, Copy)]
pub(super) struct How<'a> {
    /// On a terminal.
    pub(super) tty: bool,
    /// Remove the container afterwards.
    pub(super) rm: bool,
    /// Write the process's id there.
    pub(super) pid_file: Option<&'a Path>,
}

/// Starts the process of `started` with our standard descriptors, or a terminal, and waits for its end.
///
/// # Errors
/// [`CliError::Shim`] when it does not start; the container is removed then. A process whose program is missing or not
/// executable is not an error but exit code 127 or 126, with words on standard error.
pub(super) async fn attach(client: &Client, started: &RunResponse, how: How<'_>) -> Result<u8, CliError> {
    // From here on no signal may end us without the process having had it.
    let mut signals = Signals::listen().map_err(|source| CliError::Process("signals", source))?;
    let socket = PathBuf::from(&started.shim_socket);
    let begun = Shim::connect(&socket).and_then(|shim| begin(shim, how.tty));
    let (shim, pid, mut terminal) = match begun {
        Ok(begun) => begun,
        Err(error) => return not_begun(client, started, error).await,
    };
    let mut ended = wait(shim);
    if let Some(path) = how.pid_file {
        write_pid(path, pid)?;
    }
    if let Some(terminal) = &mut terminal {
        terminal.connect().map_err(|source| CliError::Process("the terminal", source))?;
    }
    let mut forward = Forward::new(pid);
    let status = loop {
        tokio::select! {
            status = &mut ended => break status,
            signal = signals.next() => match (signal, &terminal) {
                (signals::WINDOW_CHANGED, Some(terminal)) => terminal.resize(),
                (signals::WINDOW_CHANGED, None) => {}
                (signal, _) => deliver(&socket, &mut forward, signal, terminal.is_some()),
            },
        }
    };
    if let Some(terminal) = terminal {
        terminal.drain();
    }
    if how.rm {
        remove(client, started).await;
    }
    match status {
        Ok(Ok(status)) => Ok(told(&status)),
        Ok(Err(source)) => Err(CliError::Shim { id: started.id.clone(), source }),
        Err(_) => {
            Err(CliError::Process("a thread that waits for the container", std::io::Error::other("it died")))
        }
    }
}

/// Joins the terminal of a container that runs already, until it has ended.
///
/// # Errors
/// [`CliError::Shim`] when it has none.
pub(super) async fn join(id: &str, socket: &Path, pid: u32) -> Result<u8, CliError> {
    let failed = |source| CliError::Shim { id: id.to_owned(), source };
    let mut signals = Signals::listen().map_err(|source| CliError::Process("signals", source))?;
    let shim = Shim::connect(socket).map_err(failed)?;
    let mut terminal = Terminal::new(shim.attach().map_err(failed)?);
    // The connection that asked for the terminal holds it; another one waits.
    let mut ended = wait(Shim::connect(socket).map_err(failed)?);
    terminal.connect().map_err(|source| CliError::Process("the terminal", source))?;
    let mut forward = Forward::new(pid);
    let status = loop {
        tokio::select! {
            status = &mut ended => break status,
            signal = signals.next() => match signal {
                signals::WINDOW_CHANGED => terminal.resize(),
                signal => deliver(socket, &mut forward, signal, true),
            },
        }
    };
    terminal.drain();
    drop(shim);
    match status {
        Ok(status) => status.map(|status| told(&status)).map_err(failed),
        Err(_) => Err(CliError::Process("a thread that waits", std::io::Error::other("it died"))),
    }
}

fn begin(shim: Shim, tty: bool) -> Result<(Shim, u32, Option<Terminal>), ClientError> {
    if tty {
        let (pid, master) = shim.start_terminal(Terminal::size())?;
        return Ok((shim, pid, Some(Terminal::new(master))));
    }
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let pid = shim.start_attached(stdin.as_fd(), stdout.as_fd(), stderr.as_fd())?;
    Ok((shim, pid, None))
}

/// Removes the container. The engine does so too when it was asked to (`--rm`), for a client that dies; done here it is
/// gone when the command ends. A failure would hide what matters more: the process's own end.
async fn remove(client: &Client, started: &RunResponse) {
    let request = RemoveContainerRequest { id: started.id.clone(), force: true };
    if let Err(error) = client.engine().remove_container(request).await {
        tracing::debug!(%error, "the container was not removed by us");
    }
}

/// A process that did not start: its container is of no use, so it goes; the code is the shim's.
async fn not_begun(client: &Client, started: &RunResponse, error: ClientError) -> Result<u8, CliError> {
    remove(client, started).await;
    match error {
        ClientError::Failed(failure) if failure.exit_code != crate::error::exit::NOT_STARTED => {
            output::note(&format!("windlass: {}", output::printable(&failure.message)));
            Ok(failure.exit_code)
        }
        source => Err(CliError::Shim { id: started.id.clone(), source }),
    }
}

/// Waits for the end on a thread: the shim's client blocks.
fn wait(shim: Shim) -> oneshot::Receiver<Result<ExitStatus, ClientError>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        // Nobody listens any more only when we are ending ourselves.
        let _ = sender.send(shim.wait());
    });
    receiver
}

/// Passes a signal on, and says or does what the user needs when the process does not listen.
fn deliver(socket: &Path, forward: &mut Forward, signal: i32, raw: bool) {
    let action = forward.decide(signal, std::time::Instant::now());
    let end = if raw { "\r" } else { "" };
    if let Some(hint) = action.hint {
        output::note(&format!("windlass: {hint}{end}"));
    }
    // The container may have ended meanwhile; then its status is on the way.
    if let Err(error) = Shim::connect(socket).and_then(|shim| shim.kill(action.signal, false)) {
        tracing::debug!(%error, "a signal was not delivered");
    }
}

/// The code of a process that ended, with words if it never ran.
fn told(status: &ExitStatus) -> u8 {
    if let Some(error) = &status.error {
        output::note(&format!("windlass: {}", output::printable(error)));
    }
    status.code
}
