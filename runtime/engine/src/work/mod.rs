//! What every longer piece of work holds while it runs: a lease, its threads, a way to end well, badly, or half-way.
//!
//! `take a lease -> work under it -> release it`, or fail and clean up, or be dropped and clean up on the way out.
//! Everything that is made meanwhile hangs on the lease alone until the last step gives it a name; the lease ends with
//! the engine too. So whatever happens, one collection leaves nothing of unfinished work.

mod lease;
mod workers;

pub(crate) use lease::{AfterFailure, WorkLease};
use std::sync::atomic::{AtomicU64, Ordering};

use storage_content::Store;
pub(crate) use workers::{Workers, Working};

use crate::EngineError;

/// Beginning of references of ingests that only the work which began them can go on with.
const ONCE: &str = "windlass.io/once/";

/// Reference of an ingest that nobody could take up again, unique in this process.
pub(crate) fn once(lease: &str) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    format!("{ONCE}{lease}/{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Removes such ingests of an engine that was killed; nobody works yet.
///
/// # Errors
/// [`EngineError::Store`] if the namespaces cannot be read. An ingest that cannot be removed goes when it is old.
pub(crate) fn discard_unfinished(store: &Store) -> Result<(), EngineError> {
    for namespace in store.namespaces()? {
        let space = store.space(&namespace.name);
        for ingest in space.ingests()?.iter().filter(|ingest| ingest.reference.starts_with(ONCE)) {
            if let Err(error) = space.abort_ingest(&ingest.reference) {
                tracing::warn!(%error, reference = ingest.reference, "an unfinished ingest stays until it is old");
            }
        }
    }
    Ok(())
}

/// Runs blocking work on tokio's threads for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => unreachable!("a blocking task is cancelled only before it starts, when the runtime ends"),
    }
}
