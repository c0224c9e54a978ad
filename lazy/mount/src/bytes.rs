//! What a session wants of the bytes of an image: the border to `lazy-fetch`.

use std::fs::File;
use std::sync::Arc;

use lazy_fetch::{FetchError, Image};
use lazy_index::NodeId;

/// The bytes of the files of one image; see the functions of the same names of [`Image`].
pub(crate) trait FileBytes: Send + Sync {
    /// Reads as `pread` does, and blocks until the bytes are here and verified.
    fn read(&self, node: NodeId, offset: u64, out: &mut [u8]) -> Result<usize, FetchError>;

    /// Whether a read of this file needs no network.
    fn is_local(&self, node: NodeId) -> bool;

    /// A complete large file as a file of its own.
    fn whole_file(&self, node: NodeId) -> Option<Arc<File>>;
}

impl FileBytes for Image {
    fn read(&self, node: NodeId, offset: u64, out: &mut [u8]) -> Result<usize, FetchError> {
        Self::read(self, node, offset, out)
    }

    fn is_local(&self, node: NodeId) -> bool {
        Self::is_local(self, node)
    }

    fn whole_file(&self, node: NodeId) -> Option<Arc<File>> {
        Self::whole_file(self, node)
    }
}
