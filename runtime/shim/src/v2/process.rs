//! One process: a container's first, or one that an exec added.
//!
//! ```text
//! added --start--> running --end--> stopped --delete--> gone        (an exec)
//! created --start--> running --end--> stopped --delete--> gone      (the first process; it exists when created)
//! ```
//! The status is kept until the process is deleted, and told to everyone who waits. That it ended is never announced
//! before that it started, however quick it is: while a start is under way, the end is held back until it has been told.
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use prost_types::Timestamp;
use runtime_api::containerd::task::v2 as wire;
use runtime_api::containerd::v1::types::Status as WireStatus;
use runtime_ttrpc::{Code, Status};
use storage_sys::process::{ChildExit, Pidfd};

use super::streams::{Streams, Wanted};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    /// As a shell says it: 128 + n for death by signal n.
    pub(crate) status: u32,
    pub(crate) at: SystemTime,
}

impl Exit {
    pub(crate) fn of(exit: ChildExit) -> Self {
        let status = match exit {
            ChildExit::Exited(code) => code & 0xff,
            ChildExit::Signaled(signal) => 128 + (signal & 0x7f),
        };
        Self { status: status.unsigned_abs(), at: SystemTime::now() }
    }

    pub(crate) fn timestamp(&self) -> Option<Timestamp> {
        Some(Timestamp::from(self.at))
    }
}

/// Where a process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Known; an exec's does not exist yet.
    Created,
    Running,
    Stopped,
}

/// What is to be done when a process has ended.
type Waiter = Box<dyn FnOnce(Exit) + Send>;

/// A process.
pub(crate) struct Process {
    /// The exec's id; empty for a container's first process.
    pub(crate) exec_id: String,
    pub(crate) wanted: Wanted,
    /// An exec's process as JSON.
    pub(crate) spec: Vec<u8>,
    /// Held while it is being started or deleted.
    pub(crate) work: Mutex<()>,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    pid: u32,
    handle: Option<Pidfd>,
    /// A start is under way: its end is not to be announced yet.
    starting: bool,
    announced: bool,
    exit: Option<Exit>,
    waiting: Vec<Waiter>,
    streams: Option<std::sync::Arc<Streams>>,
}

impl Process {
    pub(crate) fn new(exec_id: &str, wanted: Wanted, spec: Vec<u8>) -> Self {
        let state = State {
            phase: Phase::Created,
            pid: 0,
            handle: None,
            starting: false,
            announced: false,
            exit: None,
            waiting: Vec::new(),
            streams: None,
        };
        Self { exec_id: exec_id.to_owned(), wanted, spec, work: Mutex::default(), state: Mutex::new(state) }
    }

    /// It exists from here on.
    pub(crate) fn exists(&self, pid: u32, streams: Streams) {
        let mut state = self.lock();
        state.pid = pid;
        // Absent when it has ended already: then there is nothing to signal.
        state.handle = Pidfd::open(pid).ok();
        state.streams = Some(std::sync::Arc::new(streams));
    }

    pub(crate) fn phase(&self) -> Phase {
        self.lock().phase
    }

    pub(crate) fn pid(&self) -> u32 {
        self.lock().pid
    }

    pub(crate) fn exit(&self) -> Option<Exit> {
        self.lock().exit
    }

    pub(crate) fn streams(&self) -> Option<std::sync::Arc<Streams>> {
        self.lock().streams.clone()
    }

    /// A start begins: an end from here on is held back.
    pub(crate) fn begin_start(&self) {
        self.lock().starting = true;
    }

    /// The start is over; `told` says that it was told to have succeeded. Returns the end that is now to be announced.
    pub(crate) fn end_start(&self, told: bool) -> Option<Exit> {
        let mut state = self.lock();
        state.starting = false;
        if told && state.phase == Phase::Created {
            state.phase = Phase::Running;
        }
        state.take_announcement()
    }

    /// A start failed for a process that never existed: it has ended, with `exit`, without an announcement.
    pub(crate) fn never_ran(&self, exit: Exit) {
        let mut state = self.lock();
        state.starting = false;
        state.announced = true;
        state.exit = Some(exit);
        state.phase = Phase::Stopped;
        drop(state);
        self.answer_waiting(exit);
    }

    /// It has ended. Returns the end if it is to be announced now.
    pub(crate) fn ended(&self, exit: Exit) -> Option<Exit> {
        let mut state = self.lock();
        state.exit = Some(exit);
        state.handle = None;
        state.phase = Phase::Stopped;
        if state.starting {
            return None;
        }
        state.take_announcement()
    }

    /// Answers everyone who waits. To be called after the end has been announced.
    pub(crate) fn answer_waiting(&self, exit: Exit) {
        let waiting = std::mem::take(&mut self.lock().waiting);
        for waiter in waiting {
            waiter(exit);
        }
    }

    /// Calls `waiter` when the process has ended: now, if it has.
    pub(crate) fn when_ended(&self, waiter: impl FnOnce(Exit) + Send + 'static) {
        let mut state = self.lock();
        match state.exit.filter(|_| state.announced) {
            Some(exit) => {
                drop(state);
                waiter(exit);
            }
            None => state.waiting.push(Box::new(waiter)),
        }
    }

    /// Sends signal number `signal`.
    ///
    /// # Errors
    /// `NotFound` when it has ended, `FailedPrecondition` when it does not exist yet, `InvalidArgument` for what is no signal.
    pub(crate) fn signal(&self, signal: u32) -> Result<(), Status> {
        let state = self.lock();
        if state.pid == 0 && state.exit.is_none() {
            return Err(Status::new(Code::FailedPrecondition, "the process has not been started"));
        }
        let gone = || Status::new(Code::NotFound, "process already finished");
        let Some(handle) = state.handle.as_ref().filter(|_| state.exit.is_none()) else { return Err(gone()) };
        let number = i32::try_from(signal).unwrap_or(-1);
        handle.signal(number).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => {
                Status::new(Code::InvalidArgument, format!("{signal} is no signal"))
            }
            _ => gone(),
        })
    }

    /// What `State` answers of it; `paused` when its container is.
    pub(crate) fn report(&self, container: &str, bundle: &str, paused: bool) -> wire::StateResponse {
        let state = self.lock();
        let status = match state.phase {
            Phase::Created => WireStatus::Created,
            Phase::Running if paused => WireStatus::Paused,
            Phase::Running => WireStatus::Running,
            Phase::Stopped => WireStatus::Stopped,
        };
        wire::StateResponse {
            id: container.to_owned(),
            bundle: bundle.to_owned(),
            pid: state.pid,
            status: status.into(),
            stdin: self.wanted.stdin.clone(),
            stdout: self.wanted.stdout.clone(),
            stderr: self.wanted.stderr.clone(),
            terminal: self.wanted.terminal,
            exit_status: state.exit.map_or(0, |exit| exit.status),
            exited_at: state.exit.and_then(|exit| exit.timestamp()),
            exec_id: self.exec_id.clone(),
        }
    }

    /// The state is whole whatever a holder of the lock did.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_announcement(&mut self) -> Option<Exit> {
        let exit = self.exit.filter(|_| !self.announced)?;
        self.announced = true;
        Some(exit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32) -> Exit {
        Exit::of(ChildExit::Exited(code))
    }

    #[test]
    fn an_end_during_the_start_is_announced_after_it_and_once() {
        let process = Process::new("", Wanted::default(), Vec::new());
        process.begin_start();
        assert_eq!(process.ended(exit(3)), None, "held back");
        assert_eq!(process.end_start(true).map(|exit| exit.status), Some(3));
        assert_eq!(process.phase(), Phase::Stopped);
        assert_eq!(process.end_start(true), None, "once");
    }

    #[test]
    fn statuses_follow_the_shell() {
        for (end, status) in [
            (ChildExit::Exited(0), 0),
            (ChildExit::Exited(255), 255),
            (ChildExit::Signaled(9), 137),
            (ChildExit::Signaled(64), 192),
        ] {
            assert_eq!(Exit::of(end).status, status);
        }
    }

    #[test]
    fn a_signal_to_what_does_not_exist_or_has_ended_says_which() {
        let process = Process::new("", Wanted::default(), Vec::new());
        assert_eq!(process.signal(15).unwrap_err().code, Code::FailedPrecondition);
        process.ended(exit(0));
        assert_eq!(process.signal(15).unwrap_err().code, Code::NotFound);
    }
}
