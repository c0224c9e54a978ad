//! Locks by number: calls on one snapshot wait for one another, those on others do not.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Numbers somebody is at work on.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    busy: Mutex<BTreeSet<u64>>,
    freed: Condvar,
}

impl Numbers {
    /// Waits until nobody is at work on `number`.
    pub(crate) fn lock(&self, number: u64) -> Held<'_> {
        let mut busy = self.busy();
        while !busy.insert(number) {
            busy = self.freed.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        Held { numbers: self, number }
    }

    fn busy(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number that is ours until this is dropped.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    numbers: &'a Numbers,
    number: u64,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.numbers.busy().remove(&self.number);
        self.numbers.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn one_number_has_one_holder_and_others_do_not_wait_for_it() {
        let numbers = Numbers::default();
        let one = numbers.lock(1);
        drop(numbers.lock(2));
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let _held = numbers.lock(1);
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
            }
            drop(one);
        });
        assert!(numbers.busy().is_empty());
    }
}
