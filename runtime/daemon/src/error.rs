//! Why a daemon does not start, or ends.

use std::io;
use std::path::PathBuf;

use runtime_engine::EngineError;

use crate::{IdentityError, SocketError};

/// Why a daemon did not start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// A directory of ours cannot be made private.
    #[error("cannot {what} {path}")]
    Directory {
        /// What was tried.
        what: &'static str,
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory of ours belongs to another user.
    #[error(
        "{path} belongs to user {owner}, not to user {user} who runs this: change its owner, or choose another directory"
    )]
    NotOwned {
        /// The directory.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
        /// Who runs this process.
        user: u32,
    },
    /// The engine does not open.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The socket cannot be had.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Shims could not tell their events.
    #[error("cannot listen for the events of shims at {path}")]
    ShimEvents {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The daemon's identity cannot be kept.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Threads, signals or the listener cannot be set up.
    #[error("cannot set up threads, signals or the listener")]
    Runtime(#[source] io::Error),
    /// Serving failed.
    #[error("the server failed")]
    Serve(#[from] tonic::transport::Error),
    /// The thread that opened the engine died.
    #[error("opening the engine died: this is a defect, please report it")]
    Worker,
}
