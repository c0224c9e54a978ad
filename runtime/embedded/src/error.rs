//! Why the runtime did not do what it was asked.

use std::io;
use std::path::PathBuf;

use libcontainer::error::LibcontainerError;

/// Why a call failed. Words are close to runc's, by which shims tell the cases apart.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// No state is kept under this id.
    #[error("container does not exist: {id}")]
    NotFound {
        /// The container.
        id: String,
    },
    /// The container is in a state in which this cannot be done.
    #[error("cannot {what} container {id} in the state {status}")]
    State {
        /// What was asked.
        what: &'static str,
        /// The container.
        id: String,
        /// Its state.
        status: String,
    },
    /// libcontainer refused.
    #[error("{what} failed")]
    Container {
        /// What was asked.
        what: &'static str,
        /// The cause.
        #[source]
        source: Box<LibcontainerError>,
    },
    /// The cgroup refused.
    #[error("cannot {what} in the container's cgroup: {words}")]
    Cgroup {
        /// What was asked.
        what: &'static str,
        /// The cause, in the words of the library.
        words: String,
    },
    /// A word on the command line is none.
    #[error("{word:?} is no {kind}")]
    Word {
        /// What was expected.
        kind: &'static str,
        /// What came.
        word: String,
    },
    /// A file that was named cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file that was named holds something else.
    #[error("{path} does not hold {kind}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What was expected.
        kind: &'static str,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// The answer cannot be written.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// The program cannot be kept from being written to.
    #[error("cannot run from where this program cannot be written to")]
    Seal(#[source] io::Error),
    /// The process cannot be waited for.
    #[error("cannot wait for the container's process")]
    Wait(#[source] io::Error),
}

impl EmbeddedError {
    /// Wraps what libcontainer says.
    pub(crate) fn container(what: &'static str) -> impl FnOnce(LibcontainerError) -> Self {
        move |source| Self::Container { what, source: Box::new(source) }
    }

    /// Exit code, as of runc: 1, and 255 for an exec that failed.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Container { what: "exec", .. } => 255,
            _ => 1,
        }
    }

    /// The words with those of all causes, once each: libraries repeat theirs.
    pub(crate) fn words(&self) -> String {
        let mut words = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let more = error.to_string();
            if !words.ends_with(&more) {
                words = format!("{words}: {more}");
            }
            cause = error.source();
        }
        words
    }
}
