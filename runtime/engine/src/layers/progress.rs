//! What a pull tells while it runs, and where its time went.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use storage_model::{Descriptor, Digest, Platform};
use tokio::sync::mpsc::Sender;

/// State of one layer of a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LayerState {
    /// Its turn has not come.
    Waiting,
    /// Bytes are arriving, and are unpacked as they do.
    Downloading,
    /// All bytes are here; the rest is being unpacked.
    Unpacking,
    /// Unpacked and committed.
    Done,
    /// It was here already.
    Exists,
}

/// What a pull tells.
#[derive(Debug, Clone)]
pub enum PullEvent {
    /// The reference stands for this image.
    Resolved {
        /// Its whole name.
        reference: String,
        /// Digest the name stands for.
        digest: Digest,
        /// Platform chosen.
        platform: Platform,
        /// Digest and size in bytes of each layer, lowest first.
        layers: Vec<(Digest, u64)>,
    },
    /// A layer moved on.
    Layer {
        /// Which.
        digest: Digest,
        /// To which state.
        state: LayerState,
        /// Compressed bytes that are here.
        received_bytes: u64,
        /// Compressed bytes there are.
        total_bytes: u64,
        /// Uncompressed bytes unpacked.
        unpacked_bytes: u64,
    },
    /// A line for people.
    Message(String),
}

/// The counters of one layer.
#[derive(Debug)]
pub(crate) struct Meter {
    digest: Digest,
    total: u64,
    state: AtomicU8,
    received: AtomicU64,
    /// Part of `received` that an earlier pull had left.
    resumed: AtomicU64,
    /// Whether this pull downloaded any of it.
    fetched: AtomicBool,
    unpacked: AtomicU64,
}

impl Meter {
    fn new(layer: &Descriptor) -> Self {
        Self {
            digest: layer.digest,
            total: layer.size,
            state: AtomicU8::new(LayerState::Waiting as u8),
            received: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
            fetched: AtomicBool::new(false),
            unpacked: AtomicU64::new(0),
        }
    }

    pub(crate) fn set(&self, state: LayerState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, more: u64) {
        self.received.fetch_add(more, Ordering::Relaxed);
    }

    /// All compressed bytes are here.
    pub(crate) fn complete(&self) {
        self.received.store(self.total, Ordering::Relaxed);
    }

    /// A download begins, with `bytes` left from an earlier one.
    pub(crate) fn resumed(&self, bytes: u64) {
        self.resumed.store(bytes, Ordering::Relaxed);
        self.received.store(bytes, Ordering::Relaxed);
        self.fetched.store(true, Ordering::Relaxed);
    }

    pub(crate) fn unpacked(&self, total: u64) {
        self.unpacked.store(total, Ordering::Relaxed);
    }

    /// Bytes this pull brought over the network.
    fn fetched_bytes(&self) -> u64 {
        if self.fetched.load(Ordering::Relaxed) {
            self.received.load(Ordering::Relaxed).saturating_sub(self.resumed.load(Ordering::Relaxed))
        } else {
            0
        }
    }

    fn state(&self) -> LayerState {
        match self.state.load(Ordering::Relaxed) {
            0 => LayerState::Waiting,
            1 => LayerState::Downloading,
            2 => LayerState::Unpacking,
            3 => LayerState::Done,
            _ => LayerState::Exists,
        }
    }

    fn event(&self) -> PullEvent {
        PullEvent::Layer {
            digest: self.digest,
            state: self.state(),
            received_bytes: self.received.load(Ordering::Relaxed),
            total_bytes: self.total,
            unpacked_bytes: self.unpacked.load(Ordering::Relaxed),
        }
    }

    fn reading(&self) -> (LayerState, u64, u64) {
        (self.state(), self.received.load(Ordering::Relaxed), self.unpacked.load(Ordering::Relaxed))
    }
}

/// Sends the meters' readings while layers are brought; their last readings are sent when it is dropped.
pub(crate) struct Reporter {
    /// One for each layer, by digest: a layer may occur twice.
    meters: Vec<Arc<Meter>>,
    events: Sender<PullEvent>,
    ticker: tokio::task::JoinHandle<()>,
}

/// Time between two readings: often enough to look alive, rarely enough to cost nothing.
const TICK: Duration = Duration::from_millis(100);

impl Reporter {
    /// Tells what is brought, then keeps telling of its layers.
    pub(crate) fn start(
        reference: &str,
        digest: Digest,
        platform: Platform,
        layers: &[Descriptor],
        events: Sender<PullEvent>,
    ) -> Self {
        let mut meters: Vec<Arc<Meter>> = Vec::with_capacity(layers.len());
        let mut seen = HashSet::new();
        meters.extend(
            layers.iter().filter(|layer| seen.insert(layer.digest)).map(|layer| Arc::new(Meter::new(layer))),
        );
        let resolved = PullEvent::Resolved {
            reference: reference.to_owned(),
            digest,
            platform,
            layers: meters.iter().map(|meter| (meter.digest, meter.total)).collect(),
        };
        let _ = events.try_send(resolved);
        let ticker = tokio::spawn(tick(meters.clone(), events.clone()));
        Self { meters, events, ticker }
    }

    /// The meter of a layer; one that nobody reads if it was not announced.
    pub(crate) fn meter(&self, layer: &Descriptor) -> Arc<Meter> {
        let found = self.meters.iter().find(|meter| meter.digest == layer.digest);
        found.cloned().unwrap_or_else(|| Arc::new(Meter::new(layer)))
    }

    /// Bytes of layers that came over the network.
    pub(crate) fn fetched_bytes(&self) -> u64 {
        self.meters.iter().map(|meter| meter.fetched_bytes()).sum()
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.ticker.abort();
        for meter in &self.meters {
            let _ = self.events.try_send(meter.event());
        }
    }
}

async fn tick(meters: Vec<Arc<Meter>>, events: Sender<PullEvent>) {
    let mut told = vec![None; meters.len()];
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        for (meter, told) in meters.iter().zip(&mut told) {
            let reading = meter.reading();
            if *told != Some(reading) {
                *told = Some(reading);
                if events.send(meter.event()).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A kind of work whose time is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Part {
    /// Asking the registry what the reference stands for.
    Resolve,
    /// From asking for a blob to its last byte.
    Fetch,
    /// Hashing compressed bytes and writing them to the ingest.
    Store,
    /// Decompressing.
    Inflate,
    /// Hashing uncompressed bytes.
    Hash,
    /// Reading the tar and making files.
    Write,
    /// Waiting for the disk to hold it all.
    Sync,
    /// Committing snapshots and writing the image's name.
    Publish,
}

const PARTS: [(Part, &str); 8] = [
    (Part::Resolve, "resolve"),
    (Part::Fetch, "fetch"),
    (Part::Store, "store"),
    (Part::Inflate, "inflate"),
    (Part::Hash, "hash"),
    (Part::Write, "write"),
    (Part::Sync, "sync"),
    (Part::Publish, "publish"),
];

/// Seconds of work by kind; several kinds run at once, so they add up to more than the wall clock.
pub type Parts = Vec<(&'static str, f64)>;

/// Adds up the time of each kind of work, over all threads.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    nanoseconds: [AtomicU64; PARTS.len()],
}

impl Clock {
    pub(crate) fn add(&self, part: Part, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds[part as usize].fetch_add(nanoseconds, Ordering::Relaxed);
    }

    pub(crate) fn time<T>(&self, part: Part, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = work();
        self.add(part, begun.elapsed());
        result
    }

    pub(crate) async fn span<T>(&self, part: Part, work: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let result = work.await;
        self.add(part, begun.elapsed());
        result
    }

    pub(crate) fn parts(&self) -> Parts {
        let seconds = |part: Part| self.nanoseconds[part as usize].load(Ordering::Relaxed) as f64 / 1e9;
        PARTS.iter().map(|(part, name)| (*name, seconds(*part))).collect()
    }
}
