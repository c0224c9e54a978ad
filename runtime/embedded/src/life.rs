//! Containers from `create` to `delete`.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::signal::Signal;
use libcontainer::syscall::syscall::SyscallType;
use storage_sys::process::{ChildExit, Pidfd, Watch, become_subreaper, poll};

use crate::args::{Args, CreateArgs, KillArgs, RunArgs};
use crate::error::EmbeddedError;

/// Longest time that processes may take to be gone after they were killed, before a deletion goes on.
const DEATH_TIMEOUT: Duration = Duration::from_secs(10);

const SIGKILL: i32 = 9;

/// Makes a container; returns the id of its process.
pub(crate) fn create(args: &Args, create: &CreateArgs) -> Result<Option<i32>, EmbeddedError> {
    let what = "create";
    // Relative names are the caller's: the library changes directory on its way.
    let console = create.console_socket.as_deref().map(absolute);
    let bundle = absolute(&create.bundle);
    let container = ContainerBuilder::new(create.id.clone(), SyscallType::default())
        .with_root_path(args.root.clone())
        .and_then(|builder| builder.with_pid_file(create.pid_file.as_deref().map(absolute)))
        .map_err(EmbeddedError::container(what))?
        .with_console_socket(console)
        .with_preserved_fds(create.preserve_fds)
        .validate_id()
        .map_err(EmbeddedError::container(what))?
        .as_init(bundle)
        .with_systemd(args.systemd_cgroup)
        .with_detach(true)
        .with_no_pivot(create.no_pivot)
        .build()
        .map_err(EmbeddedError::container(what))?;
    Ok(container.pid().map(|pid| pid.as_raw()))
}

/// Makes a container, starts it, and waits for its end unless detached. Returns the exit code.
pub(crate) fn run(args: &Args, run: &RunArgs) -> Result<u8, EmbeddedError> {
    if !run.detach {
        become_subreaper().map_err(EmbeddedError::Wait)?;
    }
    let pid = create(args, &run.create)?;
    let id = &run.create.id;
    if let Err(error) = start(args, id) {
        // What failed is told; that it could not be taken away either would only hide it.
        let _ = delete(args, id, true);
        return Err(error);
    }
    if run.detach {
        return Ok(0);
    }
    let code = wait(pid)?;
    if !run.keep {
        delete(args, id, true)?;
    }
    Ok(code)
}

/// Waits for a process that became a child of this one; returns what a shell would.
pub(crate) fn wait(pid: Option<i32>) -> Result<u8, EmbeddedError> {
    let pid = pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
    loop {
        let Some(ended) = storage_sys::child::peek_ended().map_err(EmbeddedError::Wait)? else {
            return Ok(0);
        };
        let exit = storage_sys::child::reap(ended).map_err(EmbeddedError::Wait)?;
        if let Some(exit) = exit.filter(|_| ended == pid) {
            let code = match exit {
                ChildExit::Exited(code) => code & 0xff,
                ChildExit::Signaled(signal) => 128 + (signal & 0x7f),
            };
            return Ok(u8::try_from(code).unwrap_or(u8::MAX));
        }
    }
}

/// The container `id`.
pub(crate) fn load(args: &Args, id: &str) -> Result<Container, EmbeddedError> {
    let directory = args.root.join(id);
    // An id is one name: anything else would look elsewhere.
    let is_name = !id.is_empty() && !id.contains('/') && id != "." && id != "..";
    if !is_name || !directory.is_dir() {
        return Err(EmbeddedError::NotFound { id: id.to_owned() });
    }
    Container::load(directory).map_err(EmbeddedError::container("reading the state"))
}

/// Lets the process of a created container go on.
pub(crate) fn start(args: &Args, id: &str) -> Result<(), EmbeddedError> {
    let mut container = load(args, id)?;
    if !container.can_start() {
        return Err(wrong_state("start", &container));
    }
    container.start().map_err(EmbeddedError::container("start"))
}

/// Sends a signal.
pub(crate) fn kill(args: &Args, kill: &KillArgs) -> Result<(), EmbeddedError> {
    let mut container = load(args, &kill.id)?;
    let number = number(&kill.signal)?;
    if kill.all {
        let signal = Signal::try_from(number).map_err(|_| no_signal(&kill.signal))?;
        return container.kill(signal, true).map_err(EmbeddedError::container("kill"));
    }
    if !container.can_kill() {
        return Err(wrong_state("kill", &container));
    }
    // By hand: the library would note that the container has stopped, whatever the signal.
    let pid = container.pid().and_then(|pid| u32::try_from(pid.as_raw()).ok()).unwrap_or(0);
    let sent = Pidfd::open(pid).and_then(|process| process.signal(number));
    if sent.is_err() {
        return Err(wrong_state("kill", &container));
    }
    if number == SIGKILL && container.can_resume() {
        // Where cgroups are v1, nothing dies while it is frozen.
        container.resume().map_err(EmbeddedError::container("resume"))?;
    }
    Ok(())
}

/// Number of a signal that is named or numbered; real-time ones by number.
fn number(word: &str) -> Result<i32, EmbeddedError> {
    if let Ok(number) = word.parse::<i32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(no_signal(word)) };
    }
    // The library knows the names, and keeps the numbers to itself.
    let wanted = Signal::try_from(word).map_err(|_| no_signal(word))?;
    (1..=31)
        .find(|&number| {
            Signal::try_from(number).is_ok_and(|signal| format!("{signal:?}") == format!("{wanted:?}"))
        })
        .ok_or_else(|| no_signal(word))
}

fn no_signal(word: &str) -> EmbeddedError {
    EmbeddedError::Word { kind: "signal", word: word.to_owned() }
}

/// Takes a container away.
pub(crate) fn delete(args: &Args, id: &str, force: bool) -> Result<(), EmbeddedError> {
    let mut container = match load(args, id) {
        Ok(container) => container,
        Err(EmbeddedError::NotFound { .. }) if force => return Ok(()),
        // A state that was only half made.
        Err(EmbeddedError::Container { .. }) if force => return forget(&args.root.join(id)),
        Err(error) => return Err(error),
    };
    let process = container.pid().and_then(|pid| u32::try_from(pid.as_raw()).ok()).map(Pidfd::open);
    let ends = force || container.status() == libcontainer::container::ContainerStatus::Created;
    if ends && let Some(Ok(process)) = process {
        // Killed and awaited first: a cgroup with processes in it cannot be removed.
        let _ = process.signal(SIGKILL);
        if container.can_resume() {
            let _ = container.resume();
        }
        await_end(&process);
    }
    container.delete(force).map_err(EmbeddedError::container("delete"))
}

fn await_end(process: &Pidfd) {
    let deadline = Instant::now() + DEATH_TIMEOUT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut watches = [Watch::readable(process.as_fd())];
        match poll(&mut watches, Some(left)) {
            Ok(0) if !left.is_zero() => {}
            _ => return,
        }
    }
}

fn forget(directory: &Path) -> Result<(), EmbeddedError> {
    std::fs::remove_dir_all(directory)
        .map_err(|source| EmbeddedError::Read { path: directory.to_owned(), source })
}

/// Stops every process where it is.
pub(crate) fn pause(args: &Args, id: &str) -> Result<(), EmbeddedError> {
    let mut container = load(args, id)?;
    if !container.can_pause() {
        return Err(wrong_state("pause", &container));
    }
    container.pause().map_err(EmbeddedError::container("pause"))
}

/// Lets paused processes go on.
pub(crate) fn resume(args: &Args, id: &str) -> Result<(), EmbeddedError> {
    let mut container = load(args, id)?;
    if !container.can_resume() {
        return Err(wrong_state("resume", &container));
    }
    container.resume().map_err(EmbeddedError::container("resume"))
}

pub(crate) fn wrong_state(what: &'static str, container: &Container) -> EmbeddedError {
    let status = container.status().to_string().to_lowercase();
    EmbeddedError::State { what, id: container.id().to_owned(), status }
}

/// `path` from the root on, whether or not it exists.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_go_by_number_and_by_name() {
        for (word, expected) in [("9", 9), ("KILL", 9), ("SIGTERM", 15), ("sigusr1", 10), ("64", 64)] {
            assert_eq!(number(word).unwrap(), expected, "{word}");
        }
        for word in ["0", "65", "-1", "SIGNAL", ""] {
            assert!(number(word).is_err(), "{word}");
        }
    }

    #[test]
    fn an_id_that_is_a_path_finds_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let words = ["runc", "--root", directory.path().to_str().unwrap(), "list"];
        let args = <Args as clap::Parser>::try_parse_from(words).unwrap();
        for id in ["", ".", "..", "../x", "a/b"] {
            assert!(matches!(load(&args, id), Err(EmbeddedError::NotFound { .. })), "{id}");
        }
    }
}
