//! Makes a blob of an ingest: the only way a blob appears.
//!
//! `digest as expected? -> sync file -> rename into blobs/ -> sync directory -> record`. A crash at any arrow leaves the
//! blob absent or whole: before the rename there is still the ingest, after it a file without a record, which the next
//! start gives back to its ingest. Only a recorded blob can be read, and it is durable before it is recorded.
//!
//! Two speeds: [`Ingest::commit`] does all of it for one blob. A pull has many and syncs once: [`Ingest::stage`] verifies
//! each, the caller calls [`crate::Store::sync`], and [`Space::commit_staged`] publishes all of them in one transaction.

use std::collections::BTreeSet;

use storage_model::{Digest, Labels, validate_labels};
use storage_sys::durable::sync_directory;

use crate::blob::{BlobRecord, ContentRecord, hold};
use crate::collect::Node;
use crate::error::IoContext as _;
use crate::ingest::{Expected, Ingest};
use crate::lease::Resource;
use crate::metadata::{Table, key};
use crate::space::Space;
use crate::{StoreError, Subject};

/// A verified ingest that is not durable yet. Dropping it keeps the ingest.
#[derive(Debug)]
pub struct Staged {
    ingest: Ingest,
    digest: Digest,
    labels: Labels,
}

impl Staged {
    /// Digest of the bytes.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Size of the bytes.
    pub fn size(&self) -> u64 {
        self.ingest.offset()
    }
}

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
        let staged = self.stage(expected, labels)?;
        let (digest, space) = (staged.digest, staged.ingest.space.clone());
        if space.store.0.metadata.contains(Table::Blobs, &key::blob(&space.namespace, &digest))? {
            return Err(already_here(&space, staged.ingest, &digest));
        }
        if let Err(source) = staged.ingest.file.sync_data() {
            let path = staged.ingest.data_path();
            staged.ingest.abort()?;
            return Err(StoreError::Sync { path, source: Some(source) });
        }
        match publish(&space, &[staged])?.as_slice() {
            [] => Ok(digest),
            _ => Err(StoreError::already_exists(Subject::Blob, digest)),
        }
    }

    /// Verifies the ingest without making it durable; see [`Space::commit_staged`].
    ///
    /// # Errors
    /// [`StoreError::DigestMismatch`] or [`StoreError::SizeMismatch`] if other bytes arrived: the ingest stays.
    pub fn stage(self, expected: Expected, labels: Labels) -> Result<Staged, StoreError> {
        validate_labels(&labels)?;
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
        Ok(Staged { ingest: self, digest, labels })
    }
}

impl Space {
    /// Publishes all of `staged` in one step: after a crash all of them are there, or none.
    ///
    /// The caller has called [`crate::Store::sync`] (or `sync_since`) after staging the last of them, and it succeeded.
    /// Blobs that the namespace has already stay as they are, and join the lease of this view.
    ///
    /// # Errors
    /// [`StoreError::Sync`] if a sync failed since one of them was begun: their bytes may be lost, and their ingests are
    /// gone. Any other error leaves all of them as ingests.
    pub fn commit_staged(&self, staged: Vec<Staged>) -> Result<(), StoreError> {
        let now = self.store.sync_mark();
        if staged.iter().any(|one| one.ingest.mark != now) {
            let path = self.store.0.layout.ingests.clone();
            staged.into_iter().try_for_each(|one| one.ingest.abort())?;
            return Err(StoreError::Sync { path, source: None });
        }
        publish(self, &staged)?;
        Ok(())
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

/// Puts the files of durable, verified ingests in place and records them; answers with those the namespace had already.
fn publish(space: &Space, staged: &[Staged]) -> Result<Vec<Digest>, StoreError> {
    let inner = &space.store.0;
    let _here = inner.digests.lock(staged.iter().map(|one| &one.digest));
    let mut placed = BTreeSet::new();
    let outcome = place(space, staged, &mut placed).and_then(|()| record(space, staged));
    match &outcome {
        // They may be recorded after all, and then the files must be where they are. If not, they are orphans, which
        // the next ingest that expects them takes back.
        Err(error) if error.is_uncertain() => return outcome,
        Err(_) => {
            give_back(space, staged, &placed);
            return outcome;
        }
        Ok(_) => {}
    }
    for one in staged {
        // Published is published: what is left of the ingest is a few bytes, which the next start removes.
        if let Err(error) = std::fs::remove_dir_all(&one.ingest.directory) {
            tracing::debug!(path = %one.ingest.directory.display(), %error, "an ingest's directory stays");
        }
    }
    outcome
}

/// Renames the files into `blobs/` and makes their names durable. Bytes that another namespace has are there already.
fn place(space: &Space, staged: &[Staged], placed: &mut BTreeSet<Digest>) -> Result<(), StoreError> {
    let inner = &space.store.0;
    for one in staged {
        let known = inner.metadata.get::<ContentRecord>(one.digest.as_bytes())?.is_some();
        if known || placed.contains(&one.digest) {
            continue;
        }
        let path = space.store.blob_path(&one.digest);
        std::fs::rename(one.ingest.data_path(), &path).doing("publish", &path)?;
        placed.insert(one.digest);
    }
    if placed.is_empty() {
        return Ok(());
    }
    sync_directory(&inner.layout.blobs)
        .map_err(|source| StoreError::Sync { path: inner.layout.blobs.clone(), source: Some(source) })
}

/// Records the blobs whose files are in place; answers with those the namespace had already.
fn record(space: &Space, staged: &[Staged]) -> Result<Vec<Digest>, StoreError> {
    let touched: Vec<Node> = staged.iter().map(|one| Node::blob(&space.namespace, &one.digest)).collect();
    space.change(touched, |transaction| {
        let mut already = Vec::new();
        for one in staged {
            let blob_key = key::blob(&space.namespace, &one.digest);
            if transaction.lock::<BlobRecord>(&blob_key)?.is_some() {
                already.push(one.digest);
            } else {
                let record = BlobRecord::new(one.size(), one.labels.clone());
                hold(transaction, &space.namespace, &one.digest, &record)?;
            }
            space.join_lease(transaction, &Resource::content(&one.digest))?;
            one.ingest.space.leave_lease(transaction, &Resource::ingest(&one.ingest.info.reference))?;
        }
        Ok(already)
    })
}

/// Undoes the renames after a failure, so that the ingests are as they were. What cannot be undone is for the next start.
fn give_back(space: &Space, staged: &[Staged], placed: &BTreeSet<Digest>) {
    let mut rest = placed.clone();
    for one in staged {
        if rest.remove(&one.digest)
            && let Err(error) = std::fs::rename(space.store.blob_path(&one.digest), one.ingest.data_path())
        {
            tracing::warn!(digest = %one.digest, %error, "a blob that was not recorded stays until the next start");
        }
    }
}
