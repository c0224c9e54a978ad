//! Removes what nothing keeps: when asked, and soon after something was let go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use storage_content::Collected;

use crate::{Engine, EngineError};

/// How long a collection that nobody waits for is put off, so that many removals in a row cost one collection.
const DELAY: Duration = Duration::from_secs(1);

/// Whether a collection is about to be made.
#[derive(Clone, Default)]
pub(crate) struct Collector {
    scheduled: Arc<AtomicBool>,
}

impl Engine {
    /// Makes one collection: metadata first, then directories and files; what it removed is unlinked when it returns.
    ///
    /// # Errors
    /// [`EngineError::Store`] if the metadata cannot be read or written; what is reachable is never touched.
    pub fn collect(&self) -> Result<Collected, EngineError> {
        let collected = self.store().collect(&mut |removed| {
            tracing::debug!(?removed, "collected a snapshot");
        })?;
        self.overlay().cleanup()?;
        self.store().empty_trash();
        Ok(collected)
    }

    /// Makes a collection within a second or two, on a thread: after an image, a lease or a container was removed.
    pub fn collect_soon(&self) {
        let scheduled = self.collector().scheduled.clone();
        if scheduled.swap(true, Ordering::AcqRel) {
            return;
        }
        let engine = self.clone();
        std::thread::spawn(move || {
            std::thread::sleep(DELAY);
            // Cleared first: what is let go from here on may be missed by this collection and asks for the next.
            scheduled.store(false, Ordering::Release);
            if let Err(error) = engine.collect() {
                tracing::warn!(%error, "a collection failed; the next one tries again");
            }
        });
    }
}
