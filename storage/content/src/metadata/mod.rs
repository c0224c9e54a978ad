//! The metadata store: tables of records, changed only in transactions that are on disk when they return.
//!
//! RocksDB behind a small face (`database`): the rest of the crate sees tables, keys and records.
//!
//! A full disk must not outlive itself. RocksDB takes no more writes after one that found the disk full, even when there is
//! room again; so the first change after that opens it anew. Reading goes on all the while. Deletions go through even then,
//! by room that was kept for them (`reserve`). Nor must damage outlive itself: what a flipped bit hits is lost, the rest is
//! saved when the store is opened (`damage`, `salvage`).
//!
//! Not here: what the records mean.

mod damage;
mod database;
pub(crate) mod key;
mod log;
pub(crate) mod record;
mod reserve;
mod salvage;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use storage_sys::durable::free_bytes;

use crate::StoreError;
use crate::error::IoContext as _;
pub use damage::MetadataState;
use database::{Database, LogMode};
pub(crate) use database::{Durability, Transaction};
pub(crate) use record::Record;
use reserve::Reserve;

/// One kind of record: a column family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    /// Facts about the store itself.
    Meta,
    /// Namespaces.
    Namespaces,
    /// Bytes by digest, over all namespaces.
    Content,
    /// Blobs of a namespace.
    Blobs,
    /// Images.
    Images,
    /// Leases.
    Leases,
    /// What each lease keeps.
    LeaseResources,
    /// Containers.
    Containers,
    /// Snapshots.
    Snapshots,
    /// Edges from a snapshot to those that stand on it.
    SnapshotChildren,
}

impl Table {
    const ALL: [Self; 10] = [
        Self::Meta,
        Self::Namespaces,
        Self::Content,
        Self::Blobs,
        Self::Images,
        Self::Leases,
        Self::LeaseResources,
        Self::Containers,
        Self::Snapshots,
        Self::SnapshotChildren,
    ];

    /// Name of the column family, and word for messages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Namespaces => "namespaces",
            Self::Content => "content",
            Self::Blobs => "blobs",
            Self::Images => "images",
            Self::Leases => "leases",
            Self::LeaseResources => "lease-resources",
            Self::Containers => "containers",
            Self::Snapshots => "snapshots",
            Self::SnapshotChildren => "snapshot-children",
        }
    }
}

/// The metadata store.
pub(crate) struct Metadata {
    path: PathBuf,
    reserve: Reserve,
    state: RwLock<State>,
}

struct State {
    /// None only if it could not be opened again after the disk was full.
    database: Option<Arc<Database>>,
    /// Whether a write found the disk full since it was opened.
    full: bool,
}

/// Attempts of a transaction that met another in a circle. Each attempt lets at least one of the others through.
const ATTEMPTS_MAX: usize = 16;

/// Room that opening needs besides what the log holds, in bytes: tables, a manifest, a new log.
const OPEN_BYTES: u64 = 1 << 20;

impl Metadata {
    /// Opens the store at `path`, creating it if it is absent, and saving what can be saved if it is damaged. `quarantine`
    /// is where a damaged one goes.
    pub(crate) fn open(path: &Path, quarantine: &Path) -> Result<(Self, MetadataState), StoreError> {
        let (database, found) = damage::open(path, quarantine)?;
        let database = Some(Arc::new(database));
        let reserve = Reserve(path.with_file_name("reserve"));
        reserve.take();
        let state = RwLock::new(State { database, full: false });
        Ok((Self { path: path.to_path_buf(), reserve, state }, found))
    }

    /// Keeps room for deletions again, if there is some.
    pub(crate) fn keep_room(&self) {
        self.reserve.take();
    }

    /// The record under `key`, as of now.
    pub(crate) fn get<R: Record>(&self, key: &[u8]) -> Result<Option<R>, StoreError> {
        self.database()?.get(key)
    }

    /// Whether there is a record under `key`, as of now.
    pub(crate) fn contains(&self, table: Table, key: &[u8]) -> Result<bool, StoreError> {
        self.database()?.contains(table, key)
    }

    /// Calls `visit` with each key and value of `table` that begins with `prefix`, in order, as of the start of the call.
    pub(crate) fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        self.database()?.scan(table, prefix, visit)
    }

    /// Calls `visit` with each record whose key begins with `prefix`, in order, as of the start of the call.
    pub(crate) fn walk<R: Record>(
        &self,
        prefix: &[u8],
        mut visit: impl FnMut(&[u8], R) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.scan(R::TABLE, prefix, |key, value| Ok(visit(key, record::decode(key, value)?)))
    }

    /// Like [`Metadata::walk`], and leaves out what cannot be read: for lists, where one damaged record must not hide the
    /// others, and never for what decides whether something may go. `Store::check` finds what was left out.
    pub(crate) fn walk_readable<R: Record>(
        &self,
        prefix: &[u8],
        mut visit: impl FnMut(&[u8], R) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.scan(R::TABLE, prefix, |key, value| match record::decode(key, value) {
            Ok(record) => Ok(visit(key, record)),
            Err(error) => {
                tracing::warn!(%error, "a record is left out of a list");
                Ok(ControlFlow::Continue(()))
            }
        })
    }

    /// Runs `body` in a transaction and commits it durably; nothing happens if `body` fails.
    ///
    /// `body` may run more than once, so it must only read, and write through the transaction.
    pub(crate) fn transact<T>(
        &self,
        body: impl FnMut(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.transact_with(Durability::Synced, body)
    }

    /// Like [`Metadata::transact`], as durable as it says.
    pub(crate) fn transact_with<T>(
        &self,
        durability: Durability,
        mut body: impl FnMut(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let database = self.writable()?;
        let mut attempt = 1;
        loop {
            match database.attempt(durability, &mut body) {
                Err(error) if error.is_conflict() && attempt < ATTEMPTS_MAX => {
                    tracing::debug!(attempt, %error, "metadata transaction runs again");
                    attempt += 1;
                }
                Err(error @ StoreError::Full { .. }) => {
                    self.state.write().unwrap_or_else(PoisonError::into_inner).full = true;
                    return Err(error);
                }
                other => return other,
            }
        }
    }

    /// Like [`Metadata::transact`], for a `body` that only deletes: on a full disk it takes the room that was kept for it.
    pub(crate) fn transact_deletion<T>(
        &self,
        body: impl FnMut(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.transact_deletion_with(Durability::Synced, body)
    }

    /// Like [`Metadata::transact_deletion`], as durable as it says.
    pub(crate) fn transact_deletion_with<T>(
        &self,
        durability: Durability,
        mut body: impl FnMut(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match self.transact_with(durability, &mut body) {
            Err(StoreError::Full { .. }) if self.reserve.give_up() => self.transact_with(durability, body),
            other => other,
        }
    }

    /// Makes everything written so far durable.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.database()?.sync()
    }

    fn database(&self) -> Result<Arc<Database>, StoreError> {
        let open = self.state.read().unwrap_or_else(PoisonError::into_inner).database.clone();
        open.map_or_else(|| self.writable(), Ok)
    }

    /// The database, opened anew if it takes no more writes and there is room again.
    fn writable(&self) -> Result<Arc<Database>, StoreError> {
        {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            if let (Some(database), false) = (&state.database, state.full) {
                return Ok(database.clone());
            }
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let (Some(database), false) = (&state.database, state.full) {
            return Ok(database.clone());
        }
        if free_bytes(&self.path).doing("inspect", &self.path)? < self.log_bytes()? + OPEN_BYTES {
            return Err(self.still_full());
        }
        // It can be closed only when nobody reads from it; otherwise the next change tries again.
        match state.database.take().map(Arc::try_unwrap) {
            Some(Err(in_use)) => {
                state.database = Some(in_use);
                return Err(self.still_full());
            }
            Some(Ok(database)) => drop(database),
            None => {}
        }
        tracing::info!(path = %self.path.display(), "there is room again: opening the metadata anew");
        let database = Arc::new(Database::open(&self.path, LogMode::Strict)?);
        *state = State { database: Some(database.clone()), full: false };
        Ok(database)
    }

    fn still_full(&self) -> StoreError {
        StoreError::io("write to", &self.path, std::io::ErrorKind::StorageFull.into())
    }

    /// Bytes of the write-ahead log, which opening turns into tables.
    fn log_bytes(&self) -> Result<u64, StoreError> {
        let mut bytes = 0;
        for entry in self.path.read_dir().doing("list", &self.path)? {
            let path = entry.doing("list", &self.path)?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                bytes += path.metadata().map_or(0, |facts| facts.len());
            }
        }
        Ok(bytes)
    }
}
