//! When a collection is made that nobody waits for.
//!
//! One thread waits for the earliest of: a second after something was let go; the moment at which something ends by
//! itself (a lease, an image, an ingest), looked for every quarter of a minute. It ends with the engine, which waits for a collection under way.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use storage_content::Store;

use super::{Budget, CollectRequest, collect};
use crate::snapshotters::Snapshotters;

/// How long a collection is put off after something was let go, so that many removals in a row cost one collection.
const DELAY: Duration = Duration::from_secs(1);

/// Longest time between two looks at what ends when: a lease made meanwhile may end soon, and clocks are set. A look
/// reads the leases and images, about a millisecond for a thousand.
const LOOK: Duration = Duration::from_secs(15);

/// Shortest time between two collections for the sake of time: a lease that ends each second costs no more than this.
const PAUSE: Duration = Duration::from_secs(5);

/// The thread that collects.
pub(crate) struct Collector {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// When a collection was asked for.
    due: Option<Instant>,
    /// The engine is closing.
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment, so a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector {
    /// Starts the thread. It enforces `budget` whenever it collects.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(crate) fn start(
        store: Store,
        snapshotters: Snapshotters,
        budget: Option<Budget>,
    ) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let worker = Worker { shared: shared.clone(), store, snapshotters, budget };
        let thread = std::thread::Builder::new().name("collector".into()).spawn(move || worker.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Asks for a collection soon.
    pub(crate) fn ask(&self) {
        self.shared.lock().due.get_or_insert_with(|| Instant::now() + DELAY);
        self.shared.changed.notify_all();
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic in there was told by the panic handler; nothing is lost with it.
            let _ = thread.join();
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    store: Store,
    snapshotters: Snapshotters,
    budget: Option<Budget>,
}

impl Worker {
    fn run(&self) {
        let mut not_before = Instant::now();
        while self.wait(self.next_by_time().max(not_before)) {
            // Cleared first: what is let go from here on may be missed by this collection and asks for the next.
            let asked = self.shared.lock().due.take_if(|due| *due <= Instant::now()).is_some();
            if !asked && !self.has_something_ended() {
                continue;
            }
            not_before = Instant::now() + PAUSE;
            let request = CollectRequest { dry_run: false, budget: self.budget };
            if let Err(error) = collect(&self.store, &self.snapshotters, &request) {
                tracing::warn!(%error, "a collection failed; the next one tries again");
            }
        }
    }

    /// When to look again although nobody asks.
    fn next_by_time(&self) -> Instant {
        let until = self.next_expiry().map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
        Instant::now() + until.unwrap_or(LOOK).min(LOOK)
    }

    fn has_something_ended(&self) -> bool {
        self.next_expiry().is_some_and(|end| end <= SystemTime::now())
    }

    fn next_expiry(&self) -> Option<SystemTime> {
        self.store.next_expiry().unwrap_or_else(|error| {
            tracing::warn!(%error, "what ends when cannot be read: nothing is collected by time");
            None
        })
    }

    /// Waits until `by_time` or until a collection is due; false if the engine is closing.
    fn wait(&self, by_time: Instant) -> bool {
        let mut state = self.shared.lock();
        loop {
            if state.ended {
                return false;
            }
            let until = state.due.map_or(by_time, |due| due.min(by_time));
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
