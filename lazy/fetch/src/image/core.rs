//! What the engine knows of an image: its index, and under which name each of its chunks is kept.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Instant;

use lazy_index::{Checkpoint, ChunkRef, Coding, GroupRef, ImageIndex, NodeId};
use storage_model::{Digest, Hasher};

use super::log::Log;
use crate::cache::{Cache, Object, Place, SMALL_BYTES_MAX, lock, read_lock, write_lock};
use crate::engine::{Fill, GroupKey};
use crate::sources::BlobAt;
use crate::spec::Checkpoints;
use crate::{FetchError, ImageSpec};

/// Counters of an image, for [`crate::ImageStatus`].
#[derive(Default)]
pub(crate) struct Stats {
    pub(crate) requests: AtomicU64,
    pub(crate) bytes_fetched: AtomicU64,
    pub(crate) faults: AtomicU64,
    pub(crate) fault_wait_us: AtomicU64,
    pub(crate) failures: AtomicU64,
}

/// An open image. Flights hold it, so it may live a little longer than the [`crate::Image`] it belongs to.
pub(crate) struct Core {
    pub(crate) name: String,
    pub(crate) index: Arc<ImageIndex>,
    pub(crate) blobs: Vec<Arc<BlobAt>>,
    pub(crate) stats: Stats,
    pub(crate) fill: Mutex<Fill>,
    pub(crate) log: Mutex<Log>,
    pub(crate) opened: Instant,
    checkpoints: Arc<dyn Checkpoints>,
    /// Large files that were asked for.
    objects: RwLock<HashMap<u32, Arc<Object>>>,
    /// Digests of what entering a group depends on, as far as needed.
    windows: RwLock<HashMap<u32, Digest>>,
}

impl Core {
    pub(crate) fn new(spec: ImageSpec) -> Result<Self, FetchError> {
        let ImageSpec { name, index, checkpoints, origins } = spec;
        let blobs = index.blobs();
        if blobs.len() != origins.len() {
            return Err(FetchError::Origins { image: name, blobs: blobs.len(), given: origins.len() });
        }
        let blobs = blobs.into_iter().zip(origins);
        let blobs = blobs.map(|((digest, bytes), origins)| Arc::new(BlobAt { digest, bytes, origins }));
        Ok(Self {
            name,
            blobs: blobs.collect(),
            index,
            stats: Stats::default(),
            fill: Mutex::default(),
            log: Mutex::default(),
            opened: Instant::now(),
            checkpoints,
            objects: RwLock::default(),
            windows: RwLock::default(),
        })
    }

    /// The checkpoint a group begins at. `blob` is a number of the index.
    pub(crate) fn checkpoint(&self, blob: u32, number: u32) -> Option<Checkpoint> {
        self.checkpoints.checkpoint(&self.blobs.get(blob as usize)?.digest, number)
    }

    /// What makes a download of this group the same as another.
    pub(crate) fn key(&self, group: &GroupRef) -> GroupKey {
        GroupKey::new(self.blobs[group.blob as usize].digest, group, self.window(group))
    }

    /// Digest of all that decoding a group depends on beside its bytes: of its checkpoint, or zero for most formats.
    ///
    /// Two images may share a blob and not believe the same table of its checkpoints: what one decodes with a window of
    /// its own must not be taken for what the other means.
    fn window(&self, group: &GroupRef) -> Digest {
        let Coding::Deflate { checkpoint } = group.coding else { return Digest::from_bytes([0; 32]) };
        if let Some(known) = read_lock(&self.windows).get(&group.number) {
            return *known;
        }
        let Some(point) = self.checkpoint(group.blob, checkpoint) else { return Digest::from_bytes([1; 32]) };
        let mut hasher = Hasher::new();
        hasher.update(&[point.bits]);
        hasher.update(&point.window);
        let digest = hasher.finish();
        write_lock(&self.windows).insert(group.number, digest);
        digest
    }

    /// Where a chunk is kept.
    pub(crate) fn place(&self, cache: &Cache, chunk: &ChunkRef) -> Place {
        let size = self.index.size(chunk.node).unwrap_or(0);
        if size > SMALL_BYTES_MAX {
            let object = self.object(cache, chunk.node, size);
            return Place::Object(object, (chunk.file_offset, chunk.length));
        }
        match chunk.digest {
            Some(digest) => Place::Content(digest),
            None => Place::Named(self.name_of(chunk)),
        }
    }

    /// Stands for the bytes of a chunk without a digest of its own: it follows from its group's bytes, what they are
    /// decoded with, and the place therein.
    fn name_of(&self, chunk: &ChunkRef) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(b"windlass chunk 1\0");
        hasher.update(self.window(&chunk.group).as_bytes());
        hasher.update(chunk.group.digest.unwrap_or(Digest::from_bytes([0; 32])).as_bytes());
        let coding = match chunk.group.coding {
            Coding::Plain => 0,
            Coding::Gzip => 1,
            Coding::Zstd => 2,
            Coding::Deflate { .. } => 3,
            Coding::Zeros => 4,
        };
        hasher.update(&[coding]);
        hasher.update(&chunk.inner_offset.to_le_bytes());
        hasher.update(&chunk.length.to_le_bytes());
        hasher.finish()
    }

    /// The object of a large file.
    pub(crate) fn object(&self, cache: &Cache, node: NodeId, size: u64) -> Arc<Object> {
        if let Some(object) = read_lock(&self.objects).get(&node.0) {
            return Arc::clone(object);
        }
        let mut hasher = Hasher::new();
        hasher.update(b"windlass object 1\0");
        hasher.update(&size.to_le_bytes());
        let mut holes = 0;
        for chunk in self.index.chunks(node, 0, size) {
            hasher.update(&chunk.file_offset.to_le_bytes());
            hasher.update(&chunk.length.to_le_bytes());
            match (chunk.group.coding, chunk.digest) {
                (Coding::Zeros, _) => {
                    holes += chunk.length;
                    hasher.update(&[0]);
                }
                (_, Some(digest)) => {
                    hasher.update(&[1]);
                    hasher.update(digest.as_bytes());
                }
                (_, None) => {
                    hasher.update(&[2]);
                    hasher.update(self.name_of(&chunk).as_bytes());
                }
            }
        }
        let object = cache.object(hasher.finish(), size);
        object.set_holes(holes);
        Arc::clone(write_lock(&self.objects).entry(node.0).or_insert(object))
    }

    /// Calls `pin` with each chunk of the small files.
    pub(crate) fn small_chunks(&self, pin: &mut dyn FnMut(Digest)) {
        for chunk in (0..self.index.chunk_count()).filter_map(|number| self.index.chunk(number)) {
            if self.index.size(chunk.node).is_some_and(|size| size <= SMALL_BYTES_MAX) {
                pin(chunk.digest.unwrap_or_else(|| self.name_of(&chunk)));
            }
        }
    }

    /// Whether a chunk needs nothing to be fetched.
    pub(crate) fn is_here(&self, cache: &Cache, chunk: &ChunkRef) -> bool {
        chunk.group.coding == Coding::Zeros || cache.has(&self.place(cache, chunk))
    }

    /// Its name for errors, with the node.
    pub(crate) fn not_a_file(&self, node: NodeId) -> FetchError {
        FetchError::NotAFile { image: self.name.clone(), node: node.0 }
    }

    /// Stops the background without anybody to tell.
    pub(crate) fn forget_fill(&self) {
        *lock(&self.fill) = Fill::default();
    }
}
