//! What can go wrong between a reader and its bytes.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use storage_model::Digest;
use storage_registry::RegistryError;

/// Why a read, or the opening of the cache, failed.
///
/// One failure may reach many readers, so it can be cloned. A failed read leaves nothing behind: the next one tries again.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The node has no bytes to read: it is no regular file.
    #[error("node {node} of image {image} is no regular file")]
    NotAFile {
        /// Name of the image.
        image: String,
        /// Number of the node.
        node: u32,
    },
    /// The index has no chunk for a part of a file. It passed its own validation, so its file was changed since.
    #[error("the index of image {image} says nothing of byte {offset} of node {node}: its file is damaged")]
    Index {
        /// Name of the image.
        image: String,
        /// Number of the node.
        node: u32,
        /// The byte.
        offset: u64,
    },
    /// The bytes did not come in time. `last` is what stood in their way, if anything was tried and failed.
    #[error(
        "bytes {offset} and on of blob {blob} did not come within {:.1} s{}",
        .after.as_secs_f32(), reason(.last)
    )]
    Deadline {
        /// The blob.
        blob: Digest,
        /// Where in it.
        offset: u64,
        /// How long was waited.
        after: Duration,
        /// The last failure of a source.
        last: Option<Arc<SourceError>>,
    },
    /// Every source that could be asked sent other bytes than the image's manifest vouches for.
    #[error("bytes {offset} and on of blob {blob} are wrong at every source asked ({}): {fault}", .sources.join(", "))]
    WrongBytes {
        /// The blob.
        blob: Digest,
        /// Where in it.
        offset: u64,
        /// Who sent them.
        sources: Vec<String>,
        /// What was wrong the last time.
        fault: WrongBytes,
    },
    /// No source has the blob, and asking again will not help.
    #[error("blob {blob} cannot be had anywhere")]
    Unavailable {
        /// The blob.
        blob: Digest,
        /// What the last source said.
        source: Arc<SourceError>,
    },
    /// The cache's directory cannot be used.
    #[error("the cache {} cannot be {doing}", .path.display())]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// What was being done to it.
        doing: &'static str,
        /// Why not.
        source: Arc<io::Error>,
    },
    /// The cache was written by another version.
    #[error("the cache {} has format {found:?} and this is for {wanted:?}: remove it, or use the version that made it", .path.display())]
    CacheFormat {
        /// The directory.
        path: PathBuf,
        /// What its marker says.
        found: String,
        /// What we write.
        wanted: &'static str,
    },
    /// Another process uses the cache.
    #[error("the cache {} is used by another process", .path.display())]
    CacheBusy {
        /// The directory.
        path: PathBuf,
    },
    /// The number of origin lists is not that of the index's blobs.
    #[error("image {image} has {blobs} blobs and origins for {given}")]
    Origins {
        /// Name of the image.
        image: String,
        /// Blobs of the index.
        blobs: usize,
        /// Lists given.
        given: usize,
    },
    /// The threads could not be started.
    #[error("cannot start the threads that fetch: is the limit on processes reached?")]
    Threads {
        /// Why not.
        source: Arc<io::Error>,
    },
    /// The fetcher was closed while the read waited.
    #[error("the fetcher is closing")]
    Closed,
}

fn reason(last: &Option<Arc<SourceError>>) -> String {
    last.as_ref().map_or_else(String::new, |last| format!(": {last}"))
}

/// In which way bytes are not the right ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WrongBytes {
    /// They do not decode.
    #[error("they do not decode: {0}")]
    Undecodable(String),
    /// They decode to fewer bytes than the index needs.
    #[error("they end after {actual} decoded bytes and {wanted} are needed")]
    Short {
        /// Bytes there were.
        actual: u64,
        /// Bytes needed.
        wanted: u64,
    },
    /// Another digest.
    #[error("their digest is {actual} and should be {expected}")]
    Digest {
        /// What the index says.
        expected: Digest,
        /// What they have.
        actual: Digest,
    },
    /// The point at which their deflate stream is entered is not known.
    #[error("checkpoint {0} of their layer is missing")]
    Checkpoint(u32),
}

/// Why a source gave no bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// No source is known for the blob, or all of them are to be avoided.
    #[error("no source is left for blob {blob}{}", words(.tried))]
    None {
        /// The blob.
        blob: Digest,
        /// Who was asked before and is avoided.
        tried: Vec<String>,
    },
    /// An origin that is no reference.
    #[error("{reference:?} is no reference")]
    Reference {
        /// The text.
        reference: String,
        /// What is wrong with it.
        source: storage_model::ReferenceError,
    },
    /// A registry could not serve it.
    #[error("{source}")]
    Registry {
        /// What happened.
        #[from]
        source: RegistryError,
    },
    /// A local file could not be read.
    #[error("cannot read {}", .path.display())]
    Local {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The time given was over.
    #[error("{host} gave nothing within {} ms", .after.as_millis())]
    Deadline {
        /// Who was asked.
        host: String,
        /// The time it had.
        after: Duration,
    },
    /// The body ended before the range did.
    #[error("{host} stopped after {received} of {wanted} bytes")]
    Short {
        /// Who sent it.
        host: String,
        /// Bytes received.
        received: u64,
        /// Bytes asked for.
        wanted: u64,
    },
    /// The threads for the network could not be started.
    #[error("cannot start the network threads")]
    Runtime(#[source] io::Error),
}

fn words(tried: &[String]) -> String {
    if tried.is_empty() { String::new() } else { format!(" (avoided: {})", tried.join(", ")) }
}

impl SourceError {
    /// Whether the same request may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Registry { source } => source.is_transient(),
            Self::Deadline { .. } | Self::Short { .. } => true,
            Self::None { .. } | Self::Reference { .. } | Self::Local { .. } | Self::Runtime(_) => false,
        }
    }
}
