//! Starting a shim, from the daemon's side.
//!
//! The shim detaches itself; the daemon stays its parent for as long as it lives, so ended shims must be reaped: one
//! thread per process of ours does that for all of them.
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use storage_sys::process::{Watch, poll};

use crate::config::{log_path, socket_path};

/// A shim that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handle {
    /// Its process id.
    pub pid: u32,
    /// Its socket.
    pub socket: PathBuf,
}

/// Why there is no shim.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The program could not be started.
    #[error("cannot start the shim {exe}")]
    Start {
        /// The program.
        exe: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It ended, or did not answer in time.
    #[error("the shim of {bundle} did not come up: {words}")]
    NotReady {
        /// Its bundle.
        bundle: PathBuf,
        /// Its last words.
        words: String,
    },
}

/// Longest time a shim may take until it listens. It takes about 5 ms; a machine that swaps takes longer.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// What a shim writes when it listens.
pub(crate) const READY: &[u8] = b"ready\n";

/// Starts `<exe> shim --bundle <bundle>`, whose config was written before; returns when its socket listens.
///
/// # Errors
/// [`SpawnError`]; no process is left then.
pub fn spawn(exe: &Path, bundle: &Path) -> Result<Handle, SpawnError> {
    let failed = |source| SpawnError::Start { exe: exe.to_path_buf(), source };
    let log = File::options().create(true).append(true).open(log_path(bundle)).map_err(failed)?;
    let mut command = Command::new(exe);
    command.arg("shim").arg("--bundle").arg(bundle);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).current_dir("/");
    let mut child = command.spawn().map_err(failed)?;
    let ready = wait_ready(&mut child);
    let pid = child.id();
    if !matches!(ready, Ok(true)) {
        // It may have ended by itself already.
        let _ = child.kill();
        let status = child.wait().map_err(failed)?;
        let words = last_words(bundle).unwrap_or_else(|| format!("it ended with {status} and left no word"));
        return Err(SpawnError::NotReady { bundle: bundle.to_path_buf(), words });
    }
    reap_later(child);
    Ok(Handle { pid, socket: socket_path(bundle) })
}

fn wait_ready(child: &mut Child) -> io::Result<bool> {
    let Some(mut output) = child.stdout.take() else { return Ok(false) };
    let deadline = Instant::now() + READY_TIMEOUT;
    let mut seen = Vec::new();
    while seen.len() < READY.len() {
        let mut watches = [Watch::readable(output.as_fd())];
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        if poll(&mut watches, Some(left))? == 0 {
            continue;
        }
        let mut part = [0; 16];
        match output.read(&mut part)? {
            0 => return Ok(false),
            count => seen.extend_from_slice(&part[..count]),
        }
    }
    Ok(seen == READY)
}

fn last_words(bundle: &Path) -> Option<String> {
    let text = std::fs::read(log_path(bundle)).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().rev().find(|line| !line.trim().is_empty()).map(|line| line.trim().to_owned())
}

/// Hands `child` to the thread that waits for shims.
fn reap_later(child: Child) {
    static REAPER: OnceLock<Mutex<mpsc::Sender<Child>>> = OnceLock::new();
    let sender = REAPER.get_or_init(|| {
        let (sender, receiver) = mpsc::channel();
        let reaper = std::thread::Builder::new().name("shim-reaper".into()).stack_size(64 * 1024);
        // Without the thread ended shims stay as zombies until we end: ugly, not wrong.
        let _ = reaper.spawn(move || reap(&receiver));
        Mutex::new(sender)
    });
    let _ = sender.lock().unwrap_or_else(PoisonError::into_inner).send(child);
}

/// How often ended shims are looked for. A zombie costs nothing but its process id.
const REAP_INTERVAL: Duration = Duration::from_millis(500);

fn reap(receiver: &mpsc::Receiver<Child>) {
    let mut children: Vec<Child> = Vec::new();
    loop {
        let next = if children.is_empty() {
            receiver.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected)
        } else {
            receiver.recv_timeout(REAP_INTERVAL)
        };
        match next {
            Ok(child) => children.push(child),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
        children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}
