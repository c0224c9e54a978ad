//! `exec`: a further process in a container that runs.
//!
//! The engine's shim opens three FIFOs that we make, as for any client of containerd. Each is opened by a thread here, which
//! waits for the other side; a process that never starts leaves them waiting, and they end with this program.
//!
//! `fifos -> Engine.Exec -> copy, signals, window size -> Engine.Wait -> the rest of the output -> its code`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use runtime_api::containerd::services::tasks::v1::{
    CloseIoRequest, KillRequest as TaskKillRequest, ResizePtyRequest,
};
use runtime_api::windlass::v1::{ExecRequest, ExecResponse, WaitRequest};
use storage_sys::terminal::RawMode;
use tonic::Code;

use super::environment;
use super::signals::{self, Forward, Signals};
use super::terminal::{Terminal, enter_raw};
use crate::args::{ExecArgs, Global};
use crate::client::{Client, failed};
use crate::error::{CliError, exit};
use crate::output;
use crate::verbs::containers::find;

/// Bytes copied at once.
const COPY_BYTES: usize = 64 * 1024;

/// How long the last output may take to arrive after the process has ended; a process that it left behind may hold its
/// output open for longer.
const DRAIN_WAIT: Duration = Duration::from_secs(2);

/// Runs the process; returns its exit code.
///
/// # Errors
/// [`CliError::NotStarted`] with whatever kept the process from running.
pub(crate) async fn exec(global: &Global, args: &ExecArgs) -> Result<u8, CliError> {
    begin(global, args).await.map_err(CliError::before_start)
}

async fn begin(global: &Global, args: &ExecArgs) -> Result<u8, CliError> {
    let terminal = args.tty.then(|| std::env::var("TERM").unwrap_or_else(|_| "xterm".to_owned()));
    let env = environment::collect(&args.env_file, &args.env, terminal)?;
    let client = Client::connect(global).await?;
    let id = find(&client, args.id()).await?.id;
    let mut request = ExecRequest {
        id: id.clone(),
        exec_id: args.exec_id.clone().unwrap_or_default(),
        args: args.command().to_vec(),
        env,
        cwd: args.cwd.clone().unwrap_or_default(),
        user: args.user.clone().unwrap_or_default(),
        terminal: args.tty,
        privileged: args.privileged,
        ..ExecRequest::default()
    };
    if args.detach {
        let started = ask(&client, request).await?;
        return match started {
            Ok(started) => output::print(&format!("{}\n", started.exec_id)).map(|()| exit::OK),
            Err(code) => Ok(code),
        };
    }
    // From here on no signal may end us without the process having had it.
    let signals = Signals::listen().map_err(|source| CliError::Process("signals", source))?;
    let fifos = Fifos::make(args).map_err(|source| CliError::Process("pipes for the process", source))?;
    fifos.name_in(&mut request);
    if args.tty {
        let size = Terminal::size();
        (request.rows, request.columns) = (size.rows.into(), size.columns.into());
    }
    let streams = fifos.open();
    match ask(&client, request).await? {
        Ok(started) => attend(&client, &id, &started, args, signals, streams).await,
        Err(code) => Ok(code),
    }
}

/// Asks for the process; `Err` with an exit code when there is no such program, which has been told.
async fn ask(client: &Client, request: ExecRequest) -> Result<Result<ExecResponse, u8>, CliError> {
    let what = format!("run a process in container {}", request.id);
    match client.lives().exec(request).await {
        Ok(started) => Ok(Ok(started.into_inner())),
        Err(status) => match code_of(status.code(), status.message()) {
            Some(code) => {
                output::note(&format!("windlass: {}", output::printable(status.message())));
                Ok(Err(code))
            }
            None => Err(failed(what)(status)),
        },
    }
}

/// 127 or 126 for a program that is not there or cannot be executed; the words are those of the kernel and of runtimes.
fn code_of(code: Code, message: &str) -> Option<u8> {
    if !matches!(
        code,
        Code::Internal | Code::Unknown | Code::NotFound | Code::InvalidArgument | Code::FailedPrecondition
    ) {
        return None;
    }
    let is_about_program =
        message.contains("exec") || message.contains("program") || message.contains("executable");
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    match is_about_program {
        true if says(&[
            "executable file not found",
            "no such file or directory",
            "No such file or directory",
        ]) =>
        {
            Some(127)
        }
        true if says(&["permission denied", "Permission denied", "exec format error", "is a directory"]) => {
            Some(126)
        }
        _ => None,
    }
}

/// Stands between the process and the user until it has ended.
async fn attend(
    client: &Client,
    id: &str,
    started: &ExecResponse,
    args: &ExecArgs,
    mut signals: Signals,
    streams: Streams,
) -> Result<u8, CliError> {
    let raw: Option<RawMode<'static>> = if args.tty { enter_raw() } else { None };
    let request = WaitRequest { id: id.to_owned(), exec_id: started.exec_id.clone() };
    let mut lives = client.lives();
    let mut ended = std::pin::pin!(lives.wait(request));
    let mut input_ended = std::pin::pin!(streams.input_ended);
    let mut input_open = true;
    let mut forward = Forward::new(started.pid);
    let outcome = loop {
        tokio::select! {
            outcome = &mut ended => break outcome,
            _ = &mut input_ended, if input_open => {
                input_open = false;
                close_input(client, id, &started.exec_id).await;
            }
            signal = signals.next() => match signal {
                signals::WINDOW_CHANGED if args.tty => resize(client, id, &started.exec_id).await,
                signals::WINDOW_CHANGED => {}
                signal => deliver(client, id, &started.exec_id, &mut forward, signal).await,
            },
        }
    };
    for output in streams.outputs {
        // Late output belongs to a process that was left behind.
        let _ = output.recv_timeout(DRAIN_WAIT);
    }
    drop(raw);
    let ended = outcome.map_err(failed(format!("wait for a process of container {id}")))?.into_inner();
    if !ended.error.is_empty() {
        output::note(&format!("windlass: {}", output::printable(&ended.error)));
    }
    Ok(u8::try_from(ended.exit_code).unwrap_or(u8::MAX))
}

/// The process has no more input; one that has ended meanwhile needs none.
async fn close_input(client: &Client, id: &str, exec: &str) {
    let request = CloseIoRequest { container_id: id.to_owned(), exec_id: exec.to_owned(), stdin: true };
    if let Err(error) = client.tasks().close_io(request).await {
        tracing::debug!(%error, "the input of a process was not closed");
    }
}

async fn resize(client: &Client, id: &str, exec: &str) {
    let size = Terminal::size();
    let request = ResizePtyRequest {
        container_id: id.to_owned(),
        exec_id: exec.to_owned(),
        width: size.columns.into(),
        height: size.rows.into(),
    };
    if let Err(error) = client.tasks().resize_pty(request).await {
        tracing::debug!(%error, "a terminal keeps its size");
    }
}

async fn deliver(client: &Client, id: &str, exec: &str, forward: &mut Forward, signal: i32) {
    let action = forward.decide(signal, std::time::Instant::now());
    if let Some(hint) = action.hint {
        output::note(&format!("windlass: {hint}"));
    }
    let request = TaskKillRequest {
        container_id: id.to_owned(),
        exec_id: exec.to_owned(),
        signal: u32::try_from(action.signal).unwrap_or(0),
        all: false,
    };
    if let Err(error) = client.tasks().kill(request).await {
        tracing::debug!(%error, "a signal was not delivered");
    }
}

/// FIFOs in a directory of ours, which goes when they have been opened by both sides, and at the latest with us.
struct Fifos {
    directory: PathBuf,
    stdin: Option<PathBuf>,
    stdout: PathBuf,
    stderr: Option<PathBuf>,
}

/// The ends that are ours.
struct Streams {
    /// Each says when its stream has ended.
    outputs: Vec<mpsc::Receiver<()>>,
    /// Our standard input has ended.
    input_ended: tokio::sync::oneshot::Receiver<()>,
    _directory: Fifos,
}

impl Fifos {
    fn make(args: &ExecArgs) -> io::Result<Self> {
        let directory = storage_sys::fifo::private_directory("windlass-exec")?;
        let fifo = |name: &str| -> io::Result<PathBuf> {
            let path = directory.join(name);
            storage_sys::fifo::make(&path)?;
            Ok(path)
        };
        let stdin = if args.interactive { Some(fifo("stdin")?) } else { None };
        let stdout = fifo("stdout")?;
        let stderr = if args.tty { None } else { Some(fifo("stderr")?) };
        Ok(Self { directory, stdin, stdout, stderr })
    }

    fn name_in(&self, request: &mut ExecRequest) {
        let name =
            |path: Option<&Path>| path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        request.stdin = name(self.stdin.as_deref());
        request.stdout = name(Some(&self.stdout));
        request.stderr = name(self.stderr.as_deref());
    }

    fn open(self) -> Streams {
        let mut outputs = vec![copy_out(self.stdout.clone(), io::stdout())];
        outputs.extend(self.stderr.clone().map(|path| copy_out(path, io::stderr())));
        let (sender, input_ended) = tokio::sync::oneshot::channel();
        if let Some(path) = self.stdin.clone() {
            std::thread::spawn(move || {
                copy_in(&path);
                // Nobody listens any more when the process has ended.
                let _ = sender.send(());
            });
        } else {
            // Held, so that it does not end: a process without input has none to be closed.
            std::mem::forget(sender);
        }
        Streams { outputs, input_ended, _directory: self }
    }
}

impl Drop for Fifos {
    fn drop(&mut self) {
        // In a directory for temporary things: what is left goes at the next boot.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn copy_out(path: PathBuf, mut to: impl Write + Send + 'static) -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; COPY_BYTES];
        // Opening waits for the shim.
        let Ok(mut from) = File::open(path) else { return };
        loop {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) if to.write_all(&buffer[..count]).and_then(|()| to.flush()).is_ok() => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Our own reader went away: the process learns of it by SIGPIPE.
                Ok(_) | Err(_) => break,
            }
        }
        drop(sender);
    });
    receiver
}

fn copy_in(path: &Path) {
    let Ok(mut to) = File::options().write(true).open(path) else { return };
    let mut from = io::stdin();
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) if to.write_all(&buffer[..count]).is_ok() => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_127_and_one_that_cannot_be_executed_126() {
        for (message, code) in [
            ("OCI runtime exec failed: exec: \"nope\": executable file not found in $PATH", Some(127)),
            ("exec /bin/x: no such file or directory", Some(127)),
            ("exec /etc/passwd: permission denied", Some(126)),
            ("task web not found", None),
        ] {
            assert_eq!(code_of(Code::Internal, message), code, "{message}");
        }
        assert_eq!(code_of(Code::Unavailable, "exec: no such file or directory"), None);
    }
}
