//! A shim for a container that has one: `windlass run` starts its containers under a shim without this protocol, the
//! shortest way to a process. Who wants more of such a container (an exec, a pause, limits) starts a second shim in
//! its bundle and has it `Create` what runs already.
//!
//! The first shim stays what it is: it mounted the root, it reaps the first process and writes how that ended, it has the
//! OCI runtime forget the container. This one calls the runtime for what is added, reaps that, and reads how the first
//! process ended from the other's file. It may be killed, and another one started: only execs are lost with it.
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use runtime_api::containerd::task::v2 as wire;
use runtime_ttrpc::{Code, Status};
use storage_sys::process::{Pidfd, Watch, poll};

use super::container::{Container, words};
use super::process::Exit;
use super::streams::Streams;
use crate::config::{ShimConfig, exit_path};
use crate::exit::read_exit;

/// Longest time between the end of the first process and the other shim's word on it: it passes output on first.
const WORD_TIMEOUT: Duration = Duration::from_secs(15);

/// Between two looks for that word.
const WORD_INTERVAL: Duration = Duration::from_millis(5);

/// Exit status of a process of which nobody said how it ended: its shim was killed, and it with it.
const KILLED: u32 = 137;

/// The running container in the bundle of `request`, if its own shim is the other kind.
///
/// # Errors
/// `FailedPrecondition` if it does not run, `InvalidArgument` if its bundle cannot be read.
pub(crate) fn found(request: &wire::CreateTaskRequest) -> Result<Option<Arc<Container>>, Status> {
    let bundle = Path::new(&request.bundle);
    if !bundle.join("shim.json").exists() {
        return Ok(None);
    }
    let unreadable = |error: &dyn std::error::Error| Status::new(Code::InvalidArgument, words(error));
    let config = ShimConfig::read(bundle).map_err(|error| unreadable(&error))?;
    let stopped = || {
        let words = format!("container {} is not running: failed precondition", config.id);
        Status::new(Code::FailedPrecondition, words)
    };
    let container = Container::adopt(&config)?;
    let pid =
        fs::read_to_string(container.target().pid_file()).ok().and_then(|text| text.trim().parse().ok());
    let pid: u32 = pid.ok_or_else(stopped)?;
    let handle = Pidfd::open(pid).map_err(|_| stopped())?;
    // The number may be another process's by now, but not while the shim has not said that its own has ended.
    if exit_path(bundle).exists() {
        return Err(stopped());
    }
    container.init.begin_start();
    container.init.exists(pid, Streams::default());
    let _ = container.init.end_start(true);
    container.know_cgroup(pid);
    let container = Arc::new(container);
    let watched = Arc::clone(&container);
    super::thread("adopted", move || watch(&watched, &handle)).map_err(|error| unreadable(&error))?;
    Ok(Some(container))
}

/// Waits for the end of the first process, and for what its shim says of it.
fn watch(container: &Container, handle: &Pidfd) {
    let mut watches = [Watch::readable(handle.as_fd())];
    while !matches!(poll(&mut watches, None), Ok(1..)) {}
    let deadline = Instant::now() + WORD_TIMEOUT;
    let exit = loop {
        match read_exit(&container.bundle) {
            Ok(Some(exit)) => {
                let at = UNIX_EPOCH + Duration::from_millis(exit.finished_unix_ms);
                break Exit { status: exit.code.into(), at };
            }
            _ if Instant::now() >= deadline => {
                break Exit { status: KILLED, at: std::time::SystemTime::now() };
            }
            _ => std::thread::sleep(WORD_INTERVAL),
        }
    };
    container.init.ended(exit);
    container.init.answer_waiting(exit);
}
