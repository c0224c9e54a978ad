//! What was read and what was waited for, for people and for the next start.

use std::collections::{HashSet, VecDeque};

use lazy_index::NodeId;

use crate::status::{FaultNote, RECENT_FAULTS_MAX, TRACE_EVENTS_MAX};

/// The reads of an image since it was opened.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) recent: VecDeque<FaultNote>,
    pub(crate) reads: Vec<Read>,
    seen: HashSet<(u32, u64)>,
}

/// The first read of a part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) node: u32,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) at_ms: u64,
}

impl Log {
    /// Notes a read. One that goes on where the one before it ended is part of it; one at a known place is not new.
    pub(crate) fn read(&mut self, node: NodeId, offset: u64, length: u64, at_ms: u64) {
        if let Some(last) = self.reads.last_mut()
            && last.node == node.0
            && last.offset + last.length == offset
        {
            last.length += length;
            return;
        }
        if self.reads.len() < TRACE_EVENTS_MAX && self.seen.insert((node.0, offset)) {
            self.reads.push(Read { node: node.0, offset, length, at_ms });
        }
    }

    /// Notes a fault.
    pub(crate) fn fault(&mut self, note: FaultNote) {
        if self.recent.len() == RECENT_FAULTS_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(note);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_that_follow_one_another_are_one_and_repeated_ones_are_none() {
        let mut log = Log::default();
        for (node, offset) in [(1, 0), (1, 10), (1, 20), (2, 0), (1, 0), (2, 0), (1, 50)] {
            log.read(NodeId(node), offset, 10, 7);
        }
        let reads: Vec<_> = log.reads.iter().map(|read| (read.node, read.offset, read.length)).collect();
        assert_eq!(reads, [(1, 0, 30), (2, 0, 10), (1, 50, 10)]);
        for number in 0..2 * RECENT_FAULTS_MAX as u64 {
            log.fault(FaultNote { offset: number, ..FaultNote::default() });
        }
        assert_eq!(log.recent.len(), RECENT_FAULTS_MAX);
        assert_eq!(log.recent[0].offset, RECENT_FAULTS_MAX as u64);
    }
}
