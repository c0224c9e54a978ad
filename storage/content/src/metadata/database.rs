//! RocksDB as the rest of the crate sees it.
//!
//! A transaction (`TransactionDB`, pessimistic) locks the rows it reads until it commits: two that lock the same rows run
//! one after the other, and one that would wait in a circle fails with a conflict and is run again. A commit syncs the
//! write-ahead log, and concurrent commits share one sync.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DBRecoveryMode, Direction, IteratorMode,
    Options, ReadOptions, SingleThreaded, TransactionDB, TransactionDBOptions, TransactionOptions,
    WriteOptions,
};

use super::{Record, Table, key, record};
use crate::StoreError;
use crate::error::COMMIT;

/// An open RocksDB.
pub(super) struct Database {
    db: TransactionDB<SingleThreaded>,
    path: PathBuf,
}

/// What a transaction has reached when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The disk: it survives a power cut.
    Synced,
    /// The system: it survives our death, and a power cut if a synced one came after it. For what is no promise.
    Written,
}

/// How the log is read when the database is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogMode {
    /// A line that is not whole is fine at the end, where a crash leaves one, and damage elsewhere.
    Strict,
    /// Lines that are damaged are left out, those behind them are read.
    Skipping,
}

/// How long a transaction waits for a row that another holds, in milliseconds. Holders keep rows for one sync of the log
/// (under 1 ms here, 30 ms on a slow disk); 10 s passes only if the disk hangs.
const ROW_WAIT_MS: i64 = 10_000;

impl Database {
    pub(super) fn open(path: &Path, log: LogMode) -> Result<Self, StoreError> {
        let cache = Cache::new_lru_cache(CACHE_BYTES);
        let families =
            Table::ALL.map(|table| ColumnFamilyDescriptor::new(table.name(), family_options(&cache)));
        let options = TransactionDBOptions::default();
        let db = TransactionDB::open_cf_descriptors(&database_options(log), &options, path, families)
            .map_err(|source| failed("open", path, source))?;
        Ok(Self { db, path: path.to_path_buf() })
    }

    /// Reads every block of a table, which checks its checksum.
    pub(super) fn read_through(&self, table: Table) -> Result<(), StoreError> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let mut rows = self.db.raw_iterator_cf_opt(self.family(table), options);
        rows.seek_to_first();
        while rows.valid() {
            rows.next();
        }
        rows.status().map_err(|source| self.failed("read from", source))
    }

    /// Syncs the log.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.db.flush_wal(true).map_err(|source| self.failed("sync", source))
    }

    /// Makes tables of everything in the log, so that the log there is is not read at the next start. (For the sake of
    /// two-phase commits RocksDB keeps a log that it has replayed until a table is written after it.)
    pub(super) fn renew_log(&self) -> Result<(), StoreError> {
        let key = b"log-renewed";
        self.attempt(Durability::Synced, &mut |transaction| transaction.mark(Table::Meta, key))?;
        for table in Table::ALL {
            self.db.flush_cf(self.family(table)).map_err(|source| self.failed("write to", source))?;
        }
        Ok(())
    }

    /// The record under `key`, as of now.
    pub(super) fn get<R: Record>(&self, key: &[u8]) -> Result<Option<R>, StoreError> {
        let value = self
            .db
            .get_pinned_cf(self.family(R::TABLE), key)
            .map_err(|source| self.failed("read from", source))?;
        value.map(|bytes| record::decode(key, &bytes)).transpose()
    }

    /// Whether there is a record under `key`, as of now.
    pub(super) fn contains(&self, table: Table, key: &[u8]) -> Result<bool, StoreError> {
        let value = self
            .db
            .get_pinned_cf(self.family(table), key)
            .map_err(|source| self.failed("read from", source))?;
        Ok(value.is_some())
    }

    /// Calls `visit` with each key and value of `table` that begins with `prefix`, in order, as of the start of the call.
    pub(super) fn scan(
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
            let (key, value) = row.map_err(|source| self.failed("read from", source))?;
            if visit(&key, &value)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Runs `body` in one transaction and commits it.
    pub(super) fn attempt<T>(
        &self,
        durability: Durability,
        body: &mut impl FnMut(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut write = WriteOptions::default();
        write.set_sync(durability == Durability::Synced);
        let mut options = TransactionOptions::default();
        options.set_deadlock_detect(true);
        options.set_lock_timeout(ROW_WAIT_MS);
        let transaction = Transaction {
            database: self,
            wrote: Cell::new(false),
            inner: self.db.transaction_opt(&write, &options),
        };
        let value = body(&transaction)?;
        if !transaction.wrote.get() {
            return Ok(value); // a commit of nothing would sync the log all the same
        }
        transaction.inner.commit().map_err(|source| self.failed(COMMIT, source))?;
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
    database: &'db Database,
    /// Whether there is something to commit.
    wrote: Cell<bool>,
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
        let family = self.database.family(R::TABLE);
        let value = self
            .inner
            .get_for_update_cf(family, key, exclusive)
            .map_err(|source| self.database.failed("read from", source))?;
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

    /// Writes `value` under `key`.
    pub(crate) fn put_raw(&self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.wrote.set(true);
        self.inner
            .put_cf(self.database.family(table), key, value)
            .map_err(|source| self.database.failed("write to", source))
    }

    /// Removes what is under `key`, if anything is.
    pub(crate) fn delete(&self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.wrote.set(true);
        self.inner
            .delete_cf(self.database.family(table), key)
            .map_err(|source| self.database.failed("delete from", source))
    }

    /// Removes everything whose key begins with `prefix` and is committed.
    pub(crate) fn delete_below(&self, table: Table, prefix: &[u8]) -> Result<(), StoreError> {
        let mut keys = Vec::new();
        self.database.scan(table, prefix, |key, _| {
            keys.push(key.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        keys.iter().try_for_each(|key| self.delete(table, key))
    }
}

/// RocksDB reports a full disk as an I/O error whose text is the system's.
fn failed(action: &'static str, path: &Path, source: rocksdb::Error) -> StoreError {
    let text = source.to_string();
    if text.contains("No space left on device") || text.contains("Disk quota exceeded") {
        return StoreError::Full { action, path: path.to_path_buf(), source: Box::new(source) };
    }
    StoreError::Metadata { action, source }
}

/// Longest write-ahead log, in bytes. It is replayed at start and must fit into the reserve when the disk is full.
const LOG_BYTES_MAX: u64 = 8 << 20;

/// Memory for blocks of tables, in bytes, shared by all of them: 100,000 records and their keys fit.
const CACHE_BYTES: usize = 32 << 20;

/// Options of the whole store.
fn database_options(log: LogMode) -> Options {
    let mut options = Options::default();
    options.set_wal_recovery_mode(match log {
        LogMode::Strict => DBRecoveryMode::TolerateCorruptedTailRecords,
        LogMode::Skipping => DBRecoveryMode::SkipAnyCorruptedRecord,
    });
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_open_files(256);
    options.set_keep_log_file_num(2);
    options.set_log_level(rocksdb::LogLevel::Warn);
    options.set_max_total_wal_size(LOG_BYTES_MAX);
    options.set_max_background_jobs(2);
    options
}

/// Options of one table. The filter (10 bits a key, 1 % wrong) spares look-ups of what is not there, which `create` does.
fn family_options(cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(4 << 20);
    options
}
