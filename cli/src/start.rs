//! Starting the engine when a command needs it and none answers.
//!
//! `connect -> nobody? -> lock STATE/start.lock -> connect again -> start -> "ready" -> connect`. Two commands at once end
//! up with one engine: the second waits for the lock and then finds the first one's engine. An engine that somebody
//! starts by hand at the same moment wins by the lock on the root; then ours ends, and the other is waited for.
//!
//! Not here: what an engine does to be ready (`runtime-daemon`).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::args::Global;
use crate::error::{CliError, StartError};

/// Longest path of a socket, in bytes: `sun_path` of `sockaddr_un` is 108 with its final zero (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// How long an engine may take to be ready. Recovery is meant to take under a second; a loaded disk may take longer.
const READY_WAIT: Duration = Duration::from_secs(60);

/// How long somebody else's engine is waited for, once ours has ended: the other may have the root and be about to listen.
const OTHER_WAIT: Duration = Duration::from_secs(1);

/// The word an engine in the background says when it can be connected to.
pub(crate) const READY: &str = "ready";

/// Lines of the log that are shown when an engine does not start.
const LOG_LINES: usize = 10;

/// Bytes of the log that are read for them.
const LOG_TAIL_BYTES: u64 = 16 * 1024;

/// A connection to the engine behind `socket`; starts one if nobody answers, unless the user named the socket.
///
/// # Errors
/// [`CliError::Connect`] when somebody has to be there and is not; [`CliError::Start`] when no engine could be started.
pub(crate) fn connect_or_start(global: &Global, socket: &Path) -> Result<UnixStream, CliError> {
    if socket.as_os_str().as_bytes().len() > SOCKET_PATH_BYTES_MAX {
        return Err(CliError::SocketPath(socket.to_owned()));
    }
    match UnixStream::connect(socket) {
        Ok(stream) => Ok(stream),
        Err(error) if is_nobody_there(&error) && !global.is_address_given() => {
            start(global, socket).map_err(CliError::Start)
        }
        Err(source) => Err(CliError::Connect { socket: socket.to_owned(), source }),
    }
}

/// No socket, or one whose engine is gone.
fn is_nobody_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn start(global: &Global, socket: &Path) -> Result<UnixStream, StartError> {
    private_directory(global.state())?;
    private_directory(global.root())?;
    // Closing the file releases the lock, also when this command is killed.
    let _lock = lock(&global.state().join("start.lock"))?;
    if let Ok(stream) = UnixStream::connect(socket) {
        return Ok(stream);
    }
    let log_path = global.root().join("daemon.log");
    let (log, log_start) = open_log(&log_path)?;
    let mut child = spawn(global, log)?;
    let ready = child.stdout.take().map(wait_ready).unwrap_or(Ready::Ended);
    let deadline = Instant::now() + OTHER_WAIT;
    loop {
        match (UnixStream::connect(socket), &ready) {
            (Ok(stream), _) => return Ok(stream),
            (Err(_), Ready::Late) => {
                let words = last_lines(&log_path, log_start);
                return Err(StartError::Late { seconds: READY_WAIT.as_secs(), words, log: log_path });
            }
            (Err(_), _) if Instant::now() >= deadline => {
                // Not left as a zombie of a command that may go on to say more.
                let _ = child.try_wait();
                let words = last_lines(&log_path, log_start);
                return Err(StartError::Ended { words, log: log_path });
            }
            (Err(_), _) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn private_directory(path: &Path) -> Result<(), StartError> {
    let failed = |source| StartError::File { what: "create the directory", path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)
}

fn lock(path: &Path) -> Result<File, StartError> {
    let failed = |what| move |source| StartError::File { what, path: path.to_owned(), source };
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed("open"))?;
    file.lock().map_err(failed("lock"))?;
    Ok(file)
}

/// The log, to be appended to, and its length before.
fn open_log(path: &Path) -> Result<(File, u64), StartError> {
    let failed = |source| StartError::File { what: "open the log", path: path.to_owned(), source };
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    Ok((file, length))
}

fn spawn(global: &Global, log: File) -> Result<Child, StartError> {
    let program = own_program()?;
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    Command::new(&program)
        .arg("--root")
        .arg(absolute(global.root()))
        .arg("--state")
        .arg(absolute(global.state()))
        .args(["daemon", "--background"])
        .env_remove("WINDLASS_ADDRESS")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|source| StartError::Spawn { program, source })
}

/// The file this program runs from.
pub(crate) fn own_program() -> Result<PathBuf, StartError> {
    let link = Path::new("/proc/self/exe");
    fs::read_link(link).map_err(|source| StartError::File { what: "read", path: link.to_owned(), source })
}

/// What became of a starting engine.
enum Ready {
    /// It said that it is ready.
    Yes,
    /// It closed its output without saying so.
    Ended,
    /// It said nothing in time.
    Late,
}

/// Waits for the word, the end of output, or the deadline, whichever is first.
fn wait_ready(stdout: ChildStdout) -> Ready {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        // Nothing but the word is expected; a limit keeps a confused engine from filling our memory.
        let read = BufReader::new(stdout.take(64)).read_line(&mut line);
        let _ = sender.send(if read.is_ok() && line.trim() == READY { Ready::Yes } else { Ready::Ended });
    });
    receiver.recv_timeout(READY_WAIT).unwrap_or(Ready::Late)
}

/// The last lines that were written to the log after `from`.
fn last_lines(path: &Path, from: u64) -> Vec<String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(LOG_TAIL_BYTES))))?;
        let mut tail = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut tail)?;
        Ok(tail)
    };
    // No log is no line: the error that is being reported is another one.
    let tail = read().unwrap_or_default();
    let lines: Vec<String> = String::from_utf8_lossy(&tail).lines().map(str::to_owned).collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_this_starts_log_is_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("daemon.log");
        let old = "from an earlier start\n";
        let new: String = (0..20).map(|n| format!("line {n}\n")).collect();
        fs::write(&path, format!("{old}{new}")).unwrap();
        let lines = last_lines(&path, old.len() as u64);
        assert_eq!(lines.len(), LOG_LINES);
        assert_eq!((lines[0].as_str(), lines[9].as_str()), ("line 10", "line 19"));
        assert!(last_lines(&path, (old.len() + new.len()) as u64).is_empty());
        assert!(last_lines(&directory.path().join("absent"), 0).is_empty());
    }

    #[test]
    fn the_lock_lets_one_in_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("start.lock");
        let held = lock(&path).unwrap();
        let second = File::open(&path).unwrap();
        assert!(second.try_lock().is_err());
        drop(held);
        assert!(second.try_lock().is_ok());
    }

    #[test]
    fn a_socket_that_nobody_answers_is_told_from_one_we_may_not_open() {
        let kind = |kind| is_nobody_there(&io::Error::from(kind));
        assert!(kind(io::ErrorKind::NotFound) && kind(io::ErrorKind::ConnectionRefused));
        assert!(!kind(io::ErrorKind::PermissionDenied));
    }
}
