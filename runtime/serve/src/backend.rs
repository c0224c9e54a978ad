//! What the server needs of an engine.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use runtime_api::windlass::v1::RegistryOptions;
use storage_model::{Descriptor, Digest, Reference};
use tokio_stream::Stream;
use tonic::{Code, Status};

/// A name in the store and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The name, as the store has it.
    pub name: String,
    /// The manifest or index.
    pub target: Descriptor,
}

/// Bytes of a blob, in order.
pub type Content = Pin<Box<dyn Stream<Item = Result<Bytes, BackendError>> + Send>>;

/// What a pull tells while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullReport {
    /// The reference names this manifest or index.
    Resolved(Digest),
    /// Something more is here.
    Progress,
}

/// An engine, of which one namespace is served. Calls may run at the same time; each answers for the moment it is made.
pub trait Backend: Send + Sync + 'static {
    /// All images.
    ///
    /// # Errors
    /// [`BackendError`], as for every call: the engine does not answer, or refuses.
    fn images(&self) -> impl Future<Output = Result<Vec<Image>, BackendError>> + Send;

    /// Size of a blob in bytes, if it is here whole.
    fn size(&self, digest: &Digest) -> impl Future<Output = Result<Option<u64>, BackendError>> + Send;

    /// `length` bytes of a blob from `offset` on; the caller knows that it has so many. `None` if it went meanwhile.
    fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> impl Future<Output = Result<Option<Content>, BackendError>> + Send;

    /// Pulls content, unpacking nothing, of all platforms if `all`. Dropping the future ends the pull.
    fn pull(
        &self,
        reference: &Reference,
        all: bool,
        registry: &RegistryOptions,
        report: impl Fn(PullReport) + Send + Sync,
    ) -> impl Future<Output = Result<(), BackendError>> + Send;
}

/// Why the engine did not give what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// Nobody answers on the socket.
    #[error("the engine does not answer")]
    Unreachable(#[source] Box<Status>),
    /// It answered with an error.
    #[error("the engine could not {what}: {}", .source.message())]
    Refused {
        /// What was asked, as a verb.
        what: &'static str,
        /// Its status.
        source: Box<Status>,
    },
    /// It said something that makes no sense.
    #[error("the engine answered nonsense: {0}")]
    Nonsense(&'static str),
    /// A blob is not what its digest says.
    #[error("the stored copy of {expected} is damaged: it has digest {actual}")]
    Damaged {
        /// Its name.
        expected: Digest,
        /// Digest of its bytes.
        actual: Digest,
    },
}

impl BackendError {
    /// The error for a failed call.
    pub fn of(what: &'static str, status: Status) -> Self {
        // A connection that cannot be made has the connector's error as its source; the engine's own answers have none.
        match status.code() {
            Code::Unavailable if std::error::Error::source(&status).is_some() => {
                Self::Unreachable(Box::new(status))
            }
            _ => Self::Refused { what, source: Box::new(status) },
        }
    }

    /// The engine's code, if it gave one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { source, .. } => Some(source.code()),
            _ => None,
        }
    }
}
