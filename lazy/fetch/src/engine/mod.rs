//! The engine: one board, one cache, and the threads that carry what is wanted.

mod arrive;
mod board;
mod budget;
mod fill;
mod flight;
mod line;
mod transfer;
mod worker;

use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, Instant};

use storage_model::Digest;

use crate::cache::{Cache, Pins, lock};
use crate::image::Core;
use crate::metrics::Metrics;
use crate::{Config, Sources};
use board::Board;
use budget::Budget;
use line::Line;

pub(crate) use board::Want;
pub(crate) use fill::Fill;
pub(crate) use flight::{GroupKey, Priority, Slot};
pub(crate) use worker::start;

/// What all images of a process share.
pub(crate) struct Engine {
    pub(crate) config: Config,
    pub(crate) cache: Cache,
    pub(crate) metrics: Metrics,
    pub(crate) images: Arc<Images>,
    sources: Arc<dyn Sources>,
    board: Mutex<Board>,
    /// Something is queued that somebody waits for.
    fault_work: Condvar,
    /// Something else is queued, or nobody waits any more.
    other_work: Condvar,
    /// No fault has the line any more, or a transfer was hurried.
    calm: Condvar,
    budget: Budget,
    line: Line,
    /// Since when nothing has come from anywhere.
    outage: Mutex<Option<Instant>>,
}

/// The images that are open: what they need is pinned.
#[derive(Default)]
pub(crate) struct Images(pub(crate) Mutex<Vec<Weak<Core>>>);

impl Images {
    /// Those that are still open.
    pub(crate) fn open(&self) -> Vec<Arc<Core>> {
        let mut all = lock(&self.0);
        all.retain(|image| image.strong_count() > 0);
        all.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Pins for Images {
    fn each(&self, pin: &mut dyn FnMut(Digest)) {
        for image in self.open() {
            image.small_chunks(pin);
        }
    }
}

impl Engine {
    pub(crate) fn new(config: Config, cache: Cache, images: Arc<Images>, sources: Arc<dyn Sources>) -> Self {
        Self {
            budget: Budget::new(config.budget_bytes),
            config,
            cache,
            metrics: Metrics::default(),
            images,
            sources,
            board: Mutex::default(),
            fault_work: Condvar::new(),
            other_work: Condvar::new(),
            calm: Condvar::new(),
            line: Line::default(),
            outage: Mutex::default(),
        }
    }

    /// Wants groups of an image, in this order of importance. Returns for each where to wait for it, or nothing if it is
    /// here by now.
    pub(crate) fn want(&self, image: &Arc<Core>, wants: &[Want<'_>]) -> Vec<Option<Arc<Slot>>> {
        let mut board = lock(&self.board);
        if board.closed {
            let closed = Arc::<Slot>::default();
            closed.finish(Err(crate::FetchError::Closed));
            return wants.iter().map(|_| Some(Arc::clone(&closed))).collect();
        }
        // The less urgent first: a request for the urgent one finds its neighbours then.
        let mut order: Vec<usize> = (0..wants.len()).collect();
        order.sort_by_key(|number| std::cmp::Reverse(wants[*number].priority));
        let mut slots = vec![None; wants.len()];
        for number in order {
            slots[number] = board.want(image, &wants[number], self.config.gap_bytes_max);
        }
        drop(board);
        if wants.iter().any(|want| want.priority == Priority::Fault) {
            self.fault_work.notify_one();
            self.calm.notify_all();
        }
        self.other_work.notify_one();
        slots
    }

    /// A reader stops waiting.
    pub(crate) fn leave(&self, key: &GroupKey) {
        lock(&self.board).leave(key);
        self.calm.notify_all();
    }

    /// Whether all chunks of a group are in the cache.
    pub(crate) fn has_group(&self, image: &Core, group: u32) -> bool {
        image.index.group_chunks(group).all(|chunk| self.cache.has(&image.place(&self.cache, &chunk)))
    }

    /// How many bytes behind those a read waits for may come along: about as many as arrive during one round trip, so that
    /// whoever asks next loses no more by them than one more question would have cost.
    pub(crate) fn bytes_along(&self) -> u64 {
        self.line.bytes_per_trip().clamp(self.config.along_bytes_min, self.config.along_bytes_max)
    }

    /// How long a read waits: less once nothing has been coming for as long as one read would wait.
    pub(crate) fn patience(&self) -> Duration {
        let whole = self.config.fault_deadline;
        let outage = lock(&self.outage).is_some_and(|since| since.elapsed() > whole);
        if outage { (self.config.stall * 2).min(whole) } else { whole }
    }

    fn is_reachable(&self) {
        lock(&self.outage).take();
    }

    fn is_unreachable(&self) {
        lock(&self.outage).get_or_insert_with(Instant::now);
    }

    fn wake_all(&self) {
        self.fault_work.notify_one();
        self.other_work.notify_all();
        self.calm.notify_all();
    }

    /// Tells the threads to end, and everybody who waits that nothing comes any more.
    pub(crate) fn close(&self) {
        lock(&self.board).close();
        self.budget.close();
        self.wake_all();
        self.fault_work.notify_all();
    }
}
