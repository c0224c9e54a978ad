//! Labels: what users and clients attach to images, blobs, snapshots, leases and namespaces.

use std::collections::BTreeMap;

/// Labels by key.
pub type Labels = BTreeMap<String, String>;

/// Why a label was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelsError {
    /// Key and value together exceed containerd's limit.
    #[error("label {key:?}: key and value are {size} bytes together, at most {MAX} are allowed", MAX = PAIR_BYTES_MAX)]
    TooLong {
        /// First 64 characters of the key.
        key: String,
        /// Length of key and value, in bytes.
        size: usize,
    },
}

/// Most bytes of a label's key and value together (containerd `pkg/labels`, `Validate`).
const PAIR_BYTES_MAX: usize = 4096;

/// Checks every pair against containerd's limit.
///
/// # Errors
/// [`LabelsError::TooLong`] names the first pair over the limit.
pub fn validate(labels: &Labels) -> Result<(), LabelsError> {
    for (key, value) in labels {
        let size = key.len() + value.len();
        if size > PAIR_BYTES_MAX {
            return Err(LabelsError::TooLong { key: key.chars().take(64).collect(), size });
        }
    }
    Ok(())
}
