//! Blobs: verified bytes by digest.
//!
//! The bytes lie once in `blobs/sha256/<hex>`, with one content record that counts how many namespaces hold them; each
//! of these has a blob record of its own, with its own labels and times. A blob is absent or whole; there is no third
//! state. It appears by `publish` and nothing ever writes to its file again.

use std::fs::File;
use std::ops::ControlFlow;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use storage_model::{Digest, Labels};

use crate::change::Change;
use crate::collect::Node;
use crate::error::IoContext as _;
use crate::label::LabelChange;
use crate::lease::Resource;
use crate::metadata::record::nanos;
use crate::metadata::{Metadata, Record, Table, Transaction, key};
use crate::namespace::NamespaceRecord;
use crate::space::Space;
use crate::store::Store;
use crate::{StoreError, Subject};

/// What a namespace knows of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// When it came into this namespace.
    pub created: SystemTime,
    /// When its labels last changed.
    pub updated: SystemTime,
    /// Its labels in this namespace.
    pub labels: Labels,
}

/// A blob in one namespace.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BlobRecord {
    pub(crate) size: u64,
    #[serde(with = "nanos")]
    created: SystemTime,
    #[serde(with = "nanos")]
    updated: SystemTime,
    pub(crate) labels: Labels,
}

impl Record for BlobRecord {
    const TABLE: Table = Table::Blobs;
}

impl BlobRecord {
    pub(crate) fn new(size: u64, labels: Labels) -> Self {
        let now = SystemTime::now();
        Self { size, created: now, updated: now, labels }
    }

    fn named(self, digest: Digest) -> BlobInfo {
        let Self { size, created, updated, labels } = self;
        BlobInfo { digest, size, created, updated, labels }
    }
}

/// The bytes of a blob, over all namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContentRecord {
    pub(crate) size: u64,
    /// Namespaces that have a record of the blob: at least one.
    pub(crate) holders: u32,
}

impl Record for ContentRecord {
    const TABLE: Table = Table::Content;
}

/// The digest that ends the key of a blob.
pub(crate) fn digest_of(raw: &[u8]) -> Option<Digest> {
    Some(Digest::from_bytes(raw.try_into().ok()?))
}

/// Calls `visit` with every blob record that begins with `prefix`.
pub(crate) fn walk(
    metadata: &Metadata,
    prefix: &[u8],
    mut visit: impl FnMut(storage_model::Namespace, Digest, BlobRecord) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    metadata.walk(prefix, |row, record: BlobRecord| match key::split_namespace(row) {
        Some((namespace, rest)) => match digest_of(rest) {
            Some(digest) => visit(namespace, digest, record),
            None => ControlFlow::Continue(()),
        },
        None => ControlFlow::Continue(()),
    })
}

/// Takes a namespace's record of a blob away; answers with the size of the bytes if nobody holds them any more, whose file
/// the caller then takes away after the commit.
pub(crate) fn release(
    transaction: &Transaction<'_>,
    namespace: &storage_model::Namespace,
    digest: &Digest,
) -> Result<Option<u64>, StoreError> {
    transaction.delete(Table::Blobs, &key::blob(namespace, digest))?;
    let content_key = digest.as_bytes();
    let Some(mut content) = transaction.lock::<ContentRecord>(content_key)? else { return Ok(None) };
    content.holders = content.holders.saturating_sub(1);
    if content.holders > 0 {
        transaction.put(content_key, &content)?;
        return Ok(None);
    }
    transaction.delete(Table::Content, content_key)?;
    Ok(Some(content.size))
}

/// Adds a namespace's record of a blob whose file is in place.
pub(crate) fn hold(
    transaction: &Transaction<'_>,
    namespace: &storage_model::Namespace,
    digest: &Digest,
    record: &BlobRecord,
) -> Result<(), StoreError> {
    transaction.put(&key::blob(namespace, digest), record)?;
    let content_key = digest.as_bytes();
    let holders = transaction.lock::<ContentRecord>(content_key)?.map_or(0, |content| content.holders);
    transaction.put(content_key, &ContentRecord { size: record.size, holders: holders.saturating_add(1) })
}

impl Space {
    /// A blob of this namespace.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the namespace does not have it, whoever else may.
    pub fn blob(&self, digest: &Digest) -> Result<BlobInfo, StoreError> {
        let record: Option<BlobRecord> = self.store.0.metadata.get(&key::blob(&self.namespace, digest))?;
        Ok(record.ok_or_else(|| StoreError::not_found(Subject::Blob, digest))?.named(*digest))
    }

    /// A blob of this namespace, added to the lease of this view in the same step: it cannot be collected in between.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the namespace does not have it, or if the lease is gone.
    pub fn pin_blob(&self, digest: &Digest) -> Result<BlobInfo, StoreError> {
        let blob_key = key::blob(&self.namespace, digest);
        let record = self.change([Node::blob(&self.namespace, digest)], |transaction| {
            let record = transaction
                .share::<BlobRecord>(&blob_key)?
                .ok_or_else(|| StoreError::not_found(Subject::Blob, digest))?;
            self.join_lease(transaction, &Resource::content(digest))?;
            Ok(record)
        })?;
        Ok(record.named(*digest))
    }

    /// Calls `visit` with every blob of this namespace, by digest, until it breaks.
    ///
    /// # Errors
    /// [`StoreError::Metadata`] if the records cannot be read; a single one that cannot is left out.
    pub fn blobs(&self, visit: &mut dyn FnMut(BlobInfo) -> ControlFlow<()>) -> Result<(), StoreError> {
        let prefix = key::namespace_prefix(&self.namespace);
        self.store.0.metadata.walk_readable(&prefix, |row, record: BlobRecord| {
            match digest_of(&row[prefix.len()..]) {
                Some(digest) => visit(record.named(digest)),
                None => ControlFlow::Continue(()),
            }
        })
    }

    /// Opens the bytes of a blob for reading. They stay readable while the file is open, whatever is deleted.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the namespace does not have it; [`StoreError::Lost`] if its file is not as it was
    /// written: whoever ingests it next gets to fetch it again. [`StoreError::Io`] if its file cannot be opened.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        let size = self.blob(digest)?.size;
        let path = self.store.blob_path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.blob(digest)?; // deleted meanwhile?
                return Err(StoreError::Lost { digest: *digest });
            }
            Err(error) => return Err(StoreError::io("open", &path, error)),
        };
        if file.metadata().doing("inspect", &path)?.len() == size {
            Ok(file)
        } else {
            Err(StoreError::Lost { digest: *digest })
        }
    }

    /// Size and bytes of a blob that other namespaces have and this one does not: [`Space::ingest`] with its digest would
    /// take it over. None if this one has it, or nobody.
    ///
    /// # Errors
    /// [`StoreError::Metadata`] if the records cannot be read; [`StoreError::Io`] if the file cannot be opened.
    pub fn blob_elsewhere(&self, digest: &Digest) -> Result<Option<(u64, File)>, StoreError> {
        let metadata = &self.store.0.metadata;
        if metadata.contains(Table::Blobs, &key::blob(&self.namespace, digest))? {
            return Ok(None);
        }
        let Some(content) = metadata.get::<ContentRecord>(digest.as_bytes())? else { return Ok(None) };
        let path = self.store.blob_path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("open", &path, error)),
        };
        let is_whole = file.metadata().doing("inspect", &path)?.len() == content.size;
        Ok(is_whole.then_some((content.size, file)))
    }

    /// Changes the labels of a blob in this namespace.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the namespace does not have it; [`StoreError::Labels`] if a label is too long.
    pub fn set_blob_labels(&self, digest: &Digest, change: LabelChange) -> Result<BlobInfo, StoreError> {
        let blob_key = key::blob(&self.namespace, digest);
        let record = self.change([Node::blob(&self.namespace, digest)], |transaction| {
            let mut record = transaction
                .lock::<BlobRecord>(&blob_key)?
                .ok_or_else(|| StoreError::not_found(Subject::Blob, digest))?;
            change.apply(&mut record.labels)?;
            record.updated = SystemTime::now();
            transaction.put(&blob_key, &record)?;
            Ok(record)
        })?;
        Ok(record.named(*digest))
    }

    /// Deletes a blob from this namespace, even if something refers to it. Its bytes go when no namespace has it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the namespace does not have it.
    pub fn delete_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        let blob_key = key::blob(&self.namespace, digest);
        let freed = self.delete(|transaction| {
            if transaction.lock::<BlobRecord>(&blob_key)?.is_none() {
                return Err(StoreError::not_found(Subject::Blob, digest));
            }
            self.leave_lease(transaction, &Resource::content(digest))?;
            release(transaction, &self.namespace, digest)
        })?;
        if let Some(size) = freed {
            self.store.discard_content(digest, size)?;
            self.store.0.trash.empty_soon();
        }
        self.store.tell(&self.namespace, || Change::ContentDeleted { digest: *digest });
        Ok(())
    }
}

impl Store {
    /// The namespaces that have a blob, as far as they can be read.
    pub(crate) fn holders_of(&self, digest: &Digest) -> Vec<storage_model::Namespace> {
        let mut found = Vec::new();
        let metadata = &self.0.metadata;
        let _ = metadata.walk_readable(&[], |row, _: NamespaceRecord| {
            if let Some((namespace, _)) = key::split_namespace(row)
                && metadata.contains(Table::Blobs, &key::blob(&namespace, digest)).unwrap_or(false)
            {
                found.push(namespace);
            }
            ControlFlow::Continue(())
        });
        found
    }

    /// Takes away the file of a blob that has no record any more, unless it got one since.
    pub(crate) fn discard_content(&self, digest: &Digest, size: u64) -> Result<(), StoreError> {
        let _here = self.0.digests.lock(std::iter::once(digest));
        if self.0.metadata.contains(Table::Content, digest.as_bytes())? {
            return Ok(());
        }
        let path = self.blob_path(digest);
        if size > UNLINK_BYTES_MAX {
            return self.0.trash.discard(&path);
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", &path, error))
            }
            _ => Ok(()),
        }
    }
}

/// Largest file that is unlinked at once, in bytes. Giving back the blocks of a larger one takes milliseconds, for which
/// others would wait: it goes through the trash.
const UNLINK_BYTES_MAX: u64 = 16 << 20;
