//! Why a task does not do what was asked.

use std::io;
use std::path::PathBuf;

use runtime_ttrpc::{Code, TtrpcError};
use storage_content::ErrorKind;

/// Why a task does not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The container has no task.
    #[error("task {id} not found")]
    NoTask {
        /// The container.
        id: String,
    },
    /// The task has no such exec (any more).
    #[error("exec {exec} of task {id} not found")]
    NoExec {
        /// The container.
        id: String,
        /// The exec.
        exec: String,
    },
    /// The container has a task already, or one is being made.
    #[error("task {id} already exists")]
    Exists {
        /// The container.
        id: String,
    },
    /// Not a name of a runtime.
    #[error(
        "invalid runtime name {name:?}: it is like io.containerd.runc.v2, or the absolute path of a shim"
    )]
    RuntimeName {
        /// What the container says.
        name: String,
    },
    /// The runtime's shim is not here.
    #[error("runtime {name:?} needs the shim {program}, which is not installed")]
    NoShim {
        /// What the container says.
        name: String,
        /// The program that was looked for.
        program: String,
    },
    /// The container has no OCI spec.
    #[error("container {id} has no OCI spec: a task cannot be made of it")]
    NoSpec {
        /// The container.
        id: String,
    },
    /// Something was to have a name and has none.
    #[error("{what} cannot be empty")]
    Empty {
        /// What.
        what: &'static str,
    },
    /// The checkpoint is of another kind.
    #[error("a task cannot be restored from {media_type:?}: a checkpoint is {expected:?}")]
    CheckpointType {
        /// What was given.
        media_type: String,
        /// What can be.
        expected: &'static str,
    },
    /// The checkpoint holds something other than files and directories, or cannot be read.
    #[error("the checkpoint {digest} cannot be unpacked")]
    Checkpoint {
        /// Its digest.
        digest: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The shim's program failed.
    #[error("the shim {program} of task {id} failed to {what}: {words}")]
    Program {
        /// The container.
        id: String,
        /// The program.
        program: PathBuf,
        /// `start`, `delete`.
        what: &'static str,
        /// What it said.
        words: String,
    },
    /// The shim's program cannot be run.
    #[error("the shim {program} of task {id} cannot be run")]
    Run {
        /// The container.
        id: String,
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The shim refused, or did not answer.
    #[error("{source}")]
    Shim {
        /// The container.
        id: String,
        /// What it said.
        #[source]
        source: TtrpcError,
    },
    /// The directory of the task could not be made, read or removed.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The root of a task stays mounted.
    #[error("the root of task {id} cannot be unmounted")]
    Unmount {
        /// The container.
        id: String,
        /// Why.
        #[source]
        source: storage_sys::mount::MountError,
    },
}

impl TaskError {
    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoTask { .. } | Self::NoExec { .. } => ErrorKind::NotFound,
            Self::Exists { .. } => ErrorKind::AlreadyExists,
            Self::RuntimeName { .. } | Self::Empty { .. } | Self::CheckpointType { .. } => {
                ErrorKind::InvalidArgument
            }
            Self::NoShim { .. } | Self::NoSpec { .. } => ErrorKind::FailedPrecondition,
            Self::Checkpoint { .. } => ErrorKind::DataLoss,
            Self::Shim { source, .. } => shim_kind(source.code()),
            Self::Program { .. } | Self::Run { .. } | Self::Io { .. } | Self::Unmount { .. } => {
                ErrorKind::Internal
            }
        }
    }

    /// Whether the shim is not there (any more).
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Shim { source, .. } if source.is_gone())
    }

    pub(super) fn io<P: Into<PathBuf>>(
        what: &'static str,
        path: P,
    ) -> impl FnOnce(io::Error) -> Self + use<P> {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}

/// The class of a shim's own code. What it calls unknown is most often what the OCI runtime said.
fn shim_kind(code: Code) -> ErrorKind {
    match code {
        Code::Cancelled => ErrorKind::Cancelled,
        Code::InvalidArgument => ErrorKind::InvalidArgument,
        Code::DeadlineExceeded => ErrorKind::DeadlineExceeded,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::PermissionDenied => ErrorKind::PermissionDenied,
        Code::ResourceExhausted => ErrorKind::ResourceExhausted,
        Code::FailedPrecondition => ErrorKind::FailedPrecondition,
        Code::Aborted => ErrorKind::Aborted,
        Code::OutOfRange => ErrorKind::OutOfRange,
        Code::Unimplemented => ErrorKind::Unimplemented,
        Code::Unavailable => ErrorKind::Unavailable,
        Code::DataLoss => ErrorKind::DataLoss,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::Ok | Code::Unknown | Code::Internal => ErrorKind::Internal,
    }
}
