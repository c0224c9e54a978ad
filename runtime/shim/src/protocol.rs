//! The messages between a shim and its clients: one JSON object each, at most
//! [`MESSAGE_BYTES_MAX`](storage_sys::socket::MESSAGE_BYTES_MAX) bytes, answered in order.

use std::error::Error;

use serde::{Deserialize, Serialize};

use crate::exit::ExitStatus;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Start with the three descriptors of this message as standard input, output and error.
    StartAttached,
    /// Start on a terminal of this size; the answer carries its master.
    StartTerminal {
        /// Lines.
        rows: u16,
        /// Characters per line.
        columns: u16,
    },
    /// Start with nobody attached.
    StartDetached,
    /// Give me the terminal's master.
    Attach,
    /// How is it going?
    State,
    /// Send a signal.
    Kill {
        /// Its number.
        signal: i32,
        /// To every process of the container.
        all: bool,
    },
    /// Answer when it has ended.
    Wait,
}

/// What the shim answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Response {
    /// It runs.
    Started {
        /// Process id on this machine.
        pid: u32,
    },
    /// To `Attach` and `Kill`.
    Done,
    /// To `State`.
    State(StateReport),
    /// To `Wait`.
    Exited(ExitStatus),
    /// To anything.
    Failed(Failure),
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nobody has started it.
    Waiting,
    /// The OCI runtime is at work.
    Starting,
    /// The process runs.
    Running,
    /// The process has ended.
    Ended,
}

/// A container's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateReport {
    /// Where it is in its life.
    pub phase: Phase,
    /// Process id on this machine, while it runs.
    pub pid: Option<u32>,
    /// How it ended, when it has.
    pub exit: Option<ExitStatus>,
}

/// What kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The program is not in the image.
    ProgramNotFound,
    /// The program cannot be executed.
    ProgramNotExecutable,
    /// The image or the options are wrong: user, directory, mount.
    InvalidArgument,
    /// The root could not be mounted, the runtime failed.
    Internal,
    /// Not in this phase: started twice, a signal before the start, ...
    WrongPhase,
    /// The request made no sense.
    BadRequest,
}

/// Something went wrong, in words for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of thing.
    pub kind: FailureKind,
    /// Exit code of a `run` that fails so.
    pub exit_code: u8,
    /// What, which, why.
    pub message: String,
}

/// Longest message of a failure, in bytes: a quarter of what a message may have, as JSON escapes can multiply.
const WORDS_BYTES_MAX: usize = storage_sys::socket::MESSAGE_BYTES_MAX / 8;

impl Failure {
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        let exit_code = match kind {
            FailureKind::ProgramNotFound => 127,
            FailureKind::ProgramNotExecutable => 126,
            _ => 125,
        };
        let mut message: String = message.into();
        if let Some(end) = (0..=WORDS_BYTES_MAX).rev().find(|&at| message.is_char_boundary(at)) {
            message.truncate(end);
        }
        Self { kind, exit_code, message }
    }

    /// Words of `error` and of all its causes.
    pub(crate) fn of(kind: FailureKind, error: &dyn Error) -> Self {
        let mut words = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            words = format!("{words}: {error}");
            cause = error.source();
        }
        Self::new(kind, words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_read_as_they_are_written() {
        for (request, text) in [
            (Request::StartAttached, r#""start_attached""#),
            (Request::StartTerminal { rows: 1, columns: 2 }, r#"{"start_terminal":{"rows":1,"columns":2}}"#),
            (Request::Kill { signal: 9, all: true }, r#"{"kill":{"signal":9,"all":true}}"#),
        ] {
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        }
    }

    #[test]
    fn a_failure_always_fits_into_a_message() {
        let failure = Failure::new(FailureKind::Internal, "\u{1}\u{e9}".repeat(100_000));
        let text = serde_json::to_vec(&Response::Failed(failure)).unwrap();
        assert!(text.len() <= storage_sys::socket::MESSAGE_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn any_bytes_may_arrive_as_a_request(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = serde_json::from_slice::<Request>(&bytes);
        }
    }
}
