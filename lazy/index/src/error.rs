//! Why a table of contents or an index is refused.

use std::path::PathBuf;

/// Why a table of contents or an index is refused. Nothing is left behind: these are pure functions.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The bytes are not what their place says: another format, a version we do not know, or cut off.
    #[error("this is no {what}: {reason}")]
    Format {
        /// What was expected, for people: "eStargz footer".
        what: &'static str,
        /// What does not fit.
        reason: &'static str,
    },
    /// JSON that cannot be read, or lacks what it must have.
    #[error("the {what} cannot be read")]
    Json {
        /// What it should be, for people.
        what: &'static str,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A manifest that cannot be read.
    #[error("the {what} cannot be read")]
    Document {
        /// What it should be, for people.
        what: &'static str,
        /// What is wrong with it.
        source: storage_model::DocumentError,
    },
    /// More than [`crate::Limits`] allow.
    #[error("{what}: {actual} is more than the limit of {limit}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        actual: u64,
        /// The limit.
        limit: u64,
    },
    /// An entry that cannot be.
    #[error("entry \"{path}\" is refused: {reason}")]
    Entry {
        /// Its path, cleaned of what a terminal would act on.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A chunk that cannot be.
    #[error("chunk {number} is refused: {reason}")]
    Chunk {
        /// Its number in the table.
        number: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A group that cannot be.
    #[error("group {number} is refused: {reason}")]
    Group {
        /// Its number in the table.
        number: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A checkpoint that cannot be.
    #[error("checkpoint {number} is refused: {reason}")]
    Checkpoint {
        /// Its number in the table.
        number: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file's own checksum does not fit its bytes: the disk or whoever wrote it is at fault.
    #[error("the {what} is damaged: its checksum does not fit its bytes")]
    Checksum {
        /// Which kind of file.
        what: &'static str,
    },
    /// The index file could not be mapped.
    #[error("cannot map the image index {}", path.display())]
    Map {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A path for people: escaped and cut to 200 characters.
pub(crate) fn shown(path: &[u8]) -> String {
    let cut = &path[..path.len().min(200)];
    let dots = if cut.len() < path.len() { "..." } else { "" };
    format!("{}{dots}", String::from_utf8_lossy(cut).escape_debug())
}
