//! Starting keeper and server: the same program under hidden verbs.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use storage_sys::process::{Watch, poll};

use crate::error::ClientError;
use crate::places::Places;

/// The hidden verb of the keeper.
pub const KEEPER_VERB: &str = "lazy-keeper";

/// The hidden verb of the server.
pub const SERVER_VERB: &str = "lazy-server";

/// Tells a keeper that the server with the following process id started it, to give it what another keeper had.
pub const ADOPT_FLAG: &str = "--adopt";

/// What a keeper writes to its standard output when somebody listens at the control socket.
pub(crate) const READY: &[u8] = b"ready\n";

/// Longest time until a keeper and its first server are up. They take some tens of milliseconds.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// Starts a keeper for `places` and returns when somebody listens at the control socket; with `adopt`, when the keeper can
/// be given what another one had.
///
/// # Errors
/// [`ClientError::Start`]; no process is left then.
pub(crate) fn keeper(places: &Places, adopt: bool) -> Result<(), ClientError> {
    let failed =
        |words: String, source| ClientError::Start { program: places.program.clone(), words, source };
    let refused = |source: io::Error| failed("the system refused".into(), Some(source));
    let mut child = command(places, KEEPER_VERB)
        .and_then(|mut command| {
            if adopt {
                command.arg(ADOPT_FLAG).arg(std::process::id().to_string());
            }
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()
        })
        .map_err(refused)?;
    if wait_ready(&mut child).map_err(refused)? {
        reap_later(child);
        return Ok(());
    }
    // It may have ended by itself already.
    let _ = child.kill();
    let status = child.wait().map_err(refused)?;
    Err(failed(last_words(places).unwrap_or_else(|| format!("it ended with {status}")), None))
}

/// A command for one of our verbs; its standard error goes to the log.
///
/// # Errors
/// Those of making the log and its directory.
pub(crate) fn command(places: &Places, verb: &str) -> io::Result<Command> {
    std::fs::create_dir_all(places.durable())?;
    let log = File::options().create(true).append(true).open(places.log())?;
    let mut command = Command::new(&places.program);
    command.arg(verb).arg("--root").arg(&places.root).arg("--state").arg(&places.state);
    command.arg("--program").arg(&places.program);
    command.stdout(Stdio::null()).stderr(log).current_dir("/");
    Ok(command)
}

fn wait_ready(child: &mut Child) -> io::Result<bool> {
    let Some(mut output) = child.stdout.take() else { return Ok(false) };
    let deadline = Instant::now() + READY_TIMEOUT;
    let mut seen = Vec::new();
    while seen.len() < READY.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let mut watches = [Watch::readable(output.as_fd())];
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

/// Waits for a keeper's end, whenever that is, so that no zombie stays.
fn reap_later(mut child: Child) {
    let reaper = std::thread::Builder::new().name("lazy-reaper".into()).stack_size(64 * 1024);
    // Without the thread a zombie stays until we end: ugly, not wrong.
    let _ = reaper.spawn(move || child.wait());
}

fn last_words(places: &Places) -> Option<String> {
    let text = std::fs::read(places.log()).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().rev().find(|line| !line.trim().is_empty()).map(|line| line.trim().to_owned())
}
