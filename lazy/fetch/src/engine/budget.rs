//! Memory for bytes on their way: a transfer takes its share before it begins and gives it back when it ends.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::cache::lock;

/// The shares.
pub(super) struct Budget {
    bytes_max: u64,
    taken: Mutex<Taken>,
    freed: Condvar,
}

#[derive(Default)]
struct Taken {
    all: u64,
    faults: u64,
    closed: bool,
}

/// A share; it goes back when dropped.
pub(super) struct Share<'a> {
    budget: &'a Budget,
    bytes: u64,
    fault: bool,
}

impl Budget {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, taken: Mutex::default(), freed: Condvar::new() }
    }

    /// Takes `bytes`, as soon as they are free. A fault waits for other faults only; what is larger than all there is goes
    /// when it would be alone.
    pub(super) fn take(&self, bytes: u64, fault: bool) -> Share<'_> {
        let mut taken = lock(&self.taken);
        loop {
            let before = if fault { taken.faults } else { taken.all };
            if taken.closed || before == 0 || before + bytes <= self.bytes_max {
                taken.all += bytes;
                taken.faults += if fault { bytes } else { 0 };
                return Share { budget: self, bytes, fault };
            }
            taken = self.freed.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets everybody through: the end is near.
    pub(super) fn close(&self) {
        lock(&self.taken).closed = true;
        self.freed.notify_all();
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut taken = lock(&self.budget.taken);
        taken.all -= self.bytes;
        taken.faults -= if self.fault { self.bytes } else { 0 };
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_background_waits_for_memory_and_a_fault_does_not_wait_for_the_background() {
        let budget = Budget::new(100);
        let first = budget.take(80, false);
        let fault = budget.take(90, true);
        std::thread::scope(|scope| {
            let (told, hears) = std::sync::mpsc::channel();
            let (budget, telling) = (&budget, told.clone());
            scope.spawn(move || {
                let _share = budget.take(50, false);
                telling.send("background").unwrap();
            });
            let huge = scope.spawn(move || {
                drop(fault);
                told.send("fault").unwrap();
                drop(first);
                drop(budget.take(1_000, true));
            });
            huge.join().unwrap();
            assert_eq!(hears.recv().unwrap(), "fault");
            assert_eq!(hears.recv().unwrap(), "background");
        });
    }
}
