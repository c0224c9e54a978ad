//! Makes the records agree again after some were lost to damage: with each other, and with the files there are.
//!
//! Runs when the store is opened after the metadata was salvaged or lines of its log left out, before anything else looks
//! at the records. In this order: images come back from their copies; namespaces that things are left of get a record; blobs that something refers to and
//! whose records are lost get new ones ([`adopt`]); holders are counted anew; the edges between snapshots are drawn anew;
//! numbers continue behind every directory there is. Directories of snapshots that have no record any more may hold the
//! only copy of a container's files, so they are put aside, not deleted.
//!
//! [`Store::repair_records`] takes the steps that need no files, on a store that is open.
//!
//! A file in the root says that this is to be done, and goes when it is: every step can be repeated.
//!
//! What is lost stays lost: leases, containers, labels that no document tells. `Store::check` finds
//! what does not resolve.

mod adopt;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use storage_model::{Digest, Labels, Namespace};
use storage_sys::durable::sync_directory;

use crate::StoreError;
use crate::blob::{BlobRecord, ContentRecord, digest_of};
use crate::container::ContainerRecord;
use crate::error::IoContext as _;
use crate::image::{COPY_PREFIX, ImageRecord};
use crate::layout::Layout;
use crate::lease::LeaseRecord;
use crate::metadata::{Metadata, Record, Table, key, record};
use crate::namespace::NamespaceRecord;
use crate::numbers::Numbers;
use crate::snapshot::{self, SnapshotRecord};
use crate::store::Store;

/// The file that says that records must be made to agree.
pub(crate) fn marker(root: &Path) -> PathBuf {
    root.join("metadata.rebuild")
}

/// Says, durably, that records must be made to agree before anyone uses them.
pub(crate) fn demand(root: &Path) -> Result<(), StoreError> {
    let path = marker(root);
    File::create(&path).and_then(|file| file.sync_all()).doing("create", &path)?;
    sync_directory(root).doing("sync", root)
}

/// Makes the records agree, if that was demanded; answers whether it was.
pub(crate) fn run(metadata: &Metadata, layout: &Layout) -> Result<bool, StoreError> {
    let marker = marker(&layout.root);
    if !marker.exists() {
        return Ok(false);
    }
    let mut repair = RecordRepair { dropped: drop_damaged(metadata)?, ..RecordRepair::default() };
    restore_images(metadata)?;
    name_namespaces(metadata)?;
    adopt::run(metadata, layout)?;
    repair.agree(metadata)?;
    tracing::warn!(?repair, "records were made to agree");
    let known = put_strays_aside(metadata, layout)?;
    Numbers::continue_behind(metadata, known)?;
    std::fs::remove_file(&marker).doing("remove", &marker)?;
    sync_directory(&layout.root).doing("sync", &layout.root)?;
    Ok(true)
}

/// What [`crate::Store::repair_records`] changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordRepair {
    /// Records that could not be read and are gone.
    pub dropped: u64,
    /// Blobs whose holders were counted wrong, or that had no count.
    pub recounted: u64,
    /// Edges between snapshots that were drawn anew or taken away.
    pub redrawn: u64,
}

impl RecordRepair {
    fn agree(&mut self, metadata: &Metadata) -> Result<(), StoreError> {
        self.recounted = count_holders(metadata)?;
        self.redrawn = draw_edges(metadata)?;
        Ok(())
    }
}

impl Store {
    /// Drops records that cannot be read, and makes those agree that say the same thing twice: what `Store::check` finds
    /// of the kinds `Record`, `Holders` and `Edge`. Nobody else changes anything meanwhile.
    ///
    /// What a dropped record kept is kept by it no more, and what it was is lost: a blob is fetched again, a snapshot
    /// unpacked again; its directory goes with the next clean-up of its snapshotter.
    ///
    /// # Errors
    /// [`StoreError::Metadata`] or [`StoreError::Full`] if the records cannot be written; [`StoreError::Record`] if one was
    /// written by a later version: it is not ours to drop. What was repaired before stays repaired.
    pub fn repair_records(&self) -> Result<RecordRepair, StoreError> {
        let _alone = self.0.gate.close();
        let metadata = &self.0.metadata;
        let mut repair = RecordRepair { dropped: drop_damaged(metadata)?, ..RecordRepair::default() };
        restore_images(metadata)?;
        name_namespaces(metadata)?;
        repair.agree(metadata)?;
        Ok(repair)
    }
}

/// Rows changed in one transaction.
const BATCH: usize = 1000;

/// Changes of rows to be made in batches: a value to write, or none to delete.
struct Changes<'a> {
    metadata: &'a Metadata,
    rows: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
}

impl<'a> Changes<'a> {
    fn new(metadata: &'a Metadata) -> Self {
        Self { metadata, rows: Vec::new() }
    }

    fn put<R: Record>(&mut self, key: Vec<u8>, record: &R) {
        self.rows.push((R::TABLE, key, Some(record::encode(record))));
    }

    fn mark(&mut self, table: Table, key: Vec<u8>) {
        self.rows.push((table, key, Some(Vec::new())));
    }

    fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.rows.push((table, key, None));
    }

    /// Makes the changes; answers with their number.
    fn apply(self) -> Result<u64, StoreError> {
        for batch in self.rows.chunks(BATCH) {
            self.metadata.transact(|transaction| {
                batch.iter().try_for_each(|(table, key, value)| match value {
                    Some(value) => transaction.put_raw(*table, key, value),
                    None => transaction.delete(*table, key),
                })
            })?;
        }
        Ok(self.rows.len() as u64)
    }
}

/// Drops every record that cannot be read; answers with their number.
fn drop_damaged(metadata: &Metadata) -> Result<u64, StoreError> {
    Ok(drop_undecodable::<NamespaceRecord>(metadata)?
        + drop_undecodable::<ContentRecord>(metadata)?
        + drop_undecodable::<BlobRecord>(metadata)?
        + drop_undecodable::<ImageRecord>(metadata)?
        + drop_undecodable::<LeaseRecord>(metadata)?
        + drop_undecodable::<ContainerRecord>(metadata)?
        + drop_undecodable::<SnapshotRecord>(metadata)?)
}

/// Drops rows whose value is damaged. One written by a later version is not damaged, and is an error.
fn drop_undecodable<R: Record>(metadata: &Metadata) -> Result<u64, StoreError> {
    let mut changes = Changes::new(metadata);
    metadata.scan(R::TABLE, &[], |row, value| {
        match record::decode::<R>(row, value) {
            Ok(_) => {}
            Err(error) if error.is_later_version() => return Err(error),
            Err(error) => {
                tracing::error!(%error, "a damaged record is dropped");
                changes.delete(R::TABLE, row.to_vec());
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    changes.apply()
}

/// Brings images back whose record is lost and whose copy is not.
fn restore_images(metadata: &Metadata) -> Result<u64, StoreError> {
    let mut changes = Changes::new(metadata);
    metadata.scan(Table::Meta, COPY_PREFIX, |row, value| {
        let image_key = &row[COPY_PREFIX.len()..];
        if !metadata.contains(Table::Images, image_key)? && record::decode::<ImageRecord>(row, value).is_ok() {
            tracing::warn!(name = %image_key.escape_ascii(), "the record of an image was lost; its copy takes its place");
            changes.rows.push((Table::Images, image_key.to_vec(), Some(value.to_vec())));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    changes.apply()
}

fn name_namespaces(metadata: &Metadata) -> Result<u64, StoreError> {
    let mut found: BTreeSet<Namespace> = BTreeSet::new();
    for table in [Table::Blobs, Table::Images, Table::Leases, Table::Containers, Table::Snapshots] {
        metadata.scan(table, &[], |row, _| {
            found.extend(key::split_namespace(row).map(|(namespace, _)| namespace));
            Ok(ControlFlow::Continue(()))
        })?;
    }
    let mut changes = Changes::new(metadata);
    for namespace in found {
        let row = key::key(&namespace, &[]);
        if !metadata.contains(Table::Namespaces, &row)? {
            changes.put(row, &NamespaceRecord::new(Labels::new()));
        }
    }
    changes.apply()
}

fn count_holders(metadata: &Metadata) -> Result<u64, StoreError> {
    let mut counted: HashMap<Digest, ContentRecord> = HashMap::new();
    metadata.walk(&[], |row, record: BlobRecord| {
        if let Some(digest) = key::split_namespace(row).and_then(|(_, rest)| digest_of(rest)) {
            let content = counted.entry(digest).or_insert(ContentRecord { size: record.size, holders: 0 });
            content.holders += 1;
        }
        ControlFlow::Continue(())
    })?;
    let mut changes = Changes::new(metadata);
    metadata.walk(&[], |row, content: ContentRecord| {
        match digest_of(row).and_then(|digest| counted.remove(&digest)) {
            Some(right) if right == content => {}
            Some(right) => changes.put(row.to_vec(), &right),
            None => changes.delete(Table::Content, row.to_vec()),
        }
        ControlFlow::Continue(())
    })?;
    for (digest, right) in counted {
        changes.put(digest.as_bytes().to_vec(), &right);
    }
    changes.apply()
}

fn draw_edges(metadata: &Metadata) -> Result<u64, StoreError> {
    let mut right: BTreeSet<Vec<u8>> = BTreeSet::new();
    snapshot::walk_all(metadata, |namespace, snapshotter, record| {
        let parent = record.parent.as_deref();
        right.extend(parent.map(|parent| key::child(&namespace, snapshotter, parent, &record.key)));
        ControlFlow::Continue(())
    })?;
    let mut changes = Changes::new(metadata);
    metadata.scan(Table::SnapshotChildren, &[], |row, _| {
        if !right.remove(row) {
            changes.delete(Table::SnapshotChildren, row.to_vec());
        }
        Ok(ControlFlow::Continue(()))
    })?;
    right.into_iter().for_each(|row| changes.mark(Table::SnapshotChildren, row));
    changes.apply()
}

/// Moves directories of snapshots without a record to `quarantine/`; answers with the highest number there is.
fn put_strays_aside(metadata: &Metadata, layout: &Layout) -> Result<u64, StoreError> {
    let mut records: BTreeSet<u64> = BTreeSet::new();
    snapshot::walk_all(metadata, |_, _, record| {
        records.insert(record.number);
        ControlFlow::Continue(())
    })?;
    let mut highest = records.last().copied().unwrap_or(0);
    for (number, path) in layout.snapshot_directories()? {
        highest = highest.max(number);
        if !records.contains(&number) {
            let target = layout.quarantine.join(format!("snapshot-{number}"));
            std::fs::rename(&path, &target).doing("put aside", &path)?;
            tracing::error!(number, put_aside = %target.display(), "a snapshot's record is lost");
        }
    }
    Ok(highest)
}
