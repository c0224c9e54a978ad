//! Makes a blob of an ingest: the only way a blob appears.
//!
//! `digest as expected? -> sync file -> rename into blobs/ -> sync directory -> record`. A crash at any arrow leaves the
//! blob absent or whole: before the rename there is still the ingest, after it a file without a record, which the next
//! start gives back to its ingest. Only a recorded blob can be read, and it is durable before it is recorded.

use storage_model::{Digest, Labels, validate_labels};
use storage_sys::durable::sync_directory;

use crate::blob::{BlobRecord, ContentRecord, hold};
use crate::change::Change;
use crate::collect::Node;
use crate::error::IoContext as _;
use crate::ingest::{Expected, Ingest};
use crate::lease::Resource;
use crate::metadata::{Table, key};
use crate::space::Space;
use crate::{StoreError, Subject};

impl Ingest {
    /// Publishes the ingest as a blob of its namespace and returns its digest: durable when this returns.
    ///
    /// `expected` is checked besides what was expected when the ingest was begun.
    ///
    /// # Errors
    /// [`StoreError::DigestMismatch`] or [`StoreError::SizeMismatch`] if other bytes arrived: the ingest stays, and can be
    /// taken up again, cut or aborted. [`StoreError::AlreadyExists`] if the namespace has the blob: the ingest is gone.
    /// [`StoreError::Sync`] if the disk lost what was written: the ingest is gone.
    pub fn commit(self, expected: Expected, labels: Labels) -> Result<Digest, StoreError> {
        validate_labels(&labels)?;
        let digest = self.verified(expected)?;
        let space = self.space.clone();
        if space.store.0.metadata.contains(Table::Blobs, &key::blob(&space.namespace, &digest))? {
            return Err(already_here(&space, self, &digest));
        }
        if let Err(source) = self.file.sync_data() {
            let path = self.data_path();
            self.abort()?;
            return Err(StoreError::Sync { path, source: Some(source) });
        }
        if publish(&space, &self, &digest, &labels)? {
            space.store.tell(&space.namespace, || Change::ContentCreated { digest, size: self.offset() });
            Ok(digest)
        } else {
            Err(StoreError::already_exists(Subject::Blob, digest))
        }
    }

    /// The digest of what arrived, if that and its size are what was expected.
    fn verified(&self, expected: Expected) -> Result<Digest, StoreError> {
        for size in [expected.size, self.info.expected.size].into_iter().flatten() {
            if size != self.offset() {
                let (reference, actual) = (self.info.reference.clone(), self.offset());
                return Err(StoreError::SizeMismatch { reference, expected: size, actual });
            }
        }
        let digest = self.digest();
        for expected in [expected.digest, self.info.expected.digest].into_iter().flatten() {
            if expected != digest {
                return Err(StoreError::DigestMismatch { expected, actual: digest });
            }
        }
        Ok(digest)
    }
}

/// The namespace has the blob already: its lease keeps it, and the ingest goes.
fn already_here(space: &Space, ingest: Ingest, digest: &Digest) -> StoreError {
    let outcome = match space.lease {
        Some(_) => space.pin_blob(digest).map(|_| ()),
        None => Ok(()),
    };
    match outcome.and_then(|()| ingest.abort()) {
        Ok(()) => StoreError::already_exists(Subject::Blob, digest),
        Err(error) => error,
    }
}

/// Puts the file of a durable, verified ingest in place and records it; answers whether the namespace had it not yet.
fn publish(space: &Space, ingest: &Ingest, digest: &Digest, labels: &Labels) -> Result<bool, StoreError> {
    let _here = space.store.0.digests.lock(std::iter::once(digest));
    let placed = place(space, ingest, digest)?;
    let outcome = sync_blobs(space, placed).and_then(|()| record(space, ingest, digest, labels));
    match &outcome {
        // It may be recorded after all, and then the file must be where it is. If not, it is an orphan, which the next
        // ingest that expects it takes back.
        Err(error) if error.is_uncertain() => {}
        Err(_) if placed => give_back(space, ingest, digest),
        _ => {}
    }
    let fresh = outcome?;
    // Published is published: what is left of the ingest is a few bytes, which the next start removes.
    if let Err(error) = std::fs::remove_dir_all(&ingest.directory) {
        tracing::debug!(path = %ingest.directory.display(), %error, "an ingest's directory stays");
    }
    Ok(fresh)
}

/// Renames the file into `blobs/`, unless another namespace has the bytes: then they are there already.
fn place(space: &Space, ingest: &Ingest, digest: &Digest) -> Result<bool, StoreError> {
    if space.store.0.metadata.get::<ContentRecord>(digest.as_bytes())?.is_some() {
        return Ok(false);
    }
    let path = space.store.blob_path(digest);
    std::fs::rename(ingest.data_path(), &path).doing("publish", &path)?;
    Ok(true)
}

/// Makes the name of a file that was `placed` durable.
fn sync_blobs(space: &Space, placed: bool) -> Result<(), StoreError> {
    let blobs = &space.store.0.layout.blobs;
    match placed {
        true => sync_directory(blobs)
            .map_err(|source| StoreError::Sync { path: blobs.clone(), source: Some(source) }),
        false => Ok(()),
    }
}

/// Records the blob whose file is in place; answers whether the namespace had it not yet.
fn record(space: &Space, ingest: &Ingest, digest: &Digest, labels: &Labels) -> Result<bool, StoreError> {
    space.change([Node::blob(&space.namespace, digest)], |transaction| {
        let fresh = transaction.lock::<BlobRecord>(&key::blob(&space.namespace, digest))?.is_none();
        if fresh {
            let record = BlobRecord::new(ingest.offset(), labels.clone());
            hold(transaction, &space.namespace, digest, &record)?;
        }
        space.join_lease(transaction, &Resource::content(digest))?;
        space.leave_lease(transaction, &Resource::ingest(&ingest.info.reference))?;
        Ok(fresh)
    })
}

/// Undoes the rename after a failure, so that the ingest is as it was. What cannot be undone is for the next start.
fn give_back(space: &Space, ingest: &Ingest, digest: &Digest) {
    if let Err(error) = std::fs::rename(space.store.blob_path(digest), ingest.data_path()) {
        tracing::warn!(%digest, %error, "a blob that was not recorded stays until the next start");
    }
}
