//! Puts damaged blobs aside: no reader sees them any more, and people can still look at them.
//!
//! `records of all namespaces deleted -> file renamed into quarantine/`. A crash in between leaves a file without a record,
//! which the next start takes away. There is at most one file a digest, and nobody but people reads it; a user who has
//! seen enough deletes it, or calls [`Store::empty_quarantine`].
//!
//! Not here: bringing the bytes back where they were (`repair`), which is better while someone has them.

use std::path::PathBuf;

use storage_model::{Digest, Namespace};

use crate::blob::ContentRecord;
use crate::change::Change;
use crate::error::IoContext as _;
use crate::layout::Layout;
use crate::metadata::{Table, key};
use crate::store::Store;
use crate::{StoreError, Subject};

/// A blob that was lost or damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedBlob {
    /// Its digest.
    pub digest: Digest,
    /// Size it should have, in bytes.
    pub expected_bytes: u64,
    /// Size of its file, in bytes; none if it was absent.
    pub found_bytes: Option<u64>,
    /// The namespaces that had it.
    pub namespaces: Vec<Namespace>,
}

impl Store {
    /// Puts a damaged blob aside: no namespace has it any more, and its file goes to `quarantine/`. Whoever wants it
    /// ingests it again; what its labels kept is kept by them no more.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if no namespace has it; [`StoreError::Io`] if its file could not be moved: its records are
    /// gone then all the same, and the next start takes the file away.
    pub fn quarantine_blob(&self, digest: &Digest) -> Result<QuarantinedBlob, StoreError> {
        let quarantined = {
            let _here = self.0.digests.lock(std::iter::once(digest));
            self.quarantine_locked(digest)?
        };
        let quarantined = quarantined.ok_or_else(|| StoreError::not_found(Subject::Blob, digest))?;
        self.tell_quarantined(&quarantined);
        Ok(quarantined)
    }

    /// Deletes what lies in `quarantine/`.
    ///
    /// # Errors
    /// [`StoreError::Io`] if something could not be moved away; it is still there.
    pub fn empty_quarantine(&self) -> Result<(), StoreError> {
        let directory = &self.0.layout.quarantine;
        for entry in directory.read_dir().doing("list", directory)? {
            self.0.trash.discard(&entry.doing("list", directory)?.path())?;
        }
        self.0.trash.empty_soon();
        Ok(())
    }

    /// Puts a blob aside; none if no namespace has it. The caller holds the digest's lock, and tells of it when it has let
    /// that go.
    pub(crate) fn quarantine_locked(&self, digest: &Digest) -> Result<Option<QuarantinedBlob>, StoreError> {
        let found_bytes = self.blob_path(digest).metadata().ok().map(|facts| facts.len());
        // Nobody gets or loses the blob meanwhile: that takes the digest's lock.
        let namespaces = self.holders_of(digest);
        let content = {
            let _open = self.0.gate.enter([]);
            self.0.metadata.transact_deletion(|transaction| {
                let content: Option<ContentRecord> = transaction.lock(digest.as_bytes())?;
                for namespace in &namespaces {
                    transaction.delete(Table::Blobs, &key::blob(namespace, digest))?;
                }
                transaction.delete(Table::Content, digest.as_bytes())?;
                Ok(content)
            })?
        };
        let Some(content) = content else { return Ok(None) };
        tracing::warn!(%digest, expected = content.size, found = ?found_bytes, "a blob was lost or damaged and is put aside");
        put_aside(&self.0.layout, digest)?;
        Ok(Some(QuarantinedBlob { digest: *digest, expected_bytes: content.size, found_bytes, namespaces }))
    }

    pub(crate) fn tell_quarantined(&self, quarantined: &QuarantinedBlob) {
        for namespace in &quarantined.namespaces {
            self.tell(namespace, || Change::ContentDeleted { digest: quarantined.digest });
        }
    }
}

/// Moves the file of a blob without a record to `quarantine/`. Absent is as good as moved.
pub(crate) fn put_aside(layout: &Layout, digest: &Digest) -> Result<(), StoreError> {
    let target: PathBuf = layout.quarantine.join(digest.hex());
    match std::fs::rename(layout.blob(digest), &target) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io("put aside", &layout.blob(digest), error))
        }
        _ => Ok(()),
    }
}
