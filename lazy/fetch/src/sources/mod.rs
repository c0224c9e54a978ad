//! Where bytes come from: the contract between the engine and the outside.
//!
//! The engine decides which bytes, when, how urgently, and whom to avoid; a source decides whom to ask and how. Bytes of a
//! source are believed by nobody: the engine verifies them.
//!
//! Here: the trait, whole blobs on this machine, and the bridge to the distribution client, the
//! only place of this crate that knows about tokio.

mod local;
mod registry;

use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;
use storage_model::Digest;

use crate::error::SourceError;
use crate::spec::Origin;

pub use registry::RegistrySources;

/// A blob and who may have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobAt {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub bytes: u64,
    /// Repositories that have it, the best first.
    pub origins: Vec<Origin>,
}

/// One question to [`Sources::range`].
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// Of which blob.
    pub blob: &'a BlobAt,
    /// Which bytes: not empty, inside the blob.
    pub range: Range<u64>,
    /// When an answer is of no use any more.
    pub deadline: Instant,
    /// Sources that sent wrong bytes of this blob, by [`RangeBody::source`]: they are not asked.
    pub avoid: &'a [String],
}

/// Gives ranges of blobs.
///
/// Calls come from many threads at once and may block until their deadline, not past it. An implementation tries the
/// places it knows in its order, one after the other, each once: repeating is the engine's part. It follows no word of the
/// bytes themselves.
pub trait Sources: Send + Sync {
    /// Opens a stream that gives the bytes of `ask.range`, or of the whole blob if nobody gives less
    /// ([`RangeBody::start`]).
    ///
    /// # Errors
    /// [`SourceError`] of the last place asked. Nothing is left behind.
    fn range(&self, ask: &Ask<'_>) -> Result<Box<dyn RangeBody>, SourceError>;
}

/// Bytes on their way.
pub trait RangeBody: Send {
    /// Offset in the blob of the first byte that [`RangeBody::next`] gives: the start of the range, or 0 if the place sends
    /// the whole blob whatever it is asked for.
    fn start(&self) -> u64;

    /// The next bytes, in order; `None` at the end of what was asked for (or of the blob). Never more than that.
    ///
    /// # Errors
    /// [`SourceError::Deadline`] when `deadline` passes without a byte: the stream can still be asked again. After any other
    /// error there is nothing more.
    fn next(&mut self, deadline: Instant) -> Result<Option<Bytes>, SourceError>;

    /// Name of the place, for [`Ask::avoid`].
    fn source(&self) -> &str;

    /// Host that sends the bytes, for people; after a redirect, not the registry.
    fn host(&self) -> &str;

    /// Whether these bytes need no network.
    fn is_local(&self) -> bool {
        false
    }
}
