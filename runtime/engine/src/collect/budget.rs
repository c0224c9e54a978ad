//! A budget of disk: which images are let go so that the rest fits.

use storage_content::{DoomReason, Doomed, ErrorKind, Plan, Store, StoreError, Thing};
use storage_model::Namespace;

use crate::EngineError;

/// How much the store may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// What it is brought down to, in bytes: the low watermark.
    pub keep_bytes: u64,
    /// Nothing is let go up to here, in bytes: the high watermark, `keep_bytes` or more.
    pub above_bytes: u64,
}

impl Budget {
    /// A budget without a second watermark.
    pub fn of(keep_bytes: u64) -> Self {
        Self { keep_bytes, above_bytes: keep_bytes }
    }

    /// The images to let go: as few as suffice, the one used longest ago first; all that may go if that does not suffice.
    pub(super) fn too_much(&self, store: &Store) -> Result<Vec<(Namespace, String)>, EngineError> {
        let usage = store.disk_usage()?;
        // What is on its way out is no reason to let more go.
        let taken = usage.bytes().saturating_sub(usage.trash.bytes);
        if taken <= self.above_bytes.max(self.keep_bytes) {
            return Ok(Vec::new());
        }
        let mut idle: Vec<_> =
            store.least_used_images()?.into_iter().map(|idle| (idle.namespace, idle.image.name)).collect();
        let fits = |count: usize| -> Result<bool, EngineError> {
            let freed = store.plan_without(&idle[..count])?.totals;
            Ok(taken.saturating_sub(freed.freed_bytes + freed.snapshot_bytes) <= self.keep_bytes)
        };
        // Letting more go never frees less, so the least number is found by halving.
        let (mut low, mut high) = (0, idle.len());
        while low < high {
            let middle = low.midpoint(high);
            if fits(middle)? { high = middle } else { low = middle + 1 }
        }
        idle.truncate(low);
        Ok(idle)
    }
}

/// Deletes the names of `images`; what only they kept goes with the collection that follows.
pub(super) fn let_go(store: &Store, images: &[(Namespace, String)]) -> Result<Vec<Doomed>, EngineError> {
    let mut gone = Vec::new();
    for (namespace, name) in images {
        match store.space(namespace).delete_image(name) {
            Ok(_) => gone.push(Doomed {
                namespace: namespace.clone(),
                thing: Thing::Image(name.clone()),
                bytes: 0,
                reason: DoomReason::LeastUsed,
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::into(error)),
        }
    }
    Ok(gone)
}

/// Puts the images that were let go before what the collection took.
pub(super) fn prepend(plan: &mut Plan, let_go: Vec<Doomed>) {
    plan.totals.images += let_go.len() as u64;
    plan.doomed.splice(0..0, let_go);
}
