//! Why a record cannot be written or used.

use std::io;

/// Why a tree record cannot be used. It says nothing about the tree, which may be as good as ever.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// It cannot be read.
    #[error("cannot read the tree record: {0}")]
    Io(#[from] io::Error),
    /// It is no tree record, or one of a version that is not known.
    #[error("this is no tree record of a version that is known")]
    Format,
    /// It is not whole: it was cut off or changed since it was written.
    #[error("the tree record is damaged: its checksum is not that of its bytes")]
    Checksum,
    /// Its checksum is right but its content is not: whoever wrote it erred.
    #[error("the tree record is malformed at byte {offset}: {reason}")]
    Malformed {
        /// Bytes read before.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
}
