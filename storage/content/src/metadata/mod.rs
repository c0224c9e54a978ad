//! The metadata store: tables of records, changed only in transactions that are on disk when they return.
//!
//! RocksDB (`TransactionDB`) behind a small face: the rest of the crate sees tables, keys and records. A transaction locks
//! the rows it reads for update until it commits; two that lock the same rows run one after the other, and one that would
//! wait in a circle is run again. A commit syncs the write-ahead log, and concurrent commits share one sync.
//!
//! Not here: what the records mean.

pub(crate) mod key;
pub(crate) mod record;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, Direction, IteratorMode, Options, ReadOptions, SingleThreaded,
    TransactionDB, TransactionDBOptions, TransactionOptions, WriteOptions,
};

pub(crate) use record::Record;

use crate::StoreError;

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

/// The open metadata store.
pub(crate) struct Metadata {
    db: TransactionDB<SingleThreaded>,
    path: PathBuf,
}

/// How long a transaction waits for a row that another holds, in milliseconds. Holders keep rows for one sync of the log
/// (under 1 ms here, 30 ms on a slow disk); 10 s passes only if the disk hangs.
const ROW_WAIT_MS: i64 = 10_000;

/// Attempts of a transaction that met another in a circle. Each attempt lets at least one of the others through.
const ATTEMPTS_MAX: usize = 16;

impl Metadata {
    /// Opens the store at `path`, creating it if it is absent.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let families = Table::ALL.map(|table| ColumnFamilyDescriptor::new(table.name(), family_options()));
        let db = TransactionDB::open_cf_descriptors(
            &database_options(),
            &TransactionDBOptions::default(),
            path,
            families,
        )
        .map_err(|source| failed("open", path, source))?;
        Ok(Self { db, path: path.to_path_buf() })
    }

    /// The record under `key`, as of now.
    pub(crate) fn get<R: Record>(&self, key: &[u8]) -> Result<Option<R>, StoreError> {
        let value = self
            .db
            .get_pinned_cf(self.family(R::TABLE), key)
            .map_err(|source| self.failed("read a record", source))?;
        value.map(|bytes| record::decode(key, &bytes)).transpose()
    }

    /// Whether there is a record under `key`, as of now.
    pub(crate) fn contains(&self, table: Table, key: &[u8]) -> Result<bool, StoreError> {
        let value = self
            .db
            .get_pinned_cf(self.family(table), key)
            .map_err(|source| self.failed("read a record", source))?;
        Ok(value.is_some())
    }

    /// Calls `visit` with each key and value of `table` that begins with `prefix`, in order, as of the start of the call.
    pub(crate) fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let mut options = ReadOptions::default();
        if let Some(end) = key::behind(prefix) {
            options.set_iterate_upper_bound(end);
        }
        let start = IteratorMode::From(prefix, Direction::Forward);
        for row in self.db.iterator_cf_opt(self.family(table), options, start) {
            let (key, value) = row.map_err(|source| self.failed("list records", source))?;
            if visit(&key, &value)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Calls `visit` with each record whose key begins with `prefix`, in order, as of the start of the call.
    pub(crate) fn walk<R: Record>(
        &self,
        prefix: &[u8],
        mut visit: impl FnMut(&[u8], R) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.scan(R::TABLE, prefix, |key, value| Ok(visit(key, record::decode(key, value)?)))
    }

    /// Runs `body` in a transaction and commits it durably; nothing happens if `body` fails.
    ///
    /// `body` may run more than once, so it must only read, and write through the transaction.
    pub(crate) fn transact<T>(
        &self,
        mut body: impl FnMut(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut attempt = 1;
        loop {
            match self.attempt(&mut body) {
                Err(StoreError::Metadata { source, .. }) if conflict(&source) && attempt < ATTEMPTS_MAX => {
                    tracing::debug!(attempt, %source, "metadata transaction runs again");
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    fn attempt<T>(
        &self,
        body: &mut impl FnMut(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut write = WriteOptions::default();
        write.set_sync(true);
        let mut options = TransactionOptions::default();
        options.set_deadlock_detect(true);
        options.set_lock_timeout(ROW_WAIT_MS);
        let transaction = Transaction { metadata: self, inner: self.db.transaction_opt(&write, &options) };
        let value = body(&transaction)?;
        transaction.inner.commit().map_err(|source| self.failed("commit", source))?;
        Ok(value)
    }

    fn family(&self, table: Table) -> &ColumnFamily {
        self.db.cf_handle(table.name()).expect("every table was opened with the store")
    }

    fn failed(&self, action: &'static str, source: rocksdb::Error) -> StoreError {
        failed(action, &self.path, source)
    }
}

/// A transaction that has not committed.
pub(crate) struct Transaction<'db> {
    metadata: &'db Metadata,
    inner: rocksdb::Transaction<'db, TransactionDB<SingleThreaded>>,
}

impl Transaction<'_> {
    /// The record under `key`, held against every other transaction until this one ends, there or not.
    pub(crate) fn lock<R: Record>(&self, key: &[u8]) -> Result<Option<R>, StoreError> {
        self.read(key, true)
    }

    /// The record under `key`, held against change, but not against other readers, until this transaction ends.
    pub(crate) fn share<R: Record>(&self, key: &[u8]) -> Result<Option<R>, StoreError> {
        self.read(key, false)
    }

    fn read<R: Record>(&self, key: &[u8], exclusive: bool) -> Result<Option<R>, StoreError> {
        let family = self.metadata.family(R::TABLE);
        let value = self
            .inner
            .get_for_update_cf(family, key, exclusive)
            .map_err(|source| self.metadata.failed("read a record", source))?;
        value.map(|bytes| record::decode(key, &bytes)).transpose()
    }

    /// Writes `record` under `key`.
    pub(crate) fn put<R: Record>(&self, key: &[u8], record: &R) -> Result<(), StoreError> {
        self.put_raw(R::TABLE, key, &record::encode(record))
    }

    /// Writes an empty value under `key`: a row that says all in its key.
    pub(crate) fn mark(&self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.put_raw(table, key, &[])
    }

    fn put_raw(&self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.inner
            .put_cf(self.metadata.family(table), key, value)
            .map_err(|source| self.metadata.failed("write a record", source))
    }

    /// Removes what is under `key`, if anything is.
    pub(crate) fn delete(&self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.inner
            .delete_cf(self.metadata.family(table), key)
            .map_err(|source| self.metadata.failed("delete a record", source))
    }

    /// Removes everything whose key begins with `prefix` and is committed.
    pub(crate) fn delete_below(&self, table: Table, prefix: &[u8]) -> Result<(), StoreError> {
        let mut keys = Vec::new();
        self.metadata.scan(table, prefix, |key, _| {
            keys.push(key.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        keys.iter().try_for_each(|key| self.delete(table, key))
    }
}

/// Whether a transaction failed only because others ran beside it.
fn conflict(error: &rocksdb::Error) -> bool {
    matches!(error.kind(), rocksdb::ErrorKind::Busy | rocksdb::ErrorKind::TryAgain)
}

/// RocksDB reports a full disk as an I/O error whose text is the system's.
fn failed(action: &'static str, path: &Path, source: rocksdb::Error) -> StoreError {
    let text = source.to_string();
    if text.contains("No space left on device") || text.contains("Disk quota exceeded") {
        return StoreError::Full { action, path: path.to_path_buf(), source: Box::new(source) };
    }
    StoreError::Metadata { action, source }
}

/// Options of the whole store. The write-ahead log is kept short because it is replayed at start.
fn database_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_open_files(256);
    options.set_keep_log_file_num(2);
    options.set_log_level(rocksdb::LogLevel::Warn);
    options.set_max_total_wal_size(32 << 20);
    options.set_max_background_jobs(2);
    options
}

/// Options of one table.
fn family_options() -> Options {
    let mut options = Options::default();
    options.set_write_buffer_size(4 << 20);
    options
}
