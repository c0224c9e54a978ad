//! What the store takes on the disk, by kind.

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::Path;

use crate::blob::ContentRecord;
use crate::collect::Plan;
use crate::error::IoContext as _;
use crate::store::Store;
use crate::{StoreError, Thing, ingest_files, snapshot};

/// What the things of one kind take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KindUsage {
    /// How many there are.
    pub count: u64,
    /// Bytes they take.
    pub bytes: u64,
    /// How many of the bytes the next collection frees.
    pub reclaimable_bytes: u64,
}

impl KindUsage {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// What the store takes on the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Blobs; one that several namespaces have counts once.
    pub blobs: KindUsage,
    /// Snapshots, with the bytes they took when they were committed.
    pub snapshots: KindUsage,
    /// How many of the snapshots were never committed: what these take is for their snapshotter to say.
    pub unmeasured_snapshots: u64,
    /// Ingests.
    pub ingests: KindUsage,
    /// Files of the metadata, and the room kept for deleting on a full disk.
    pub metadata: KindUsage,
    /// What is on its way out.
    pub trash: KindUsage,
    /// What was found damaged and put aside.
    pub quarantine: KindUsage,
}

impl DiskUsage {
    /// Bytes of all kinds.
    pub fn bytes(&self) -> u64 {
        let kinds = [self.blobs, self.snapshots, self.ingests, self.metadata, self.trash, self.quarantine];
        kinds.iter().map(|kind| kind.bytes).sum()
    }
}

impl Store {
    /// What the store takes on the disk. Costs reading every record, and no content.
    ///
    /// # Errors
    /// [`StoreError::Metadata`] if the records cannot be read; a single one that cannot is left out. [`StoreError::Io`] if a
    /// directory cannot be listed.
    pub fn disk_usage(&self) -> Result<DiskUsage, StoreError> {
        let mut usage = DiskUsage::default();
        self.0.metadata.walk_readable(&[], |_, content: ContentRecord| {
            usage.blobs.add(content.size);
            ControlFlow::Continue(())
        })?;
        snapshot::walk_readable(&self.0.metadata, |_, _, record| {
            usage.snapshots.add(record.usage.map_or(0, |usage| usage.bytes));
            usage.unmeasured_snapshots += u64::from(record.usage.is_none());
            ControlFlow::Continue(())
        })?;
        for found in ingest_files::list(&self.0.layout)? {
            usage.ingests.add(found.status().offset);
        }
        let layout = &self.0.layout;
        add_entries(&mut usage.metadata, &layout.metadata)?;
        if let Ok(facts) = layout.root.join("reserve").metadata() {
            usage.metadata.add(facts.len());
        }
        add_entries(&mut usage.trash, &layout.trash)?;
        usage.trash.reclaimable_bytes = usage.trash.bytes;
        add_entries(&mut usage.quarantine, &layout.quarantine)?;
        usage.reclaim(&self.plan()?);
        Ok(usage)
    }
}

impl DiskUsage {
    fn reclaim(&mut self, plan: &Plan) {
        for doomed in &plan.doomed {
            match doomed.thing {
                Thing::Blob(_) => self.blobs.reclaimable_bytes += doomed.bytes,
                Thing::Snapshot { .. } => self.snapshots.reclaimable_bytes += doomed.bytes,
                Thing::Ingest(_) => self.ingests.reclaimable_bytes += doomed.bytes,
                Thing::Image(_) | Thing::Container(_) | Thing::Lease(_) => {}
            }
        }
    }
}

/// Adds what lies in `directory`. What disappears meanwhile is not there.
fn add_entries(usage: &mut KindUsage, directory: &Path) -> Result<(), StoreError> {
    for entry in directory.read_dir().doing("list", directory)? {
        let path = entry.doing("list", directory)?.path();
        let bytes = match path.symlink_metadata() {
            Ok(facts) if facts.is_dir() => storage_sys::usage::disk_usage(&path).map(|usage| usage.bytes),
            other => other.map(|facts| facts.len()),
        };
        match bytes {
            Ok(bytes) => usage.add(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("inspect", &path, error)),
        }
    }
    Ok(())
}
