//! [`Image`]: the bytes of one image's files, wherever they are.
//!
//! Not here: how a read is served (`read.rs`), under which names chunks are kept (`core.rs`).

mod core;
mod log;
mod read;

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lazy_index::{Coding, ImageIndex, NodeId, NodeKind};

use crate::cache::{SMALL_BYTES_MAX, lock};
use crate::engine::{Engine, Priority, Want};
use crate::status::{TRACE_VERSION, encode_path};
use crate::{ImageStatus, Trace, TraceEvent, Wanted};

pub(crate) use self::core::Core;

/// The bytes of one image. All calls may come from any thread at the same time.
///
/// Dropping the last reference stops its background and unpins what it needs; what was fetched stays in the cache.
pub struct Image {
    pub(crate) core: Arc<Core>,
    pub(crate) engine: Arc<Engine>,
}

impl Image {
    /// The index it was made with.
    pub fn index(&self) -> &Arc<ImageIndex> {
        &self.core.index
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Whether all bytes of the file are in the cache. True for what has no bytes.
    pub fn is_local(&self, node: NodeId) -> bool {
        let size = self.core.index.size(node).unwrap_or(0);
        self.core.index.chunks(node, 0, size).all(|chunk| self.core.is_here(&self.engine.cache, &chunk))
    }

    /// A complete large file as a file of its own with exactly its bytes, for passthrough.
    ///
    /// `None` if it is not longer than 1 MiB, not complete, or not all of it was compared with its digests since the cache
    /// was last doubted; then the first call compares it, which reads all of it.
    pub fn whole_file(&self, node: NodeId) -> Option<Arc<File>> {
        let attr = self.core.index.attr(node)?;
        if attr.kind != NodeKind::File || attr.size <= SMALL_BYTES_MAX {
            return None;
        }
        let object = self.core.object(&self.engine.cache, node, attr.size);
        for at in object.unproved() {
            object.read(at, 0, &mut []);
        }
        object.whole()
    }

    /// Asks for parts of files in this order, behind faults and before everything else. Returns at once.
    pub fn prefetch(&self, wanted: &[Wanted]) {
        for Wanted { node, range } in wanted {
            let size = self.core.index.size(*node).unwrap_or(0);
            let end = range.end.min(size);
            let chunks = self.core.index.chunks(*node, range.start, end.saturating_sub(range.start));
            for chunk in chunks.filter(|chunk| chunk.group.coding != Coding::Zeros) {
                let is_here = || self.core.is_here(&self.engine.cache, &chunk);
                if is_here() {
                    continue;
                }
                let key = self.core.key(&chunk.group);
                let (group, priority) = (chunk.group, Priority::Trace);
                let want = Want { key, group, priority, waits: false, is_here: &is_here };
                self.engine.want(&self.core, &[want]);
            }
        }
    }

    /// Asks for what a trace lists, in its order. What the image does not have is left out. Returns how many parts it has.
    pub fn prefetch_trace(&self, trace: &Trace) -> usize {
        let wanted: Vec<Wanted> = trace.events.iter().filter_map(|event| self.wanted(event)).collect();
        self.prefetch(&wanted);
        wanted.len()
    }

    fn wanted(&self, event: &TraceEvent) -> Option<Wanted> {
        let node = self.core.index.find(&crate::decode_path(&event.path)?)?;
        Some(Wanted { node, range: event.offset..event.offset.saturating_add(event.length) })
    }

    /// Asks for what the makers of the layers want fetched first: all of each blob before the given byte
    /// ([`lazy_index::Toc::prefetch_bytes`]), by number of blob.
    pub fn prefetch_head(&self, blob: u32, bytes: u64) {
        for group in self.core.index.groups().filter(|group| group.blob == blob && group.length > 0) {
            if group.offset < bytes {
                let is_here = || self.engine.has_group(&self.core, group.number);
                let (key, priority) = (self.core.key(&group), Priority::Trace);
                let want = Want { key, group, priority, waits: false, is_here: &is_here };
                self.engine.want(&self.core, &[want]);
            }
        }
    }

    /// Starts to bring in all that is missing, behind everything else. Returns at once; goes on until all is here, or the
    /// cache is full ([`ImageStatus::fill_error`]).
    pub fn fill(&self) {
        self.engine.set_fill(&self.core, true);
    }

    /// Stops what [`Image::fill`] started; what is on the wire still arrives.
    pub fn fill_stop(&self) {
        self.engine.set_fill(&self.core, false);
    }

    /// Whether the background is at work. Costs nothing, unlike [`Image::status`].
    pub fn is_filling(&self) -> bool {
        lock(&self.core.fill).active
    }

    /// How much is here, and what was waited for. Looks every chunk up: some ten milliseconds for 100,000 files.
    pub fn status(&self) -> ImageStatus {
        let core = &self.core;
        let mut present = 0;
        let mut complete = true;
        for chunk in (0..core.index.chunk_count()).filter_map(|number| core.index.chunk(number)) {
            if core.is_here(&self.engine.cache, &chunk) {
                present += chunk.length;
            } else {
                complete = false;
            }
        }
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let (filling, fill_error) = {
            let fill = lock(&core.fill);
            (fill.active, fill.error.clone())
        };
        ImageStatus {
            name: core.name.clone(),
            bytes_total: core.index.bytes_total(),
            bytes_present: present.min(core.index.bytes_total()),
            blob_bytes_total: core.blobs.iter().map(|blob| blob.bytes).sum(),
            complete,
            filling,
            requests: count(&core.stats.requests),
            bytes_fetched: count(&core.stats.bytes_fetched),
            faults: count(&core.stats.faults),
            fault_wait_us: count(&core.stats.fault_wait_us),
            failures: count(&core.stats.failures),
            recent: lock(&core.log).recent.iter().cloned().collect(),
            fill_error,
        }
    }

    /// What was read since the image was opened, in order.
    pub fn trace(&self) -> Trace {
        let reads = lock(&self.core.log).reads.clone();
        let events = reads.into_iter().map(|read| TraceEvent {
            path: self.path_of(NodeId(read.node)),
            offset: read.offset,
            length: read.length,
            at_ms: read.at_ms,
        });
        Trace { version: TRACE_VERSION, image: self.core.name.clone(), events: events.collect() }
    }

    fn path_of(&self, node: NodeId) -> String {
        encode_path(&self.core.index.path(node).unwrap_or_default())
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        self.core.forget_fill();
    }
}
