//! How many threads a session has, and which of them may wait for the network.
//!
//! There is always one thread that waits for the kernel: when the last one gets something to do, another is started, up to
//! [`THREADS_MAX`]; when more than [`IDLE_MAX`] wait, one ends. At most [`READING_MAX`] threads read at a time, as a read
//! may wait for a registry; what comes in addition is read only if it needs no network, or else waits in line. So looking
//! at the tree never waits for the network, however many readers do.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most threads of a session. Each costs a stack and, once it has read, an answer's buffer of up to 1 MiB.
const THREADS_MAX: usize = 32;

/// Threads that may wait for something to do; the others' buffers are given back.
const IDLE_MAX: usize = 3;

/// Reads at work at a time.
const READING_MAX: usize = 24;

/// A read as the kernel asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) unique: u64,
    pub(super) node: u64,
    pub(super) offset: u64,
    pub(super) size: u32,
}

/// What is to be done with a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Read, then ask [`Crew::next`].
    Now,
    /// Read: it is no burden.
    Free,
    /// Somebody else will.
    InLine,
}

#[derive(Debug, Default)]
struct State {
    threads: usize,
    idle: usize,
    reading: usize,
    line: VecDeque<Read>,
}

/// The threads of a session.
#[derive(Debug, Default)]
pub(super) struct Crew(Mutex<State>);

impl Crew {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing below panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread is about to be started.
    pub(super) fn join(&self) {
        self.state().threads += 1;
    }

    /// A thread ends; whether it was the last.
    pub(super) fn leave(&self) -> bool {
        let mut state = self.state();
        state.threads -= 1;
        state.threads == 0
    }

    /// A thread is about to wait for the kernel.
    pub(super) fn idle(&self) {
        self.state().idle += 1;
    }

    /// It waits no more, and has `something` to do or not; whether another thread has to be started now, which has been
    /// counted already.
    pub(super) fn busy(&self, something: bool) -> bool {
        let mut state = self.state();
        state.idle -= 1;
        let start = something && state.idle == 0 && state.threads < THREADS_MAX;
        state.threads += usize::from(start);
        start
    }

    /// Whether the calling thread, which is about to wait, should rather end.
    pub(super) fn is_superfluous(&self) -> bool {
        self.state().idle >= IDLE_MAX
    }

    /// May this be read now? `local` says whether it needs no network, and is asked only when too many read already.
    pub(super) fn turn(&self, read: Read, local: impl FnOnce() -> bool) -> Turn {
        if self.take_place() {
            return Turn::Now;
        }
        if local() {
            return Turn::Free;
        }
        let mut state = self.state();
        if state.reading < READING_MAX {
            state.reading += 1;
            return Turn::Now;
        }
        state.line.push_back(read);
        Turn::InLine
    }

    fn take_place(&self) -> bool {
        let mut state = self.state();
        let free = state.reading < READING_MAX;
        state.reading += usize::from(free);
        free
    }

    /// A read is done: the next one in line, or none and the place is free.
    pub(super) fn next(&self) -> Option<Read> {
        let mut state = self.state();
        let next = state.line.pop_front();
        state.reading -= usize::from(next.is_none());
        next
    }

    /// Requests at work or in line.
    pub(super) fn in_flight(&self) -> u64 {
        let state = self.state();
        ((state.threads - state.idle.min(state.threads)) + state.line.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(unique: u64) -> Read {
        Read { unique, node: 2, offset: 0, size: 1 }
    }

    #[test]
    fn whoever_takes_the_last_place_at_the_kernel_starts_another() {
        let crew = Crew::default();
        crew.join();
        crew.idle();
        let mut threads = 1;
        while crew.busy(true) {
            threads += 1;
            crew.idle();
        }
        assert_eq!(threads, THREADS_MAX);
        crew.idle();
        assert!(!crew.busy(false), "nobody follows when a connection ends");
    }

    #[test]
    fn l9_reads_that_wait_leave_threads_for_all_others() {
        let crew = Crew::default();
        for unique in 0..READING_MAX as u64 {
            assert_eq!(crew.turn(read(unique), || false), Turn::Now);
        }
        assert_eq!(crew.turn(read(100), || true), Turn::Free);
        assert_eq!(crew.turn(read(101), || false), Turn::InLine);
        assert_eq!(crew.turn(read(102), || false), Turn::InLine);
        assert_eq!(crew.next(), Some(read(101)));
        assert_eq!(crew.next(), Some(read(102)));
        assert_eq!(crew.next(), None);
        assert_eq!(crew.turn(read(103), || false), Turn::Now);
        const { assert!(THREADS_MAX - READING_MAX >= 8) };
    }
}
