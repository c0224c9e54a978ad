//! Brings bytes into the store: a file that grows, a running digest, and a reference that finds both again.
//!
//! `ingests/<id>/` holds `info` (whose it is, what is expected, since when) and `data`; `<id>` is the hash of namespace and
//! reference, so a reference is found without a table. One writer at a time holds a reference. Whoever dies or lets go
//! leaves the ingest for the next one, who hashes what is there and goes on from its end: bytes on disk are never
//! believed, only what was hashed by this process counts.
//!
//! `0 <= offset <= expected.size`; the running digest covers exactly the first `offset` bytes of `data`.
//!
//! Not here: making a blob of it (`publish`), forgetting it after a day (`collect`).

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use storage_model::{Digest, Hasher, Namespace};

use crate::blob::{BlobRecord, ContentRecord, hold};
use crate::change::Change;
use crate::collect::Node;
use crate::error::IoContext as _;
use crate::ingest_files::{Info, id_of, list, load, write_info};
use crate::lease::Resource;
use crate::metadata::key::{self, check_name};
use crate::metadata::{Durability, Table};
use crate::space::Space;
use crate::store::Store;
use crate::{StoreError, Subject};

/// What an ingest should become.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Its digest, when it is known.
    pub digest: Option<Digest>,
    /// Its size in bytes, when it is known. More bytes are refused as they come.
    pub size: Option<u64>,
}

impl Expected {
    /// Both known: what a descriptor says.
    pub fn exactly(digest: Digest, size: u64) -> Self {
        Self { digest: Some(digest), size: Some(size) }
    }
}

/// State of an ingest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestStatus {
    /// Its reference.
    pub reference: String,
    /// Bytes it has.
    pub offset: u64,
    /// What it should become.
    pub expected: Expected,
    /// When it was begun.
    pub started: SystemTime,
    /// When bytes last came.
    pub updated: SystemTime,
}

/// An ingest that this value alone may write to. Dropping it keeps what was written.
#[derive(Debug)]
pub struct Ingest {
    pub(crate) space: Space,
    _claim: Claim,
    pub(crate) directory: PathBuf,
    pub(crate) info: Info,
    pub(crate) file: File,
    pub(crate) hasher: Hasher,
    updated: SystemTime,
    resumed_bytes: u64,
}

/// The right to write to an ingest; given back when dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    store: Store,
    id: String,
}

impl Claim {
    /// Claims an ingest, unless someone else has.
    pub(crate) fn take(store: &Store, id: &str) -> Option<Self> {
        let fresh = writing(store).insert(id.to_owned());
        fresh.then(|| Self { store: store.clone(), id: id.to_owned() })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        writing(&self.store).remove(&self.id);
    }
}

fn writing(store: &Store) -> MutexGuard<'_, std::collections::HashSet<String>> {
    store.0.writing.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A blob that needs not be fetched.
enum Adopted {
    /// The namespace had it.
    Held,
    /// Another namespace had it, and now both do.
    Fresh {
        /// Its size in bytes.
        size: u64,
    },
}

impl Space {
    /// Begins an ingest, or takes one up where it was left: [`Ingest::offset`] says where that is, after what is there was
    /// hashed again.
    ///
    /// `expected` replaces what was expected before, as far as it says something.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] if the namespace has the expected blob, or has it now because another one did; the
    /// blob has then joined the lease of this view, and the ingest is gone.
    /// [`StoreError::Busy`] if the reference has a writer; [`StoreError::Full`] if there is no room.
    pub fn ingest(&self, reference: &str, expected: Expected) -> Result<Ingest, StoreError> {
        check_name(Subject::Ingest, reference)?;
        let id = id_of(&self.namespace, reference);
        let claim = Claim::take(&self.store, &id)
            .ok_or_else(|| StoreError::Busy { reference: reference.to_owned() })?;
        let directory = self.store.0.layout.ingests.join(&id);
        if let Some(digest) = &expected.digest
            && let Some(adopted) = self.adopt_blob(digest)?
        {
            self.store.discard(&directory)?;
            drop(claim);
            if let Adopted::Fresh { size } = adopted {
                self.store.tell(&self.namespace, || Change::ContentCreated { digest: *digest, size });
            }
            return Err(StoreError::already_exists(Subject::Blob, digest));
        }
        let resource = Resource::ingest(reference);
        let mut touched = vec![Node::ingest(&self.namespace, reference)];
        touched.extend(expected.digest.iter().map(|digest| Node::blob(&self.namespace, digest)));
        // An ingest is no promise, and without its lease it is still kept for a day: no sync for it.
        self.change_with(Durability::Written, touched, |transaction| {
            self.join_lease(transaction, &resource)
        })?;
        Ingest::open(self.clone(), claim, directory, reference, expected)
    }

    /// The blob as this namespace has it, taking it over from another one that does. It joins the lease of this view.
    fn adopt_blob(&self, digest: &Digest) -> Result<Option<Adopted>, StoreError> {
        let inner = &self.store.0;
        let blob_key = key::blob(&self.namespace, digest);
        if !inner.metadata.contains(Table::Content, digest.as_bytes())? {
            return Ok(None);
        }
        let here = inner.digests.lock(std::iter::once(digest));
        let Some(content) = inner.metadata.get::<ContentRecord>(digest.as_bytes())? else {
            return Ok(None);
        };
        let found_bytes = self.store.blob_path(digest).metadata().map(|facts| facts.len());
        if !found_bytes.is_ok_and(|bytes| bytes == content.size) {
            let quarantined = self.store.quarantine_locked(digest)?;
            drop(here);
            quarantined.iter().for_each(|one| self.store.tell_quarantined(one));
            return Ok(None);
        }
        self.change([Node::blob(&self.namespace, digest)], |transaction| {
            let Some(content) = transaction.lock::<ContentRecord>(digest.as_bytes())? else {
                return Ok(None);
            };
            let fresh = transaction.lock::<BlobRecord>(&blob_key)?.is_none();
            if fresh {
                let record = BlobRecord::new(content.size, storage_model::Labels::new());
                hold(transaction, &self.namespace, digest, &record)?;
            }
            self.join_lease(transaction, &Resource::content(digest))?;
            Ok(Some(if fresh { Adopted::Fresh { size: content.size } } else { Adopted::Held }))
        })
    }

    /// Takes back a file that has no record, so that it is hashed and not fetched again: one of a commit that failed after
    /// it was put in place, or one whose record was lost to damage.
    ///
    /// Only after a transaction has gone through: the metadata was opened anew if it had to be, and what it says of the
    /// failed commit is certain.
    fn take_back(&self, digest: &Digest, directory: &Path) -> Result<(), StoreError> {
        let path = self.store.blob_path(digest);
        let data = directory.join("data");
        if !path.exists() || data.exists() {
            return Ok(());
        }
        let _here = self.store.0.digests.lock(std::iter::once(digest));
        if self.store.0.metadata.get::<ContentRecord>(digest.as_bytes())?.is_some() {
            return Ok(());
        }
        std::fs::rename(&path, &data).doing("resume", &data)
    }

    /// The ingests of this namespace, in no order. The offset of one that is being written may be behind.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the directory of ingests cannot be listed.
    pub fn ingests(&self) -> Result<Vec<IngestStatus>, StoreError> {
        let found = list(&self.store.0.layout)?;
        Ok(found.into_iter().filter(|one| one.namespace == self.namespace).map(|one| one.status()).collect())
    }

    /// State of one ingest of this namespace.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none with that reference.
    pub fn ingest_status(&self, reference: &str) -> Result<IngestStatus, StoreError> {
        let id = id_of(&self.namespace, reference);
        let directory = self.store.0.layout.ingests.join(&id);
        let found = load(id, directory).ok_or_else(|| StoreError::not_found(Subject::Ingest, reference))?;
        Ok(found.status())
    }

    /// Removes an ingest and what was written.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none with that reference; [`StoreError::Busy`] if it has a writer.
    pub fn abort_ingest(&self, reference: &str) -> Result<(), StoreError> {
        let id = id_of(&self.namespace, reference);
        let _claim = Claim::take(&self.store, &id)
            .ok_or_else(|| StoreError::Busy { reference: reference.to_owned() })?;
        let directory = self.store.0.layout.ingests.join(&id);
        if !directory.exists() {
            return Err(StoreError::not_found(Subject::Ingest, reference));
        }
        self.forget_ingest(reference, &directory)
    }

    fn forget_ingest(&self, reference: &str, directory: &Path) -> Result<(), StoreError> {
        self.store.discard(directory)?;
        if self.lease.is_some() {
            self.delete(|transaction| self.leave_lease(transaction, &Resource::ingest(reference)))?;
        }
        Ok(())
    }
}

impl Ingest {
    fn open(
        space: Space,
        claim: Claim,
        directory: PathBuf,
        reference: &str,
        expected: Expected,
    ) -> Result<Self, StoreError> {
        let before = load(claim.id.clone(), directory.clone()).map(|found| found.info);
        if before.is_none() && directory.exists() {
            space.store.discard(&directory)?;
        }
        let earlier = before.as_ref().map_or_else(Expected::default, |info| info.expected);
        let info = Info {
            namespace: space.namespace.to_string(),
            reference: reference.to_owned(),
            expected: Expected {
                digest: expected.digest.or(earlier.digest),
                size: expected.size.or(earlier.size),
            },
            started: before.as_ref().map_or_else(SystemTime::now, |info| info.started),
        };
        if before.is_none() {
            DirBuilder::new().mode(0o700).create(&directory).doing("create", &directory)?;
        }
        if before.is_none_or(|before| before.expected != info.expected) {
            write_info(&directory, &info)?;
        }
        if let Some(digest) = &info.expected.digest {
            space.take_back(digest, &directory)?;
        }
        let path = directory.join("data");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).doing("open", &path)?;
        let updated = info.started;
        let mut ingest = Self {
            space,
            _claim: claim,
            directory,
            info,
            file,
            hasher: Hasher::new(),
            updated,
            resumed_bytes: 0,
        };
        ingest.rehash(u64::MAX)?;
        Ok(ingest)
    }

    /// Hashes the first `bytes` of what is on disk and drops the rest.
    fn rehash(&mut self, bytes: u64) -> Result<(), StoreError> {
        let path = self.data_path();
        let wanted = self.info.expected.size.unwrap_or(u64::MAX).min(bytes);
        let mut from = File::open(&path).doing("open", &path)?.take(wanted);
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match from.read(&mut buffer).doing("read", &path)? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        let facts = self.file.metadata().doing("look at", &path)?;
        self.updated = facts.modified().map_or(self.info.started, |at| at.max(self.info.started));
        if facts.len() != hasher.bytes() {
            self.file.set_len(hasher.bytes()).doing("cut", &path)?;
            self.updated = SystemTime::now();
            self.keep_time();
        }
        self.resumed_bytes = hasher.bytes();
        self.hasher = hasher;
        Ok(())
    }

    /// Bytes there are.
    pub fn offset(&self) -> u64 {
        self.hasher.bytes()
    }

    /// How many of the bytes were there when this value was made. After a power cut their tail may be wrong although they
    /// were right when written; a digest that does not match is then worth one more attempt from 0.
    pub fn resumed_bytes(&self) -> u64 {
        self.resumed_bytes
    }

    /// What it should become.
    pub fn expected(&self) -> Expected {
        self.info.expected
    }

    /// Digest of the bytes there are.
    pub fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// State of this ingest.
    pub fn status(&self) -> IngestStatus {
        IngestStatus {
            reference: self.info.reference.clone(),
            offset: self.offset(),
            expected: self.info.expected,
            started: self.info.started,
            updated: self.updated,
        }
    }

    /// Appends `bytes`, and hashes them.
    ///
    /// # Errors
    /// [`StoreError::SizeMismatch`] if there would be more than expected; [`StoreError::Full`] or [`StoreError::Io`] if the
    /// disk refused. Nothing of `bytes` counts then, and the same call may be tried again.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let end = self.offset().saturating_add(bytes.len() as u64);
        if let Some(expected) = self.info.expected.size
            && end > expected
        {
            return Err(StoreError::SizeMismatch {
                reference: self.info.reference.clone(),
                expected,
                actual: end,
            });
        }
        self.file
            .write_all_at(bytes, self.offset())
            .map_err(|error| StoreError::io("write", &self.data_path(), error))?;
        self.hasher.update(bytes);
        self.updated = SystemTime::now();
        self.keep_time();
        Ok(())
    }

    /// Reads what was written, from the beginning; it sees what is written later too.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the file cannot be opened.
    pub fn reader(&self) -> Result<File, StoreError> {
        let path = self.data_path();
        File::open(&path).doing("open", &path)
    }

    /// Drops everything behind `size` bytes. Costs reading what stays.
    ///
    /// # Errors
    /// [`StoreError::Offset`] if there are fewer bytes.
    pub fn truncate(&mut self, size: u64) -> Result<(), StoreError> {
        if size > self.offset() {
            let (reference, offset) = (self.info.reference.clone(), size);
            return Err(StoreError::Offset { reference, offset, size: self.offset() });
        }
        if size == self.offset() { Ok(()) } else { self.rehash(size) }
    }

    /// Removes the ingest and what was written.
    ///
    /// # Errors
    /// [`StoreError::Io`] if it could not be removed; a collection does it after a day.
    pub fn abort(self) -> Result<(), StoreError> {
        self.space.forget_ingest(&self.info.reference, &self.directory)
    }

    /// Puts the time of the last change on the file, where another process or [`Space::ingest_status`] finds it. The kernel's
    /// own mark is up to a tick (4 ms) older, which containerd's content suite takes for a change that did not happen.
    fn keep_time(&self) {
        // A time is worth no error: the kernel's mark stays then.
        let _ = self.file.set_modified(self.updated);
    }

    pub(crate) fn data_path(&self) -> PathBuf {
        self.directory.join("data")
    }
}

/// Size of one read while hashing again, in bytes: large enough that the call costs nothing beside the hash.
const READ_BYTES: usize = 256 * 1024;

/// Whether an ingest has a writer.
pub(crate) fn is_written(store: &Store, id: &str) -> bool {
    writing(store).contains(id)
}

/// How many ingests of a namespace have a writer.
pub(crate) fn writers_in(store: &Store, namespace: &Namespace) -> Result<usize, StoreError> {
    let found = list(&store.0.layout)?;
    let held = writing(store);
    Ok(found.iter().filter(|one| one.namespace == *namespace && held.contains(&one.id)).count())
}

/// Removes every ingest of a namespace that has no writer.
pub(crate) fn discard_namespace(store: &Store, namespace: &Namespace) -> Result<(), StoreError> {
    for one in list(&store.0.layout)?.iter().filter(|one| one.namespace == *namespace) {
        if let Some(_claim) = Claim::take(store, &one.id) {
            store.discard(&one.directory)?;
        }
    }
    Ok(())
}
