//! One `syncfs` for all who wait for one.
//!
//! A sync writes back everything that was written before it began, whoever wrote it. So who comes while one is running
//! waits for the next, together with all others who came meanwhile: at most two are waited for, however many there are.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use storage_content::{Store, StoreError};

/// Joins the syncs of one store.
#[derive(Debug, Default)]
pub(crate) struct Group {
    state: Mutex<State>,
    ended: Condvar,
}

/// `ended <= begun <= ended + 1`: one runs at a time.
#[derive(Debug, Default)]
struct State {
    begun: u64,
    ended: u64,
}

impl Group {
    /// Makes durable what was written before this call.
    ///
    /// # Errors
    /// [`StoreError::Sync`] to everyone whose writes may be among the lost ones.
    pub(crate) fn sync(&self, store: &Store) -> Result<(), StoreError> {
        let mark = store.sync_mark();
        let mut state = self.state();
        // One that runs by now may have begun before the last of our writes.
        let ours = state.begun + 1;
        while state.ended < ours {
            if state.begun > state.ended {
                state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.begun += 1;
            drop(state);
            let outcome = store.sync_since(mark);
            state = self.state();
            state.ended = state.begun;
            self.ended.notify_all();
            outcome?;
        }
        drop(state);
        // Whoever led may have been told of a failure; the kernel tells it once.
        if mark == store.sync_mark() { Ok(()) } else { store.sync_since(mark) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_who_wait_share_a_few_syncs() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let group = Group::default();
        std::thread::scope(|scope| {
            for n in 0..64 {
                let (group, store) = (&group, &store);
                scope.spawn(move || {
                    std::fs::write(store.root().join(format!("snapshots/{n}")), "x").unwrap();
                    group.sync(store).unwrap();
                });
            }
        });
        let state = group.state();
        assert_eq!(state.begun, state.ended);
        assert!((1..=64).contains(&state.ended));
    }
}
