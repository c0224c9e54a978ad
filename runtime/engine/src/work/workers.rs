//! The threads of one operation: told to stop together, and waited for.
//!
//! Cancelling a future does not end the blocking threads it started. Work that fails or is dropped is over only when
//! they have: until then they may still make what the clean-up is about to remove.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use tokio::sync::watch;

/// The workers of one operation.
#[derive(Clone)]
pub(crate) struct Workers {
    shared: Arc<Shared>,
    stop: Arc<watch::Sender<bool>>,
}

#[derive(Default)]
struct Shared {
    count: Mutex<usize>,
    ended: Condvar,
    stopped: AtomicBool,
}

/// One worker; counts until it is dropped.
pub(crate) struct Working(Arc<Shared>);

impl Workers {
    pub(crate) fn new() -> Self {
        Self { shared: Arc::new(Shared::default()), stop: Arc::new(watch::Sender::new(false)) }
    }

    /// Counts one more worker.
    pub(crate) fn begin(&self) -> Working {
        *self.shared.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Working(self.shared.clone())
    }

    /// Tells all workers to stop as soon as they can.
    pub(crate) fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Release);
        self.stop.send_replace(true);
    }

    /// Ends when the workers are told to stop.
    pub(crate) async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        // The sender lives as long as `self`, so the wait ends only with the word.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    /// Blocks until no worker is left.
    pub(crate) fn wait(&self) {
        let mut count = self.shared.count.lock().unwrap_or_else(PoisonError::into_inner);
        while *count > 0 {
            count = self.shared.ended.wait(count).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// `source`, failing once the workers are told to stop.
    pub(crate) fn stoppable<R: Read>(&self, source: R) -> Stoppable<R> {
        Stoppable { source, shared: self.shared.clone() }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        *self.0.count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.ended.notify_all();
    }
}

/// A reader that ends in an error when its operation is called off.
pub(crate) struct Stoppable<R> {
    source: R,
    shared: Arc<Shared>,
}

impl<R: Read> Read for Stoppable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.shared.stopped.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the operation was called off"));
        }
        self.source.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_when_the_last_worker_has_and_reading_ends_when_told() {
        let workers = Workers::new();
        let working = workers.begin();
        let mut source = workers.stoppable(io::repeat(7));
        assert_eq!(source.read(&mut [0; 4]).unwrap(), 4);
        workers.stop();
        assert!(source.read(&mut [0; 4]).is_err());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| workers.wait());
            drop(working);
            waiting.join().unwrap();
        });
    }
}
