//! The threads that carry: some for faults alone, so that nothing else can occupy them, the others for all the rest.

use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use super::Engine;
use crate::FetchError;
use crate::cache::lock;

/// Starts the threads of an engine.
///
/// # Errors
/// [`FetchError::Threads`]. Those that were started end with [`Engine::close`].
pub(crate) fn start(engine: &Arc<Engine>) -> Result<Vec<JoinHandle<()>>, FetchError> {
    let others = engine.config.background_transfers_max.max(1);
    let faults = engine.config.transfers_max.saturating_sub(others).max(1);
    let mut threads = Vec::new();
    for number in 0..faults + others {
        let for_faults = number < faults;
        let (name, engine) = (if for_faults { "fetch-fault" } else { "fetch-rest" }, Arc::clone(engine));
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || engine.work(for_faults));
        threads.push(thread.map_err(|source| FetchError::Threads { source: Arc::new(source) })?);
    }
    Ok(threads)
}

impl Engine {
    /// Carries one request after the other until the engine is closed.
    fn work(&self, faults: bool) {
        loop {
            let mut board = lock(&self.board);
            if board.closed {
                return;
            }
            if let Some(plan) = board.next(faults, Instant::now(), &self.config) {
                drop(board);
                // There may be more, and one bell rang for all of it.
                if faults {
                    self.fault_work.notify_one()
                } else {
                    self.other_work.notify_one()
                }
                self.run(plan);
                continue;
            }
            let busy = board.has_faults();
            let mut until = board.next_delayed();
            if !faults && !busy {
                let changes = board.fill_changes;
                drop(board);
                match self.next_fill() {
                    Ok(plan) => {
                        self.run(plan);
                        continue;
                    }
                    Err(later) => until = until.into_iter().chain(later).min(),
                }
                board = lock(&self.board);
                // What was queued meanwhile has told nobody but us.
                if board.closed || board.has_work() || board.fill_changes != changes {
                    continue;
                }
            }
            let bell = if faults { &self.fault_work } else { &self.other_work };
            let now = Instant::now();
            drop(match until {
                Some(until) => {
                    let left = until.saturating_duration_since(now);
                    bell.wait_timeout(board, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => bell.wait(board).unwrap_or_else(PoisonError::into_inner),
            });
        }
    }
}
