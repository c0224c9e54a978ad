//! Opens a metadata store that may be damaged: a flipped bit costs the rows it hit, never the store.
//!
//! Every block and every line of the log has a checksum, and opening reads them all (100,000 snapshots: 0.1 s). What
//! follows depends on what fails:
//!
//! 1. The log: it is read again, leaving out the lines that are damaged. After a power cut that is a line nobody was
//!    promised; otherwise it is a change that is lost.
//! 2. Anything else: the rows that can be read ([`salvage`]) become a new database. `metadata -> metadata.damaged`, rows into
//!    `metadata.new`, `metadata.new -> metadata`, `metadata.damaged -> quarantine/metadata-<time>`: a crash at any arrow is
//!    carried on from there by the next start.
//!
//! Either way [`crate::rebuild`] then makes the records agree again. What is not damage (no room, no permission) is an error.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use storage_sys::durable::sync_directory;

use super::database::{Database, LogMode};
use super::{Durability, Table, log, salvage};
use crate::error::IoContext as _;
use crate::{StoreError, rebuild};

/// What opening found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum MetadataState {
    /// Everything as it was written.
    #[default]
    Whole,
    /// Lines of the log were damaged and left out: after a power cut, changes that nobody was promised.
    LogCut,
    /// Tables were damaged: what could be read was taken over.
    Salvaged {
        /// Rows that were taken over.
        rows: u64,
        /// Tables that rows were lost of.
        damaged: Vec<&'static str>,
        /// Where the damaged database lies now.
        put_aside: PathBuf,
    },
}

/// Opens the database at `path`, whatever state it is in. `quarantine` is where a damaged one goes.
pub(super) fn open(path: &Path, quarantine: &Path) -> Result<(Database, MetadataState), StoreError> {
    let aside = path.with_extension("damaged");
    if aside.exists() {
        return finish(path, &aside, quarantine);
    }
    let holed = log::has_hole(path)?;
    let outcome = match refuse_headless(path) {
        Ok(()) if holed => Err(StoreError::MetadataLog { path: path.to_path_buf() }),
        Ok(()) => Database::open(path, LogMode::Strict).and_then(verified),
        Err(error) => Err(error),
    };
    let error = match outcome {
        Ok(database) => return Ok((database, MetadataState::Whole)),
        Err(error) if is_damage(&error) => error,
        Err(error) => return Err(error),
    };
    tracing::error!(%error, cause = ?std::error::Error::source(&error), path = %path.display(), "the metadata is damaged");
    // Durable before anything is left out: whatever happens from here on, the records are made to agree before use.
    rebuild::demand(path.parent().unwrap_or(path))?;
    if refuse_headless(path).is_ok() {
        match Database::open(path, LogMode::Skipping).and_then(verified) {
            Ok(database) => {
                database.renew_log()?;
                return Ok((database, MetadataState::LogCut));
            }
            Err(error) if is_damage(&error) => {}
            Err(error) => return Err(error),
        }
    }
    std::fs::rename(path, &aside).doing("put aside", path)?;
    finish(path, &aside, quarantine)
}

/// Makes a new database of what can be read of the one that was put `aside`, and puts that away.
fn finish(path: &Path, aside: &Path, quarantine: &Path) -> Result<(Database, MetadataState), StoreError> {
    let root = path.parent().unwrap_or(path);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let put_aside = quarantine.join(format!("metadata-{nanos}"));
    let (mut rows, mut damaged) = (0, Vec::new());
    if !path.join("CURRENT").exists() {
        let fresh = path.with_extension("new");
        if fresh.exists() {
            storage_sys::tree::remove_all(&fresh).doing("remove", &fresh)?;
        }
        let found = salvage::read(aside).unwrap_or_else(|error| {
            tracing::error!(%error, "nothing of the metadata can be read");
            Vec::new()
        });
        if found.is_empty() {
            damaged.extend(Table::ALL.map(Table::name));
        }
        let database = Database::open(&fresh, LogMode::Strict)?;
        for table in found {
            rows += table.rows.len() as u64;
            if table.has_gap {
                damaged.push(table.table.name());
            }
            write(&database, table)?;
        }
        drop(database);
        sync_directory(root).doing("sync", root)?;
        // `create` makes an empty directory at every start; a rename replaces one that is empty.
        std::fs::rename(&fresh, path).doing("publish", path)?;
        sync_directory(root).doing("sync", root)?;
    }
    let database = Database::open(path, LogMode::Strict).and_then(verified)?;
    std::fs::rename(aside, &put_aside).doing("put aside", aside)?;
    tracing::error!(rows, ?damaged, damaged_copy = %put_aside.display(), "the metadata was salvaged");
    Ok((database, MetadataState::Salvaged { rows, damaged, put_aside }))
}

/// Rows written in one transaction.
const BATCH: usize = 1000;

fn write(database: &Database, table: salvage::Rows) -> Result<(), StoreError> {
    for batch in table.rows.chunks(BATCH) {
        database.attempt(Durability::Synced, &mut |transaction| {
            batch.iter().try_for_each(|(key, value)| transaction.put_raw(table.table, key, value))
        })?;
    }
    Ok(())
}

/// A database every block of which can be read.
fn verified(database: Database) -> Result<Database, StoreError> {
    for table in Table::ALL {
        database.read_through(table)?;
    }
    Ok(database)
}

/// Refuses a database without `CURRENT`: RocksDB would make a new one in its place and delete what is left.
fn refuse_headless(path: &Path) -> Result<(), StoreError> {
    if path.join("CURRENT").exists() {
        return Ok(());
    }
    for entry in path.read_dir().doing("list", path)? {
        let name = entry.doing("list", path)?.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".sst") || name.ends_with(".log") || name.starts_with("MANIFEST") {
            return Err(StoreError::MetadataHeadless { path: path.to_path_buf() });
        }
    }
    Ok(())
}

/// Whether an error says that bytes are not what was written, rather than that something cannot be done now.
fn is_damage(error: &StoreError) -> bool {
    use rocksdb::ErrorKind::{Corruption, IOError, InvalidArgument, NotFound};
    match error {
        StoreError::MetadataHeadless { .. } | StoreError::MetadataLog { .. } => true,
        StoreError::Metadata { source, .. } => match source.kind() {
            Corruption | InvalidArgument | NotFound => true,
            IOError => {
                let text = source.to_string();
                ["No such file", "Input/output error", "does not end with newline"]
                    .iter()
                    .any(|words| text.contains(words))
            }
            _ => false,
        },
        _ => false,
    }
}
