//! What was fetched and verified, on disk, for all images and all future starts.
//!
//! ```text
//! cache/  lock       held by the process that uses it
//!         FORMAT     which format this is
//!         session    how the last process left it: decides whether journals are believed
//!         packs/     chunks of small files (`pack.rs`)
//!         objects/   large files, each by itself (`object.rs`)
//! ```
//! A chunk is absent or there; what is there was verified before. Bytes are written before the record that says so, and
//! nothing is synced on the way: after kill -9 the page cache has both. After a power cut or a reboot without a clean end,
//! a record may be there without its bytes, so each chunk is compared with its digest when it is first read
//! (`session.rs`). At any time each block read is compared with its checksum. A chunk that is found damaged is forgotten
//! and fetched again: nothing here is ever repaired, and nothing here is the only copy.
//!
//! When the disk is full or the quota reached, what no mounted image needs goes, the least recently used first
//! (`evict.rs`); if that gives nothing, bytes are served without being kept.
//!
//! Not here: fetching and verifying. What is stored here is believed.

mod blocks;
mod evict;
mod journal;
mod object;
mod pack;
mod session;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::SystemTime;

use storage_model::Digest;

use crate::{Config, FetchError};
use evict::Pressure;
use object::Objects;
use pack::Packs;
use session::Session;

pub(crate) use object::Object;
pub(crate) use pack::Found;

/// Longest file whose chunks go to packs, in bytes: a longer one is worth an inode, and passthrough.
pub(crate) const SMALL_BYTES_MAX: u64 = 1024 * 1024;

/// Locks. What a panic elsewhere leaves is sound: each change is made in one step, or in an order that allows it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks for reading. See [`lock`].
pub(crate) fn read_lock<T>(shared: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    shared.read().unwrap_or_else(PoisonError::into_inner)
}

/// Locks for writing. See [`lock`].
pub(crate) fn write_lock<T>(shared: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    shared.write().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds since 1970, for ages: a clock that jumps makes eviction unwise, not wrong.
fn now() -> u32 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as u32)
}

/// Which digests mounted images need: asked only when something has to go.
pub(crate) trait Pins: Send + Sync {
    /// Calls `pin` with each chunk of small files that is needed, by content or by alias.
    fn each(&self, pin: &mut dyn FnMut(Digest));
}

/// Where a chunk is kept.
#[derive(Clone)]
pub(crate) enum Place {
    /// In a pack, by the digest of its bytes.
    Content(Digest),
    /// In a pack, by a name that stands for a digest not known beforehand.
    Named(Digest),
    /// At its place in a large file: offset and length there.
    Object(Arc<Object>, (u64, u64)),
}

/// The cache.
pub(crate) struct Cache {
    directory: PathBuf,
    packs: Packs,
    objects: Objects,
    session: Session,
    pressure: Pressure,
    pins: Arc<dyn Pins>,
    /// Bytes on disk, as far as counted here.
    bytes: AtomicU64,
    /// Bytes that were served without being kept.
    pub(crate) uncached_bytes: AtomicU64,
    /// Bytes given up for others.
    pub(crate) evicted_bytes: AtomicU64,
    /// Chunks found damaged.
    pub(crate) damaged: AtomicU64,
}

impl Cache {
    /// Opens the cache in `directory`, or makes it.
    pub(crate) fn open(directory: &Path, config: &Config, pins: Arc<dyn Pins>) -> Result<Self, FetchError> {
        let failed = |doing| {
            move |source: io::Error| FetchError::Cache {
                path: directory.to_owned(),
                doing,
                source: Arc::new(source),
            }
        };
        std::fs::create_dir_all(directory).map_err(failed("made"))?;
        let session = Session::begin(directory)?;
        let proved = session.is_proved();
        let packs = Packs::open(directory.join("packs"), proved).map_err(failed("read"))?;
        let objects = Objects::open(directory.join("objects"), proved).map_err(failed("read"))?;
        let bytes = packs.bytes() + objects.bytes();
        Ok(Self {
            directory: directory.to_owned(),
            packs,
            objects,
            session,
            pressure: Pressure::new(config.quota_bytes, config.reserve_bytes),
            pins,
            bytes: AtomicU64::new(bytes),
            uncached_bytes: AtomicU64::new(0),
            evicted_bytes: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
        })
    }

    /// The object with this identity.
    pub(crate) fn object(&self, id: Digest, size: u64) -> Arc<Object> {
        self.objects.get(id, size)
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether a chunk is here.
    pub(crate) fn has(&self, place: &Place) -> bool {
        match place {
            Place::Content(content) => self.packs.has(content),
            Place::Named(name) => self.packs.content_of(name).is_some_and(|content| self.packs.has(&content)),
            Place::Object(object, at) => object.has(*at),
        }
    }

    /// Fills `out` with the bytes of a chunk from `from` on, if it is here and sound. What is written to `out` otherwise is
    /// undefined.
    pub(crate) fn read(&self, place: &Place, from: u64, out: &mut [u8]) -> bool {
        let small = |content: &Digest, out: &mut [u8]| match self.packs.read(content, from, out) {
            // It may have moved to another pack between two looks.
            Found::Miss => self.packs.read(content, from, out),
            found => found,
        };
        let found = match place {
            Place::Content(content) => small(content, out),
            Place::Named(name) => {
                self.packs.content_of(name).map_or(Found::Miss, |content| small(&content, out))
            }
            Place::Object(object, at) => object.read(*at, from, out),
        };
        if found == Found::Damaged {
            self.damaged.fetch_add(1, Ordering::Relaxed);
        }
        found == Found::Hit
    }

    /// Keeps a verified chunk, if there is room. Returns whether it is kept; if not, it is as if it never came.
    pub(crate) fn store(&self, place: &Place, content: Digest, bytes: &[u8]) -> bool {
        let length = bytes.len() as u64;
        if !self.make_room(length) {
            self.uncached_bytes.fetch_add(length, Ordering::Relaxed);
            return false;
        }
        let mut stored = self.try_store(place, content, bytes);
        if stored.as_ref().is_err_and(is_full) && self.evict(length.max(evict::STEP_BYTES)) {
            stored = self.try_store(place, content, bytes);
        }
        match stored {
            Ok(added) => {
                self.bytes.fetch_add(added, Ordering::Relaxed);
                true
            }
            Err(error) => {
                if is_full(&error) {
                    self.pressure.refused();
                }
                tracing::warn!(%error, "bytes are served without being kept");
                self.uncached_bytes.fetch_add(length, Ordering::Relaxed);
                false
            }
        }
    }

    fn try_store(&self, place: &Place, content: Digest, bytes: &[u8]) -> io::Result<u64> {
        let small = |content: Digest| {
            let known = self.packs.has(&content);
            self.packs.store(content, bytes)?;
            Ok(if known { 0 } else { bytes.len() as u64 })
        };
        match place {
            Place::Content(content) => small(*content),
            Place::Named(name) => {
                let added = small(content)?;
                self.packs.alias(*name, content)?;
                Ok(added)
            }
            Place::Object(object, at) => object.store(at.0, content, bytes),
        }
    }

    /// Writes everything back and notes that the next process may believe the journals.
    pub(crate) fn close(&self) -> Result<(), FetchError> {
        self.session.end(&self.directory).map_err(|source| FetchError::Cache {
            path: self.directory.clone(),
            doing: "written back",
            source: Arc::new(source),
        })
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
