//! What every longer piece of work holds while it runs: a lease, its threads, a way to end well, badly, or half-way.
//!
//! `take a lease -> work under it -> release it`, or fail and clean up, or be dropped and clean up on the way out.
//! Everything that is made meanwhile hangs on the lease alone until the last step gives it a name; the lease ends with
//! the engine too. So whatever happens, one collection leaves nothing of unfinished work.

mod lease;
mod workers;

pub(crate) use lease::{AfterFailure, WorkLease};
pub(crate) use workers::{Workers, Working};

use crate::EngineError;

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
