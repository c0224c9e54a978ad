//! What a pull holds while it runs, and how it gives it up: well, failed, or cancelled.

use storage_content::{EPHEMERAL_LABEL, ErrorKind, LeaseId, ResourceKind, Space};
use storage_model::{Labels, Namespace};

use super::blocking;
use super::workers::Workers;
use crate::{Engine, EngineError};

/// The lease of one pull, and the threads that work under it.
///
/// Dropped without [`release`](Self::release) or [`clean_up`](Self::clean_up), the pull was cancelled: its workers are
/// told to stop, and the lease goes when they have. What was fetched stays to be resumed, until the next collection.
pub(crate) struct PullLease {
    engine: Engine,
    pub(crate) space: Space,
    id: Option<LeaseId>,
    pub(crate) workers: Workers,
}

impl PullLease {
    pub(crate) async fn take(engine: &Engine, namespace: &Namespace) -> Result<Self, EngineError> {
        let (engine, space) = (engine.clone(), engine.space(namespace));
        blocking(move || {
            let labels = Labels::from([(EPHEMERAL_LABEL.to_owned(), "pull".to_owned())]);
            let lease = space.create_lease(None, labels)?;
            let space = space.leased(&lease.id);
            Ok(Self { engine, space, id: Some(lease.id), workers: Workers::new() })
        })
        .await
    }

    pub(crate) fn name(&self) -> String {
        self.id.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    pub(crate) async fn release(mut self) -> Result<(), EngineError> {
        let (space, id) = (self.space.clone(), self.id.take());
        blocking(move || match id {
            Some(id) => Ok(space.delete_lease(&id)?),
            None => Ok(()),
        })
        .await
    }

    /// Ends a pull that failed: waits for its workers, and unless another try could go on from there, removes what it
    /// brought.
    pub(crate) async fn clean_up(mut self, error: &EngineError) {
        let resumable = matches!(
            error.kind(),
            ErrorKind::Unavailable | ErrorKind::DeadlineExceeded | ErrorKind::Cancelled | ErrorKind::Aborted
        );
        let (engine, space, workers, id) =
            (self.engine.clone(), self.space.clone(), self.workers.clone(), self.id.take());
        let cleaned = blocking(move || {
            workers.stop();
            workers.wait();
            let Some(id) = id else { return Ok(()) };
            if !resumable {
                abort_ingests(&space, &id)?;
            }
            space.delete_lease(&id)?;
            if !resumable {
                engine.collect()?;
            }
            Ok(())
        });
        if let Err(error) = cleaned.await {
            tracing::warn!(%error, "a failed pull left something behind until the next collection");
        }
    }
}

/// Aborts the ingests that belong to `lease`; another pull's are its own.
fn abort_ingests(space: &Space, lease: &LeaseId) -> Result<(), EngineError> {
    for resource in space.resources(lease)? {
        if resource.kind == ResourceKind::Ingests
            && let Err(error) = space.abort_ingest(&resource.id)
            && !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unavailable)
        {
            return Err(error.into());
        }
    }
    Ok(())
}

impl Drop for PullLease {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            let (space, workers) = (self.space.clone(), self.workers.clone());
            std::thread::spawn(move || {
                workers.stop();
                workers.wait();
                if let Err(error) = space.delete_lease(&id) {
                    tracing::warn!(%error, lease = %id, "a cancelled pull's lease stays until the next start");
                }
            });
        }
    }
}
