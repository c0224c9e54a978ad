//! What each request of a client does, and what it is answered.
use std::io;
use std::os::fd::OwnedFd;

use storage_sys::terminal::Size;

use super::{Answer, Shim, State};
use crate::console::Console;
use crate::protocol::{Failure, FailureKind, Phase, Request, Response, StateReport};
use crate::task::{Connect, start};

impl Shim {
    pub(super) fn answer(&mut self, id: u64, request: &Request, descriptors: Vec<OwnedFd>) -> Option<Answer> {
        match request {
            Request::StartAttached => match <[OwnedFd; 3]>::try_from(descriptors) {
                Ok(three) => self.start(id, Connect::Client(three)),
                Err(_) => Some(refused(FailureKind::BadRequest, "a start needs three descriptors".into())),
            },
            Request::StartTerminal { rows, columns } => {
                self.start(id, Connect::Terminal(Some(Size { rows: *rows, columns: *columns })))
            }
            Request::StartDetached => {
                let connect = if self.config.terminal { Connect::Terminal(None) } else { Connect::Log };
                self.start(id, connect)
            }
            Request::Attach => Some(self.lend_terminal(id)),
            Request::State => Some((Response::State(self.report()), None)),
            Request::Kill { signal, all } => Some(self.kill(*signal, *all)),
            Request::Wait => {
                if let Some(status) = &self.ended {
                    return Some((Response::Exited(status.clone()), None));
                }
                self.peers.iter_mut().filter(|peer| peer.id == id).for_each(|peer| peer.waits = true);
                None
            }
        }
    }

    fn start(&mut self, id: u64, connect: Connect) -> Option<Answer> {
        let wants_terminal = matches!(connect, Connect::Terminal(_));
        let lend = matches!(connect, Connect::Terminal(Some(_)));
        if wants_terminal != self.config.terminal {
            let words =
                if wants_terminal { "was made without a terminal" } else { "was made with a terminal" };
            return Some(refused(FailureKind::BadRequest, format!("container {} {words}", self.config.id)));
        }
        match std::mem::replace(&mut self.state, State::Moving) {
            State::Waiting(prepared) => {
                let result = (*prepared).and_then(|mut prepared| {
                    start(&self.config, &self.runtime, &mut prepared, connect).map(|work| (work, prepared))
                });
                match result {
                    Ok((work, prepared)) => {
                        self.state = State::Starting { work, prepared: Box::new(prepared), client: id, lend };
                        None
                    }
                    Err(failure) => {
                        self.fail(&failure);
                        Some((Response::Failed(failure), None))
                    }
                }
            }
            other => {
                self.state = other;
                let words = format!("container {} was started already", self.config.id);
                Some(refused(FailureKind::WrongPhase, words))
            }
        }
    }

    pub(super) fn lend_terminal(&mut self, id: u64) -> Answer {
        let lent = match self.console().map(Console::lend) {
            Some(Ok(master)) => master,
            Some(Err(_)) | None => {
                let words = format!("container {} has no terminal now", self.config.id);
                return refused(FailureKind::WrongPhase, words);
            }
        };
        self.peers.iter_mut().filter(|peer| peer.id == id).for_each(|peer| peer.holds_terminal = true);
        (Response::Done, Some(lent))
    }

    fn kill(&mut self, signal: i32, all: bool) -> Answer {
        let running = match &self.state {
            State::Running { work, .. } => work,
            State::Waiting(_) if signal == SIGKILL => {
                let mut failure = Failure::new(FailureKind::Internal, "it was killed before it was started");
                failure.exit_code = 137;
                self.fail(&failure);
                return (Response::Done, None);
            }
            // The OCI runtime hangs, on a disk that does not answer for one.
            State::Starting { work, .. } if signal == SIGKILL => {
                return match work.abort() {
                    Ok(()) => (Response::Done, None),
                    Err(error) => (Response::Failed(Failure::of(FailureKind::Internal, &error)), None),
                };
            }
            _ if self.ended.is_some() => {
                return refused(FailureKind::WrongPhase, format!("container {} has ended", self.config.id));
            }
            State::Waiting(_) | State::Starting { .. } | State::Moving => {
                let words = format!("container {} does not run yet", self.config.id);
                return refused(FailureKind::WrongPhase, words);
            }
        };
        // The end of a container's first process ends all the others.
        let result = if all && signal != SIGKILL {
            self.runtime
                .kill(&self.config.target(), signal, true)
                .map_err(|error| Failure::of(FailureKind::Internal, &error))
        } else {
            running.handle.signal(signal).map_err(|error| match error.kind() {
                io::ErrorKind::InvalidInput => {
                    Failure::new(FailureKind::BadRequest, format!("{signal} is no signal"))
                }
                _ => Failure::new(FailureKind::WrongPhase, format!("container {} has ended", self.config.id)),
            })
        };
        match result {
            Ok(()) => (Response::Done, None),
            Err(failure) => (Response::Failed(failure), None),
        }
    }

    pub(super) fn report(&self) -> StateReport {
        let (phase, pid) = match &self.state {
            _ if self.ended.is_some() => (Phase::Ended, None),
            State::Waiting(_) | State::Moving => (Phase::Waiting, None),
            State::Starting { .. } => (Phase::Starting, None),
            State::Running { work, .. } => (Phase::Running, Some(work.pid)),
        };
        StateReport { phase, pid, exit: self.ended.clone() }
    }
}

/// The signal that nothing survives.
const SIGKILL: i32 = 9;

pub(super) fn refused(kind: FailureKind, words: String) -> Answer {
    (Response::Failed(Failure::new(kind, words)), None)
}
