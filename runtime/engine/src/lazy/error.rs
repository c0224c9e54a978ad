//! Why an image cannot be shown before it has arrived, or nothing can be said of it.

use storage_content::ErrorKind;
use storage_model::Digest;

/// Why something about lazy images did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LazyError {
    /// No such mode.
    #[error("{0:?} is not a way to pull: use auto, always, never or required")]
    Mode(String),
    /// It was required, and a layer cannot be read in pieces.
    #[error(
        "{name} cannot be pulled lazily, which was required: layer {layer} {why}; convert the image \
         (images convert --estargz) or pull it with --lazy auto"
    )]
    NotPossible {
        /// The image.
        name: String,
        /// The first layer that stands in the way.
        layer: Digest,
        /// What is wrong with it.
        why: String,
    },
    /// The image is not a lazily shown one.
    #[error("{name} is not shown lazily: {mode}")]
    NotLazy {
        /// The image.
        name: String,
        /// How it is here.
        mode: &'static str,
    },
    /// Nobody has recorded a start of the image.
    #[error("no start of {name} has been recorded: run it once, lazily")]
    NoTrace {
        /// The image.
        name: String,
    },
    /// A trace that cannot be read.
    #[error("this is not a trace: {why}")]
    Trace {
        /// What is wrong with it.
        why: String,
    },
    /// All bytes of a layer are here, and they are not what its table of contents says.
    #[error(
        "layer {layer} of {name} is not what its table of contents says ({difference}): the image lies about its \
         contents; do not run it"
    )]
    TwoFaced {
        /// The image.
        name: String,
        /// The layer.
        layer: Digest,
        /// The first difference.
        difference: String,
    },
    /// Not everything could be brought in, or proved.
    #[error("{name} could not be completed: {why}")]
    Incomplete {
        /// The image.
        name: String,
        /// The error and its causes.
        why: String,
    },
    /// A layer whose blob is here could not be indexed.
    #[error("layer {layer} of {name} cannot be indexed")]
    Index {
        /// The image.
        name: String,
        /// The layer.
        layer: Digest,
        /// Why.
        source: lazy_build::BuildError,
    },
    /// The lazy server refused or could not be reached.
    #[error("the lazy server failed")]
    Server(#[from] lazy_mount::ClientError),
}

impl LazyError {
    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Mode(_) | Self::Trace { .. } => ErrorKind::InvalidArgument,
            Self::NotPossible { .. } | Self::NotLazy { .. } => ErrorKind::FailedPrecondition,
            Self::NoTrace { .. } => ErrorKind::NotFound,
            Self::TwoFaced { .. } | Self::Index { .. } => ErrorKind::DataLoss,
            Self::Server(_) | Self::Incomplete { .. } => ErrorKind::Unavailable,
        }
    }
}
