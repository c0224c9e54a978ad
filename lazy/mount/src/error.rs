//! Why something about a lazy mount did not happen.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use storage_sys::mount::MountError;

/// Why a client's call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The keeper could not be started.
    #[error("cannot start {program} as the keeper of lazy mounts: {words}")]
    Start {
        /// The program.
        program: PathBuf,
        /// Its last words, or why it has none.
        words: String,
        /// The cause, when the system refused.
        #[source]
        source: Option<io::Error>,
    },
    /// Nobody listens at the control socket and none was to be started.
    #[error("no lazy server listens at {socket}")]
    NotRunning {
        /// The socket.
        socket: PathBuf,
    },
    /// The connection failed.
    #[error("cannot talk to the lazy server at {socket}")]
    Io {
        /// The socket.
        socket: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The server did not answer in time.
    #[error("the lazy server at {socket} did not answer within {seconds} s")]
    Timeout {
        /// The socket.
        socket: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// The server answered something else: it is of another version.
    #[error("the lazy server at {socket} gave an answer that does not belong to the question")]
    Answer {
        /// The socket.
        socket: PathBuf,
    },
    /// The server refused.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// The kernel refused the mount.
    #[error("cannot mount the lazy image {name} at {mountpoint}")]
    Mount {
        /// Name of the mount.
        name: String,
        /// Where it was to appear.
        mountpoint: PathBuf,
        /// The cause.
        #[source]
        source: MountError,
    },
    /// The mountpoint could not be made, or `/dev/fuse` not be opened.
    #[error("cannot prepare {path} for the lazy image {name}")]
    Prepare {
        /// Name of the mount.
        name: String,
        /// What was at fault.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A server's refusal, in words for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of thing went wrong.
    pub kind: FailureKind,
    /// What, which, why.
    pub message: String,
}

/// Kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// No mount has this name.
    NotFound,
    /// A mount of this name shows another index.
    Conflict,
    /// The request makes no sense: a name, a missing table of contents.
    BadRequest,
    /// The index or a table of contents cannot be used.
    BadIndex,
    /// The kernel cannot do what is needed.
    Unsupported,
    /// The cache or the system failed.
    Internal,
}
