//! Removes what nothing keeps: when asked, soon after something was let go, and when only time has passed.
//!
//! With a [`Budget`], images are let go before that, the one used longest ago first, until what is left fits.
//!
//! Not here: what is kept and why (`storage-content`), the directories of snapshots (the snapshotters).

mod budget;
mod schedule;

use storage_content::{Collected, Plan, Store};

pub use budget::Budget;
pub(crate) use schedule::Collector;

use crate::snapshotters::Snapshotters;
use crate::{Engine, EngineError};

/// What to collect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CollectRequest {
    /// Remove nothing, only tell what would go.
    pub dry_run: bool,
    /// Let images go for want of room first.
    pub budget: Option<Budget>,
}

impl Engine {
    /// Makes one collection: metadata first, then directories and files; what it removed is unlinked when it returns.
    ///
    /// # Errors
    /// [`EngineError::Store`] if the metadata cannot be read or written; what is reachable is never touched.
    pub fn collect(&self) -> Result<Collected, EngineError> {
        Ok(self.collect_with(&CollectRequest::default())?.totals)
    }

    /// Makes one collection, or in a dry run only says what it would remove, and why.
    ///
    /// # Errors
    /// [`EngineError::Store`] if the metadata cannot be read or written; what is reachable is never touched, and images
    /// that were let go for want of room stay gone.
    pub fn collect_with(&self, request: &CollectRequest) -> Result<Plan, EngineError> {
        collect(self.store(), self.all_snapshotters(), request)
    }

    /// Makes a collection within a second or two: after an image, a lease or a container was removed.
    pub fn collect_soon(&self) {
        self.collector().ask();
    }

    /// Something came that may exceed the budget, if there is one.
    pub(crate) fn has_grown(&self) {
        if self.config().budget.is_some() {
            self.collect_soon();
        }
    }
}

fn collect(
    store: &Store,
    snapshotters: &Snapshotters,
    request: &CollectRequest,
) -> Result<Plan, EngineError> {
    let idle = match &request.budget {
        Some(budget) => budget.too_much(store)?,
        None => Vec::new(),
    };
    if request.dry_run {
        return Ok(store.plan_without(&idle)?);
    }
    let let_go = budget::let_go(store, &idle)?;
    let mut plan = store.collect_listed(&mut |removed| {
        tracing::debug!(?removed, "collected a snapshot");
    })?;
    budget::prepend(&mut plan, let_go);
    snapshotters.clean_up()?;
    store.empty_trash();
    Ok(plan)
}
