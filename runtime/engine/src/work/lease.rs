//! What an operation holds while it runs, and how it gives it up: well, failed, or cancelled.

use std::sync::Arc;

use storage_content::{EPHEMERAL_LABEL, ErrorKind, LeaseId, Resource, ResourceKind, Space};
use storage_model::{Digest, Labels, Namespace};

use super::{Workers, blocking};
use crate::{Engine, EngineError};

/// What becomes of the ingests of work that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterFailure {
    /// They stay where another try can go on from there.
    Resume,
    /// They go: nobody could find them again.
    Discard,
}

/// The lease of one operation, and the threads that work under it.
///
/// Dropped without [`release`](Self::release) or [`clean_up`](Self::clean_up), the operation was cancelled: its workers
/// are told to stop, and the lease goes when they have. What was fetched stays to be resumed, until the next collection.
pub(crate) struct WorkLease {
    engine: Engine,
    after: AfterFailure,
    /// What is made through it joins the lease.
    pub(crate) space: Space,
    id: Option<LeaseId>,
    pub(crate) workers: Workers,
}

impl WorkLease {
    /// Takes a lease that ends with the engine; `purpose` is for those who list leases.
    pub(crate) async fn take(
        engine: &Engine,
        namespace: &Namespace,
        purpose: &'static str,
        after: AfterFailure,
    ) -> Result<Self, EngineError> {
        let (engine, space) = (engine.clone(), engine.space(namespace));
        blocking(move || {
            let labels = Labels::from([(EPHEMERAL_LABEL.to_owned(), purpose.to_owned())]);
            let lease = space.create_lease(None, labels)?;
            let space = space.leased(&lease.id);
            Ok(Self { engine, after, space, id: Some(lease.id), workers: Workers::new() })
        })
        .await
    }

    /// Gives the lease up: the work has ended, well or failed.
    pub(crate) async fn end<T>(self, outcome: Result<T, EngineError>) -> Result<T, EngineError> {
        match outcome {
            Ok(value) => {
                self.release().await?;
                Ok(value)
            }
            Err(error) => {
                self.clean_up(&error).await;
                Err(error)
            }
        }
    }

    /// Its name: unique among all leases.
    pub(crate) fn name(&self) -> Arc<str> {
        self.id.as_ref().map(LeaseId::as_str).unwrap_or_default().into()
    }

    /// Keeps a blob and everything reachable from it while the work goes on.
    pub(crate) async fn keep(&self, digest: Digest) -> Result<(), EngineError> {
        let (space, id) = (self.space.clone(), self.id.clone());
        blocking(move || match id {
            Some(id) => Ok(space.add_resource(&id, &Resource::content(&digest))?),
            None => Ok(()),
        })
        .await
    }

    async fn release(mut self) -> Result<(), EngineError> {
        let (engine, space) = (self.engine.clone(), self.space.clone());
        let (workers, id) = (self.workers.clone(), self.id.take());
        blocking(move || {
            workers.wait();
            if let Some(id) = id {
                space.delete_lease(&id)?;
            }
            engine.has_grown();
            Ok(())
        })
        .await
    }

    /// Ends work that failed: waits for its workers, and unless another try could go on from there, removes what it
    /// brought.
    async fn clean_up(mut self, error: &EngineError) {
        let transient = matches!(
            error.kind(),
            ErrorKind::Unavailable | ErrorKind::DeadlineExceeded | ErrorKind::Cancelled | ErrorKind::Aborted
        );
        let resumable = transient && self.after == AfterFailure::Resume;
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
            tracing::warn!(%error, "failed work left something behind until the next collection");
        }
    }
}

/// Aborts the ingests that belong to `lease`; others' are their own.
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

impl Drop for WorkLease {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            let (space, workers, after) = (self.space.clone(), self.workers.clone(), self.after);
            std::thread::spawn(move || {
                workers.stop();
                workers.wait();
                if after == AfterFailure::Discard
                    && let Err(error) = abort_ingests(&space, &id)
                {
                    tracing::warn!(%error, lease = %id, "ingests of cancelled work stay until they are old");
                }
                if let Err(error) = space.delete_lease(&id) {
                    tracing::warn!(%error, lease = %id, "the lease of cancelled work stays until the next start");
                }
            });
        }
    }
}
