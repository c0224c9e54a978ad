//! Why a layer could not be described.

use std::io;

use lazy_index::IndexError;
use storage_model::Digest;
use storage_registry::RegistryError;

/// Why a layer could not be described. Nothing is left behind; the layer can still be pulled whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DescribeError {
    /// The registry did not give it.
    #[error("the table of contents of layer {layer} could not be fetched")]
    Registry {
        /// The layer.
        layer: Digest,
        /// The registry's word.
        #[source]
        source: RegistryError,
    },
    /// The registry's hosts send whole blobs only, and this one is large.
    #[error("{host} does not send parts of blobs, so layer {layer} cannot be read in pieces")]
    NoRanges {
        /// The layer.
        layer: Digest,
        /// Who was asked.
        host: String,
    },
    /// A host ended the answer early, every time.
    #[error("{host} sent {actual} of {expected} bytes asked for of layer {layer}")]
    Short {
        /// The layer.
        layer: Digest,
        /// Who was asked.
        host: String,
        /// Bytes asked for.
        expected: u64,
        /// Bytes that came.
        actual: u64,
    },
    /// Other bytes than the manifest vouches for.
    #[error(
        "{host} sent a table of contents of layer {layer} with digest {actual}, the manifest says {expected}"
    )]
    WrongDigest {
        /// The layer.
        layer: Digest,
        /// Who sent it.
        host: String,
        /// What the manifest says.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// What lies around the table cannot be read: no digest vouches for it, so the host may be at fault.
    #[error("{host} sent an end of layer {layer} in which there is no table of contents")]
    NoTable {
        /// The layer.
        layer: Digest,
        /// Who sent it.
        host: String,
        /// What is wrong.
        #[source]
        source: IndexError,
    },
    /// The table cannot be decompressed, although it is the one the manifest vouches for, or nothing vouches for it.
    #[error("the table of contents of layer {layer} from {host} cannot be decompressed")]
    Coding {
        /// The layer.
        layer: Digest,
        /// Who sent it.
        host: String,
        /// What the decoder found.
        #[source]
        source: io::Error,
    },
    /// An annotation of the manifest is not what it should be: the image has to be built again.
    #[error("annotation {name} of layer {layer} says {value:?}, which is no {expected}")]
    Annotation {
        /// The layer.
        layer: Digest,
        /// The annotation.
        name: &'static str,
        /// Its value, cut to 128 characters.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The table is the one the manifest vouches for, and it is refused: the image has to be built again.
    #[error("the table of contents of layer {layer} is refused")]
    Index {
        /// The layer.
        layer: Digest,
        /// Why.
        #[source]
        source: IndexError,
    },
    /// The reading thread ended without an answer.
    #[error("reading the table of contents of layer {layer} was interrupted")]
    Interrupted {
        /// The layer.
        layer: Digest,
    },
    /// The index of SOCI could not be had.
    #[error("the SOCI index of image {image} cannot be used")]
    SociIndex {
        /// Digest of the image manifest.
        image: Digest,
        /// Why.
        #[source]
        source: SociFault,
    },
}

/// What is wrong with an index of SOCI.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SociFault {
    /// The annotation of the manifest is no digest.
    #[error("annotation {name} is no digest", name = lazy_index::soci::INDEX_DIGEST)]
    Annotation(#[source] storage_model::DigestError),
    /// It could not be fetched.
    #[error("it could not be fetched")]
    Registry(#[source] RegistryError),
    /// It cannot be read.
    #[error("it cannot be read")]
    Index(#[source] IndexError),
}

impl DescribeError {
    /// Whether another host might do better: the bytes were wrong, not the image.
    pub(super) fn is_hosts_fault(&self) -> bool {
        matches!(
            self,
            Self::WrongDigest { .. } | Self::NoTable { .. } | Self::Coding { .. } | Self::Short { .. }
        )
    }
}
