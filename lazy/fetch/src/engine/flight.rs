//! One download of one group, whoever waits for it.
//!
//! `queued -> carried by a transfer -> done`, or back to queued when the transfer breaks, is cut, or brings wrong bytes.
//! Every reader of every image that needs the group joins the same flight; what it brings is handed to all of them in
//! memory, whether or not the cache could keep it.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use bytes::BytesMut;
use lazy_index::{ChunkRef, Coding, GroupRef};
use storage_model::Digest;

use crate::cache::lock;
use crate::image::Core;
use crate::{FetchError, SourceError, WrongBytes};

/// How urgent something is; the first is the most urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Priority {
    /// Somebody waits.
    Fault,
    /// Somebody will wait, as the last time.
    Trace,
    /// The next of a file that is being read.
    File,
    /// All the rest.
    Background,
}

/// What makes two groups the same download. Ordered by blob and place, which is what coalescing walks along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GroupKey {
    pub(crate) blob: Digest,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    /// Coding as a number.
    coding: u8,
    /// What entering the stream depends on: two images may disagree about it.
    window: Digest,
}

impl GroupKey {
    pub(crate) fn new(blob: Digest, group: &GroupRef, window: Digest) -> Self {
        let coding = match group.coding {
            Coding::Plain => 0,
            Coding::Gzip => 1,
            Coding::Zstd => 2,
            Coding::Deflate { .. } => 3,
            Coding::Zeros => 4,
        };
        Self { blob, offset: group.offset, length: group.length, coding, window }
    }

    /// First byte after it.
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    /// The least key at or after `offset` of `blob`.
    pub(crate) fn floor(blob: Digest, offset: u64) -> Self {
        Self { blob, offset, length: 0, coding: 0, window: Digest::from_bytes([0; 32]) }
    }
}

/// What a group decoded to.
pub(crate) struct Output {
    pub(crate) bytes: Vec<u8>,
    /// Pieces that had their digest: inner offset, length, digest.
    pub(crate) proved: Vec<(u64, u64, Digest)>,
    /// Digest of the coded bytes, if it was needed.
    pub(crate) coded: Option<Digest>,
    /// Who sent it.
    pub(crate) host: String,
}

impl Output {
    /// The bytes of a chunk, if they are the right ones: what another image's index says of the group is not believed.
    pub(crate) fn chunk(&self, chunk: &ChunkRef) -> Option<&[u8]> {
        let end = chunk.inner_offset.checked_add(chunk.length)?;
        let bytes = self.bytes.get(usize::try_from(chunk.inner_offset).ok()?..usize::try_from(end).ok()?)?;
        let right = match chunk.digest {
            Some(digest) => {
                self.proved.contains(&(chunk.inner_offset, chunk.length, digest))
                    || Digest::of(bytes) == digest
            }
            None => chunk.group.digest.is_some() && chunk.group.digest == self.coded,
        };
        right.then_some(bytes)
    }
}

/// What a flight ends with.
pub(crate) type Outcome = Result<Arc<Output>, FetchError>;

/// Where readers wait.
#[derive(Default)]
pub(crate) struct Slot {
    outcome: Mutex<Option<Outcome>>,
    done: Condvar,
    /// What went wrong last, for whoever runs out of time.
    last: Mutex<Option<Arc<SourceError>>>,
}

impl Slot {
    /// Waits for the outcome until `deadline`.
    pub(crate) fn wait(&self, deadline: Instant) -> Option<Outcome> {
        let mut outcome = lock(&self.outcome);
        loop {
            if let Some(outcome) = &*outcome {
                return Some(outcome.clone());
            }
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            outcome =
                self.done.wait_timeout(outcome, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    pub(crate) fn last(&self) -> Option<Arc<SourceError>> {
        lock(&self.last).clone()
    }

    pub(super) fn note(&self, error: &Arc<SourceError>) {
        *lock(&self.last) = Some(Arc::clone(error));
    }

    pub(super) fn finish(&self, outcome: Outcome) {
        *lock(&self.outcome) = Some(outcome);
        self.done.notify_all();
    }
}

/// Where a flight stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// To be carried, not before a time if one is given.
    Queued(Option<Instant>),
    /// Carried by the transfer with this number.
    Carried(u64),
}

/// A flight on the board.
pub(super) struct Flight {
    pub(super) group: GroupRef,
    pub(super) image: Arc<Core>,
    pub(super) priority: Priority,
    pub(super) state: State,
    /// Readers that wait.
    pub(super) waiters: u32,
    /// Transfers that broke without bringing anything of it.
    pub(super) failures: u32,
    /// Who sent wrong bytes, once for each time.
    pub(super) wrong: Vec<String>,
    pub(super) wrong_fault: Option<WrongBytes>,
    /// Who broke off or was too slow.
    pub(super) slow: Vec<String>,
    /// Coded bytes from its start that are here already.
    pub(super) partial: BytesMut,
    pub(super) slot: Arc<Slot>,
}

impl Flight {
    pub(super) fn new(group: GroupRef, image: Arc<Core>, priority: Priority) -> Self {
        Self {
            group,
            image,
            priority,
            state: State::Queued(None),
            waiters: 0,
            failures: 0,
            wrong: Vec::new(),
            wrong_fault: None,
            slow: Vec::new(),
            partial: BytesMut::new(),
            slot: Arc::default(),
        }
    }

    /// Nothing went wrong with it yet: it may share a request.
    pub(super) fn is_fresh(&self) -> bool {
        self.failures == 0 && self.wrong.is_empty() && self.partial.is_empty()
    }

    /// Sources not to ask: who was wrong twice, and who was slow.
    pub(super) fn avoid(&self) -> Vec<String> {
        let twice = |name: &&String| self.wrong.iter().filter(|other| other == name).count() > 1;
        let mut avoid: Vec<String> = self.wrong.iter().filter(twice).chain(&self.slow).cloned().collect();
        avoid.sort_unstable();
        avoid.dedup();
        avoid
    }
}
