//! Brings the right bytes of a damaged blob back where they were: records, labels and what they keep stay as they are.
//!
//! `write* -> digest as recorded? -> sync file -> rename over the damaged file -> sync directory`. A crash at any arrow leaves
//! the damaged file or the whole one; the draft lies in `ingests/`, where the next start takes it away. Who has the damaged
//! file open goes on reading it.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use storage_model::{Digest, Hasher};
use storage_sys::durable::sync_directory;

use crate::blob::ContentRecord;
use crate::error::IoContext as _;
use crate::store::Store;
use crate::{StoreError, Subject};

/// A damaged blob that is being brought back. Dropped without [`BlobRepair::commit`], it leaves everything as it was.
#[derive(Debug)]
pub struct BlobRepair {
    store: Store,
    digest: Digest,
    /// Bytes written never exceed this.
    size: u64,
    draft: PathBuf,
    file: File,
    hasher: Hasher,
}

impl Store {
    /// Begins to bring the bytes of a blob back, whether or not its file is damaged or there at all.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if no namespace has the blob: it is ingested like any other then.
    /// [`StoreError::Io`] or [`StoreError::Full`] if there is no room for a second file.
    pub fn begin_blob_repair(&self, digest: &Digest) -> Result<BlobRepair, StoreError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let content: Option<ContentRecord> = self.0.metadata.get(digest.as_bytes())?;
        let content = content.ok_or_else(|| StoreError::not_found(Subject::Blob, digest))?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("repair-{}-{}-{number}", digest.hex(), std::process::id());
        let draft = self.0.layout.ingests.join(name);
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&draft).doing("create", &draft)?;
        let (store, digest, size, hasher) = (self.clone(), *digest, content.size, Hasher::new());
        Ok(BlobRepair { store, digest, size, draft, file, hasher })
    }
}

impl BlobRepair {
    /// The blob.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Size of the blob, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`StoreError::SizeMismatch`] if there are more than the blob has; [`StoreError::Full`] or [`StoreError::Io`] if the
    /// disk refused. The repair is then over and must be begun anew.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let end = self.hasher.bytes().saturating_add(bytes.len() as u64);
        if end > self.size {
            let reference = format!("repair of {}", self.digest);
            return Err(StoreError::SizeMismatch { reference, expected: self.size, actual: end });
        }
        self.file.write_all(bytes).doing("write", &self.draft)?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// Puts the bytes in the place of the damaged ones: durable when this returns.
    ///
    /// # Errors
    /// [`StoreError::DigestMismatch`] if other bytes were written; [`StoreError::NotFound`] if nobody has the blob any
    /// more; [`StoreError::Sync`] or [`StoreError::Io`] if the disk refused. The blob is then as it was.
    pub fn commit(self) -> Result<(), StoreError> {
        let actual = self.hasher.clone().finish();
        if actual != self.digest {
            return Err(StoreError::DigestMismatch { expected: self.digest, actual });
        }
        let sync = |path: &std::path::Path, source| StoreError::Sync {
            path: path.to_path_buf(),
            source: Some(source),
        };
        self.file.sync_data().map_err(|source| sync(&self.draft, source))?;
        let inner = &self.store.0;
        let _here = inner.digests.lock(std::iter::once(&self.digest));
        if inner.metadata.get::<ContentRecord>(self.digest.as_bytes())?.is_none() {
            return Err(StoreError::not_found(Subject::Blob, self.digest));
        }
        let path = self.store.blob_path(&self.digest);
        std::fs::rename(&self.draft, &path).doing("publish", &path)?;
        sync_directory(&inner.layout.blobs).map_err(|source| sync(&inner.layout.blobs, source))?;
        tracing::info!(digest = %self.digest, "a blob was brought back");
        Ok(())
    }
}

impl Drop for BlobRepair {
    fn drop(&mut self) {
        // Absent after a commit; otherwise what stays is taken away by the next start.
        let _ = std::fs::remove_file(&self.draft);
    }
}
