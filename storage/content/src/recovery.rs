//! What [`crate::Store::open`] repairs after a crash, and what it says of it.
//!
//! Files and records are compared by name and size; nothing is read, so it costs the same however large the blobs are. The
//! rules: a record whose file is absent or has another size is dropped (the blob is quarantined: gone for readers, fetched
//! again by whoever wants it); a file without a record goes back to the ingest it came from, where it is hashed again
//! before it counts, or away; an ingest that is not whole goes away; leases that ended with their process are dropped.
//! Damage of the metadata itself was dealt with before (`metadata::damage`); what it took with it is made good by `rebuild`.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use storage_model::Digest;

use crate::StoreError;
use crate::blob::{self, ContentRecord, digest_of};
use crate::error::IoContext as _;
use crate::ingest_files;
use crate::layout::Layout;
use crate::lease;
use crate::metadata::{Metadata, MetadataState, Table, key};
use crate::quarantine::{QuarantinedBlob, put_aside};
use crate::rebuild;
use crate::trash::Trash;

/// What was found and repaired when the store was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Blobs whose file was absent or of the wrong size: their records are dropped.
    pub quarantined: Vec<QuarantinedBlob>,
    /// Blob files that were not recorded and went back to their ingest.
    pub resumed_blobs: u64,
    /// Blob files that were not recorded and are discarded.
    pub discarded_blobs: u64,
    /// Ingests that were not whole and are discarded.
    pub discarded_ingests: u64,
    /// Leases that ended with the process that made them.
    pub ended_leases: u64,
    /// State the metadata was found in.
    pub metadata: MetadataState,
    /// Whether records had been lost and were made to agree again.
    pub rebuilt: bool,
    /// How long it took.
    pub took: Duration,
}

impl Recovery {
    /// Whether there was nothing to repair. Ended leases are no damage.
    pub fn is_clean(&self) -> bool {
        self.metadata == MetadataState::Whole
            && !self.rebuilt
            && self.quarantined.is_empty()
            && self.resumed_blobs == 0
            && self.discarded_blobs == 0
            && self.discarded_ingests == 0
    }
}

/// Repairs the store. Running it again after a crash in the middle is as good as running it once.
pub(crate) fn run(
    metadata: &Metadata,
    found: MetadataState,
    layout: &Layout,
    trash: &Trash,
) -> Result<Recovery, StoreError> {
    let begun = Instant::now();
    let rebuilt = rebuild::run(metadata, layout)?;
    let mut recovery = Recovery { metadata: found, rebuilt, ..Recovery::default() };
    let mut files = blob_files(layout, trash, &mut recovery)?;
    let mut lost = HashMap::new();
    metadata.walk(&[], |row, record: ContentRecord| {
        if let Some(digest) = digest_of(row) {
            let found = files.remove(&digest);
            if found != Some(record.size) {
                let (expected_bytes, namespaces) = (record.size, Vec::new());
                lost.insert(
                    digest,
                    QuarantinedBlob { digest, expected_bytes, found_bytes: found, namespaces },
                );
            }
        }
        ControlFlow::Continue(())
    })?;
    quarantine(metadata, layout, lost, &mut recovery)?;
    settle_orphans(layout, trash, &files, &mut recovery)?;
    recovery.discarded_ingests = ingest_files::discard_broken(layout, trash)?;
    recovery.ended_leases = lease::drop_ephemeral(metadata)?;
    recovery.took = begun.elapsed();
    if !recovery.is_clean() {
        tracing::warn!(?recovery, root = %layout.root.display(), "the store was repaired");
    }
    Ok(recovery)
}

/// Sizes of the blob files, in bytes. What is no blob file is discarded.
fn blob_files(
    layout: &Layout,
    trash: &Trash,
    recovery: &mut Recovery,
) -> Result<HashMap<Digest, u64>, StoreError> {
    let mut files = HashMap::new();
    for entry in layout.blobs.read_dir().doing("list", &layout.blobs)? {
        let entry = entry.doing("list", &layout.blobs)?;
        let digest = entry.file_name().to_str().and_then(|name| Digest::from_hex(name).ok());
        let facts = entry.metadata().doing("inspect", &entry.path())?;
        match digest {
            Some(digest) if facts.is_file() => {
                files.insert(digest, facts.size());
            }
            _ => {
                trash.discard(&entry.path())?;
                recovery.discarded_blobs += 1;
            }
        }
    }
    Ok(files)
}

/// Drops the records of blobs that were lost, in all namespaces, and puts their files aside.
fn quarantine(
    metadata: &Metadata,
    layout: &Layout,
    mut lost: HashMap<Digest, QuarantinedBlob>,
    recovery: &mut Recovery,
) -> Result<(), StoreError> {
    if lost.is_empty() {
        return Ok(());
    }
    blob::walk(metadata, &[], |namespace, digest, _| {
        if let Some(one) = lost.get_mut(&digest) {
            one.namespaces.push(namespace);
        }
        ControlFlow::Continue(())
    })?;
    metadata.transact(|transaction| {
        for one in lost.values() {
            for namespace in &one.namespaces {
                transaction.delete(Table::Blobs, &key::blob(namespace, &one.digest))?;
            }
            transaction.delete(Table::Content, one.digest.as_bytes())?;
        }
        Ok(())
    })?;
    for digest in lost.keys() {
        put_aside(layout, digest)?;
    }
    recovery.quarantined = lost.into_values().collect();
    recovery.quarantined.sort_by_key(|one| one.digest);
    Ok(())
}

/// Gives blob files without a record back to the ingests they came from, and discards the others. After a loss of records
/// these are not nobody's yet: whoever fetches them again before the next collection finds them here.
fn settle_orphans(
    layout: &Layout,
    trash: &Trash,
    orphans: &HashMap<Digest, u64>,
    recovery: &mut Recovery,
) -> Result<(), StoreError> {
    let waiting: HashMap<Digest, std::path::PathBuf> = ingest_files::list(layout)?
        .into_iter()
        .filter_map(|found| Some((found.info.expected.digest?, found.directory.join("data"))))
        .filter(|(digest, data)| orphans.contains_key(digest) && !data.exists())
        .collect();
    for digest in orphans.keys() {
        let path = layout.blob(digest);
        match waiting.get(digest) {
            Some(data) => {
                std::fs::rename(&path, data).doing("resume", data)?;
                recovery.resumed_blobs += 1;
            }
            None if recovery.rebuilt => {}
            None => {
                trash.discard(&path)?;
                recovery.discarded_blobs += 1;
            }
        }
    }
    Ok(())
}
