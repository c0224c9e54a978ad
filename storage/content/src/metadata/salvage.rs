//! Reads what can still be read of a damaged database, row by row.
//!
//! RocksDB gives up a whole table at its first damaged block; here a damaged block costs the rows in it. A table is read
//! from its beginning until damage, from its end back until damage, and what lies between is looked for by seeking to
//! keys in the middle, again and again, as long as that finds something or the gap is worth it.
//!
//! The damaged database is only read, unless its own catalogue (`MANIFEST`, `CURRENT`) or the end of a file, where its own
//! index is, is damaged too: then RocksDB's repair makes a new catalogue of the files that are whole.

use std::collections::HashSet;
use std::path::Path;

use rocksdb::{
    ColumnFamilyDescriptor, DB, DBRawIteratorWithThreadMode, DBRecoveryMode, Options, ReadOptions,
};

use super::Table;

/// Rows of one table that could be read.
pub(super) struct Rows {
    pub(super) table: Table,
    pub(super) rows: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether something of the table could not be read.
    pub(super) has_gap: bool,
}

/// Seeks spent on one table's gap. A seek costs some ten microseconds.
const SEEKS_MAX: u32 = 4096;

/// Reads the database at `path`, as far as it can be.
pub(super) fn read(path: &Path) -> Result<Vec<Rows>, rocksdb::Error> {
    let database = open(path).or_else(|error| {
        tracing::warn!(%error, "the catalogue of the metadata is damaged: making a new one");
        DB::repair(&options(), path)?;
        open(path)
    })?;
    let mut found: Vec<Rows> = Table::ALL.into_iter().map(|table| rows_of(&database, table)).collect();
    drop(database);
    if found.iter().any(|table| table.has_gap) {
        // A file without a readable end hides the rows of all others of its table. RocksDB's repair leaves such files out.
        match DB::repair(&options(), path).and_then(|()| open(path)) {
            Ok(repaired) => found.iter_mut().for_each(|table| table.add(rows_of(&repaired, table.table))),
            Err(error) => tracing::warn!(%error, "the damaged metadata cannot be repaired any further"),
        }
    }
    Ok(found)
}

impl Rows {
    /// Adds rows of a second look whose keys the first did not find.
    fn add(&mut self, more: Rows) {
        if self.has_gap {
            let known: HashSet<Vec<u8>> = self.rows.iter().map(|(key, _)| key.clone()).collect();
            self.rows.extend(more.rows.into_iter().filter(|(key, _)| !known.contains(key)));
        }
    }
}

fn options() -> Options {
    let mut options = Options::default();
    options.set_wal_recovery_mode(DBRecoveryMode::SkipAnyCorruptedRecord);
    options.set_paranoid_checks(false);
    options.set_keep_log_file_num(2);
    options
}

fn open(path: &Path) -> Result<DB, rocksdb::Error> {
    let options = options();
    let names = DB::list_cf(&options, path)?;
    let families = names.into_iter().map(|name| ColumnFamilyDescriptor::new(name, Options::default()));
    DB::open_cf_descriptors_read_only(&options, path, families, false)
}

fn rows_of(database: &DB, table: Table) -> Rows {
    let Some(family) = database.cf_handle(table.name()) else {
        return Rows { table, rows: Vec::new(), has_gap: true };
    };
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    let mut reader = Reader { rows: database.raw_iterator_cf_opt(family, options), seeks_left: SEEKS_MAX };
    let mut rows = Vec::new();
    let has_gap = reader.read_all(&mut rows);
    Rows { table, rows, has_gap }
}

struct Reader<'db> {
    rows: DBRawIteratorWithThreadMode<'db, DB>,
    seeks_left: u32,
}

/// Rows, in no order.
type Found = Vec<(Vec<u8>, Vec<u8>)>;

impl Reader<'_> {
    /// Reads the table into `found`; answers whether something of it could not be read.
    fn read_all(&mut self, found: &mut Found) -> bool {
        self.rows.seek_to_first();
        let Err(low) = self.forward(None, found) else { return false };
        self.rows.seek_to_last();
        let high = self.backward(low.as_deref(), found);
        // From here on both sides of the damage are known, as far as they are readable.
        self.between(low.unwrap_or_default(), high, found);
        true
    }

    /// Reads on from where the iterator is, up to `end`. The error is damage, with the last key before it.
    fn forward(&mut self, end: Option<&[u8]>, found: &mut Found) -> Result<(), Option<Vec<u8>>> {
        let mut last = None;
        while let Some((key, value)) = self.rows.item() {
            if end.is_some_and(|end| key >= end) {
                return Ok(());
            }
            last = Some(key.to_vec());
            found.push((key.to_vec(), value.to_vec()));
            self.rows.next();
        }
        if self.rows.status().is_ok() { Ok(()) } else { Err(last) }
    }

    /// Reads back from where the iterator is, down to damage or to `low`, and answers with the last key it read.
    fn backward(&mut self, low: Option<&[u8]>, found: &mut Found) -> Option<Vec<u8>> {
        let mut last = None;
        while let Some((key, value)) = self.rows.item() {
            if low.is_some_and(|low| key <= low) {
                break;
            }
            last = Some(key.to_vec());
            found.push((key.to_vec(), value.to_vec()));
            self.rows.prev();
        }
        last
    }

    /// Looks for rows between two keys that damage lies between.
    fn between(&mut self, low: Vec<u8>, high: Option<Vec<u8>>, found: &mut Found) {
        let mut gaps = vec![(low, high)];
        while let Some((low, high)) = gaps.pop() {
            let Some(middle) = middle(&low, high.as_deref()) else { continue };
            if self.seeks_left == 0 {
                return;
            }
            self.seeks_left -= 1;
            self.rows.seek(&middle);
            let first = self.rows.key().map(<[u8]>::to_vec);
            match first.filter(|first| high.as_ref().is_none_or(|high| first < high)) {
                // A readable row in the gap: everything from it on, up to the next damage or the end of the gap.
                Some(first) => {
                    if let Err(Some(last)) = self.forward(high.as_deref(), found) {
                        gaps.push((last, high));
                    }
                    self.seeks_left = self.seeks_left.saturating_sub(1);
                    self.rows.seek_for_prev(&middle);
                    let lowest = self.backward(Some(&low), found);
                    gaps.push((low, Some(lowest.unwrap_or(first))));
                }
                // Nothing between the middle and the end, or damage at the middle itself.
                None if self.rows.status().is_ok() => gaps.push((low, Some(middle))),
                None => {
                    gaps.push((middle.clone(), high));
                    gaps.push((low, Some(middle)));
                }
            }
        }
    }
}

/// A key between two keys, as far from both as bytes allow; none if there is nothing worth looking for.
fn middle(low: &[u8], high: Option<&[u8]>) -> Option<Vec<u8>> {
    /// Bytes behind the common beginning that are told apart: digests and names differ much earlier.
    const BYTES: usize = 4;
    let high = high.map_or_else(|| vec![u8::MAX; low.len().max(1)], <[u8]>::to_vec);
    let common = low.iter().zip(&high).take_while(|(a, b)| a == b).count();
    let number = |key: &[u8]| {
        (0..BYTES)
            .fold(0_u64, |number, at| (number << 8) | u64::from(key.get(common + at).copied().unwrap_or(0)))
    };
    let (from, to) = (number(low), number(&high));
    if to.saturating_sub(from) < 2 {
        return None;
    }
    let middle = u32::try_from(from + (to - from) / 2).ok()?;
    let mut key = high[..common].to_vec();
    key.extend_from_slice(&middle.to_be_bytes());
    Some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_middle_lies_between(low in proptest::collection::vec(any::<u8>(), 0..6), high in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..6))) {
            if let Some(high) = &high {
                prop_assume!(&low < high);
            }
            if let Some(middle) = middle(&low, high.as_deref()) {
                prop_assert!(middle > low);
                prop_assert!(high.is_none_or(|high| middle < high));
            }
        }
    }
}
