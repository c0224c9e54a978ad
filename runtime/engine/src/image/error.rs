//! Why an image that is here, or should be, cannot be used as asked.

use storage_content::ErrorKind;
use storage_model::Digest;

/// Why an image cannot be used as asked. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Several images begin with these digits.
    #[error("{text:?} is the beginning of several images, write more of it or a name: {candidates}")]
    Ambiguous {
        /// What was asked for.
        text: String,
        /// Names and digests of those there are.
        candidates: String,
    },
    /// A part of the image is not in this namespace.
    #[error("{what} {digest} of {name} is not here: pull the image again, with its platform, to fetch it")]
    Absent {
        /// The image.
        name: String,
        /// `manifest`, `config` or `layer`.
        what: &'static str,
        /// The part.
        digest: Digest,
    },
    /// Of what was asked for, some platforms are not all here.
    #[error(
        "{name} is not all here, there is no {missing}: pull it with --platform or --all-platforms, or name the \
         platforms that are meant"
    )]
    Incomplete {
        /// The image.
        name: String,
        /// Platforms (and in brackets the first part that is absent), separated by commas.
        missing: String,
    },
    /// A name stands for something else.
    #[error(
        "{name} is the name of another image already ({}, not {}): say so explicitly to replace it",
        present.short(),
        wanted.short()
    )]
    NameTaken {
        /// The name.
        name: String,
        /// What it stands for.
        present: Digest,
        /// What it was to stand for.
        wanted: Digest,
    },
    /// A name that says which digest it stands for, given to another.
    #[error("{name} cannot be the name of {target}: it names another digest")]
    PinnedName {
        /// The name.
        name: String,
        /// What it was to stand for.
        target: Digest,
    },
    /// More indexes inside one another, or more documents, than any real image has.
    #[error("{name} has too many documents, or indexes too deep inside one another, at {digest}")]
    TooDeep {
        /// The image.
        name: String,
        /// Where reading stopped.
        digest: Digest,
    },
    /// A document is larger than any real one.
    #[error("{what} {digest} of {name} is larger than {bytes_max} bytes, the limit for it")]
    DocumentSize {
        /// The image.
        name: String,
        /// `manifest` or `config`.
        what: &'static str,
        /// The document.
        digest: Digest,
        /// The limit.
        bytes_max: u64,
    },
}

impl ImageError {
    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Ambiguous { .. }
            | Self::PinnedName { .. }
            | Self::TooDeep { .. }
            | Self::DocumentSize { .. } => ErrorKind::InvalidArgument,
            Self::Absent { .. } | Self::Incomplete { .. } => ErrorKind::NotFound,
            Self::NameTaken { .. } => ErrorKind::AlreadyExists,
        }
    }
}
