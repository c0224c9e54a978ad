//! What is wanted, what is on its way, and what comes next: the state of the engine, and every decision about order.
//!
//! No threads and no I/O here, so that each rule can be tested by itself:
//! - a group has one flight at most; wanting it again joins the flight and may make it more urgent;
//! - what somebody waits for is never behind other bytes: if a less urgent transfer carries it and it is not next there,
//!   the transfer is cut before it and it goes by itself;
//! - neighbours in a blob that are wanted share a request, up to a gap and a length.
//!
//! Not here: the threads (`worker.rs`), bytes (`transfer.rs`), which groups the background wants (`fill.rs`).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use lazy_index::GroupRef;
use storage_model::Digest;

use super::flight::{Flight, GroupKey, Outcome, Priority, Slot, State};
use crate::image::Core;
use crate::sources::BlobAt;
use crate::{Config, FetchError};

/// Transfers for traces that may begin while somebody waits for something else: enough to use the line during the round
/// trip of a fault, too few to be in its way.
const TRACES_BESIDE_FAULTS: usize = 2;

/// How soon it is looked again whether a stream of a whole blob has ended.
const STREAM_WAIT: Duration = Duration::from_millis(50);

/// A request to be made.
pub(super) struct Plan {
    pub(super) id: u64,
    pub(super) blob: Arc<BlobAt>,
    pub(super) image: Arc<Core>,
    /// Bytes to ask for.
    pub(super) range: Range<u64>,
    pub(super) priority: Priority,
    pub(super) avoid: Vec<String>,
    /// Bytes before the range that are here already.
    pub(super) partial: BytesMut,
}

/// A request that is being made.
pub(super) struct Transfer {
    blob: Digest,
    priority: Priority,
    /// Groups it is to bring, in the order of their places.
    todo: BTreeSet<GroupKey>,
    /// Up to here it is as urgent as a fault, whatever else it carries.
    urgent_until: u64,
    /// First byte that is still in its hands; base <= position.
    base: u64,
    /// First byte that has not come yet.
    position: u64,
    /// It brings the whole blob: nothing is gained by cutting it.
    whole: bool,
    /// Its request is made, or about to be; before, it may still wait for memory that others hold.
    started: bool,
}

impl Transfer {
    fn is_urgent(&self) -> bool {
        self.priority == Priority::Fault || self.urgent_until > self.position
    }
}

/// What a transfer does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Go {
    /// Bring this group, the first of those it still has to.
    On(GroupKey),
    /// Wait: somebody else's fault has the line.
    Wait,
    /// Nothing is left to bring.
    Done,
}

/// A group that is wanted.
pub(crate) struct Want<'a> {
    pub(crate) key: GroupKey,
    pub(crate) group: GroupRef,
    pub(crate) priority: Priority,
    /// Somebody waits for it.
    pub(crate) waits: bool,
    /// Whether it came in the meantime: asked under the board's lock, after which only a flight can bring it.
    pub(crate) is_here: &'a dyn Fn() -> bool,
}

/// The board.
#[derive(Default)]
pub(super) struct Board {
    pub(super) flights: BTreeMap<GroupKey, Flight>,
    pub(super) transfers: HashMap<u64, Transfer>,
    queues: [VecDeque<GroupKey>; 4],
    delayed: Vec<(Instant, GroupKey)>,
    last_id: u64,
    /// How often the background of some image was started or stopped.
    pub(super) fill_changes: u64,
    pub(super) closed: bool,
}

impl Board {
    /// Wants a group. Returns where to wait, or nothing if it is here.
    pub(super) fn want(&mut self, image: &Arc<Core>, want: &Want<'_>, gap: u64) -> Option<Arc<Slot>> {
        if let Some(flight) = self.flights.get_mut(&want.key) {
            flight.waiters += u32::from(want.waits);
            let slot = Arc::clone(&flight.slot);
            self.hurry(want.key, want.priority, gap);
            return Some(slot);
        }
        if (want.is_here)() {
            return None;
        }
        let mut flight = Flight::new(want.group, Arc::clone(image), want.priority);
        flight.waiters = u32::from(want.waits);
        let slot = Arc::clone(&flight.slot);
        // A stream of the whole blob that has not passed the place brings it too.
        let stream = self.transfers.iter_mut().find(|(_, transfer)| {
            transfer.whole && transfer.blob == want.key.blob && transfer.base <= want.key.offset
        });
        if let Some((id, transfer)) = stream {
            flight.state = State::Carried(*id);
            transfer.todo.insert(want.key);
            if want.priority == Priority::Fault {
                transfer.urgent_until = transfer.urgent_until.max(want.key.end());
            }
        } else {
            self.queues[want.priority as usize].push_back(want.key);
        }
        self.flights.insert(want.key, flight);
        Some(slot)
    }

    /// Makes a flight at least as urgent as `priority`.
    fn hurry(&mut self, key: GroupKey, priority: Priority, gap: u64) {
        let Some(flight) = self.flights.get_mut(&key) else { return };
        if flight.priority <= priority {
            return;
        }
        flight.priority = priority;
        match flight.state {
            State::Queued(None) => self.queues[priority as usize].push_back(key),
            State::Queued(Some(_)) => {}
            State::Carried(id) => {
                let Some(transfer) = self.transfers.get_mut(&id) else { return };
                if priority != Priority::Fault || transfer.priority == Priority::Fault {
                    return;
                }
                let next = key.offset.saturating_sub(transfer.position) <= gap;
                if transfer.started && (transfer.whole || next || transfer.todo.first() == Some(&key)) {
                    transfer.urgent_until = transfer.urgent_until.max(key.end());
                } else {
                    let cut = transfer.todo.split_off(&key);
                    cut.into_iter().for_each(|key| self.requeue(key, None));
                }
            }
        }
    }

    /// Puts a flight back into the queue of its priority.
    fn requeue(&mut self, key: GroupKey, not_before: Option<Instant>) {
        let Some(flight) = self.flights.get_mut(&key) else { return };
        flight.state = State::Queued(not_before);
        match not_before {
            Some(at) => self.delayed.push((at, key)),
            // Somebody waits for it since long before the others of its queue.
            None => self.queues[flight.priority as usize].push_front(key),
        }
    }

    /// A reader waits no more. What nobody waits for is as urgent as a file's next bytes.
    pub(super) fn leave(&mut self, key: &GroupKey) {
        if let Some(flight) = self.flights.get_mut(key) {
            flight.waiters = flight.waiters.saturating_sub(1);
            if flight.waiters == 0 && flight.priority == Priority::Fault {
                flight.priority = Priority::File;
                if flight.state == State::Queued(None) {
                    self.queues[Priority::File as usize].push_back(*key);
                }
            }
        }
    }

    /// Whether anybody waits for something that is not here.
    pub(super) fn has_faults(&self) -> bool {
        self.transfers.values().any(Transfer::is_urgent)
            || self.queues[0].iter().any(|key| self.is_queued(key, Priority::Fault))
    }

    /// Whether a flight waits for a transfer.
    pub(super) fn is_waiting(&self, key: &GroupKey) -> bool {
        self.flights.get(key).is_some_and(|flight| flight.state == State::Queued(None))
    }

    /// Whether a worker that carries anything but faults would find something now.
    pub(super) fn has_work(&self) -> bool {
        let levels = [Priority::Trace, Priority::File, Priority::Background];
        !self.has_faults()
            && levels
                .iter()
                .any(|level| self.queues[*level as usize].iter().any(|key| self.is_queued(key, *level)))
    }

    fn is_queued(&self, key: &GroupKey, priority: Priority) -> bool {
        self.flights.get(key).is_some_and(|f| f.priority == priority && f.state == State::Queued(None))
    }

    /// When the next delayed flight may go.
    pub(super) fn next_delayed(&self) -> Option<Instant> {
        self.delayed.iter().map(|(at, _)| *at).min()
    }

    /// The next request for a worker: of faults only, or of everything else.
    pub(super) fn next(&mut self, faults: bool, now: Instant, config: &Config) -> Option<Plan> {
        for number in (0..self.delayed.len()).rev() {
            if self.delayed[number].0 <= now {
                let (_, key) = self.delayed.swap_remove(number);
                if let Some(flight) =
                    self.flights.get_mut(&key).filter(|f| matches!(f.state, State::Queued(Some(_))))
                {
                    flight.state = State::Queued(None);
                    self.queues[flight.priority as usize].push_front(key);
                }
            }
        }
        let levels: &[Priority] = match faults {
            true => &[Priority::Fault],
            false => &[Priority::Trace, Priority::File, Priority::Background],
        };
        let busy = !faults && self.has_faults();
        for &priority in levels {
            if busy && (priority != Priority::Trace || self.carrying(Priority::Trace) >= TRACES_BESIDE_FAULTS)
            {
                break;
            }
            while let Some(key) = self.queues[priority as usize].pop_front() {
                if !self.is_queued(&key, priority) {
                    continue;
                }
                // A host that sends whole blobs is sending this one, and has passed the place: another turn.
                if self.is_streamed(&key.blob, 0) {
                    self.requeue(key, Some(now + STREAM_WAIT));
                    continue;
                }
                return Some(self.plan(key, priority, config));
            }
        }
        None
    }

    fn carrying(&self, priority: Priority) -> usize {
        self.transfers.values().filter(|transfer| transfer.priority == priority).count()
    }

    /// A request for `head` and its neighbours.
    fn plan(&mut self, head: GroupKey, priority: Priority, config: &Config) -> Plan {
        let (longest, gap) = match priority {
            Priority::Fault => (config.fault_range_bytes_max, config.gap_bytes_max),
            _ => (config.range_bytes_max, config.gap_bytes_max),
        };
        let mut todo = BTreeSet::from([head]);
        let (mut start, mut end) = (head.offset, head.end());
        let flight = &self.flights[&head];
        if flight.is_fresh() {
            let ready = |f: &Flight| f.state == State::Queued(None) && f.is_fresh();
            let above = std::ops::Bound::Excluded(head);
            for (key, flight) in self.flights.range((above, std::ops::Bound::Unbounded)) {
                if key.blob != head.blob || key.offset > end.saturating_add(gap) {
                    break;
                }
                if ready(flight) && key.end().max(end) - start <= longest {
                    end = end.max(key.end());
                    todo.insert(*key);
                }
            }
            if priority != Priority::Fault {
                for (key, flight) in self.flights.range(..head).rev() {
                    if key.blob != head.blob || key.end().saturating_add(gap) < start {
                        break;
                    }
                    if ready(flight) && end - key.offset <= longest {
                        start = key.offset;
                        todo.insert(*key);
                    }
                }
            }
        }
        self.carry(todo, start..end, priority)
    }

    /// Makes a transfer of flights that are queued.
    pub(super) fn carry(&mut self, todo: BTreeSet<GroupKey>, range: Range<u64>, priority: Priority) -> Plan {
        self.last_id += 1;
        let id = self.last_id;
        for key in &todo {
            if let Some(flight) = self.flights.get_mut(key) {
                flight.state = State::Carried(id);
            }
        }
        let head = *todo.first().expect("a plan has a head");
        let flight = self.flights.get_mut(&head).expect("the head is a flight");
        let partial = std::mem::take(&mut flight.partial);
        let (image, blob) = (Arc::clone(&flight.image), flight.group.blob);
        let avoid = flight.avoid();
        let begin = range.start + partial.len() as u64;
        let transfer = Transfer {
            blob: head.blob,
            priority,
            todo,
            urgent_until: 0,
            base: range.start,
            position: begin,
            whole: false,
            started: false,
        };
        self.transfers.insert(id, transfer);
        let blob = Arc::clone(&image.blobs[blob as usize]);
        Plan { id, blob, image, range: begin..range.end, priority, avoid, partial }
    }

    /// The request of a transfer is made now. Returns the end of what is still to be asked for, or nothing if all of it was
    /// given to others meanwhile.
    pub(super) fn start(&mut self, id: u64) -> Option<u64> {
        let transfer = self.transfers.get_mut(&id)?;
        transfer.started = true;
        transfer.todo.iter().map(GroupKey::end).max()
    }

    /// What a transfer that has bytes up to `position` does next.
    pub(super) fn go(&mut self, id: u64, position: u64) -> Go {
        let busy = self.has_faults();
        let Some(transfer) = self.transfers.get_mut(&id) else { return Go::Done };
        transfer.position = position;
        let Some(first) = transfer.todo.first().copied() else { return Go::Done };
        transfer.base = first.offset.min(position);
        let waits = matches!(transfer.priority, Priority::File | Priority::Background);
        if busy && waits && !transfer.is_urgent() && first.end() > position && !self.closed {
            return Go::Wait;
        }
        Go::On(first)
    }

    /// Whether another transfer brings the whole of this blob.
    pub(super) fn is_streamed(&self, blob: &Digest, but: u64) -> bool {
        self.transfers.iter().any(|(id, transfer)| *id != but && transfer.whole && transfer.blob == *blob)
    }

    /// Makes a transfer one that brings the whole blob, from byte `position` on, and gives it every flight of the blob
    /// that is queued, and those in `groups`.
    pub(super) fn stream(
        &mut self,
        id: u64,
        position: u64,
        image: &Arc<Core>,
        groups: Vec<(GroupKey, GroupRef)>,
    ) {
        let Some(transfer) = self.transfers.get_mut(&id) else { return };
        (transfer.whole, transfer.base, transfer.position) = (true, position, position);
        // What is waited for is named below; the rest of the blob is as urgent as the rest of the image.
        transfer.priority = Priority::Background;
        for (key, group) in groups {
            let flight = self.flights.entry(key);
            flight.or_insert_with(|| Flight::new(group, Arc::clone(image), Priority::Background));
        }
        let from = GroupKey::floor(transfer.blob, position);
        for (key, flight) in self.flights.range_mut(from..).take_while(|(key, _)| key.blob == transfer.blob) {
            if matches!(flight.state, State::Queued(_)) || flight.state == State::Carried(id) {
                flight.state = State::Carried(id);
                transfer.todo.insert(*key);
                if flight.priority == Priority::Fault {
                    transfer.urgent_until = transfer.urgent_until.max(key.end());
                }
            }
        }
    }

    /// Ends a flight.
    pub(super) fn finish(&mut self, key: &GroupKey, outcome: Outcome) {
        if let Some(flight) = self.flights.remove(key) {
            if let State::Carried(id) = flight.state
                && let Some(transfer) = self.transfers.get_mut(&id)
            {
                transfer.todo.remove(key);
            }
            flight.slot.finish(outcome);
        }
    }

    /// Takes a flight out of its transfer and puts it back into the queue, after `wait`.
    pub(super) fn put_back(&mut self, key: GroupKey, wait: Option<Duration>) {
        if let Some(flight) = self.flights.get(&key) {
            if let State::Carried(id) = flight.state
                && let Some(transfer) = self.transfers.get_mut(&id)
            {
                transfer.todo.remove(&key);
            }
            self.requeue(key, wait.map(|wait| Instant::now() + wait));
        }
    }

    /// Ends a transfer and returns what it did not bring.
    pub(super) fn end(&mut self, id: u64) -> BTreeSet<GroupKey> {
        self.transfers.remove(&id).map_or_else(BTreeSet::new, |transfer| transfer.todo)
    }

    /// Ends everything: nobody is left waiting.
    pub(super) fn close(&mut self) {
        self.closed = true;
        for flight in std::mem::take(&mut self.flights).into_values() {
            flight.slot.finish(Err(FetchError::Closed));
        }
        self.transfers.values_mut().for_each(|transfer| transfer.todo.clear());
        self.queues.iter_mut().for_each(VecDeque::clear);
        self.delayed.clear();
    }
}

#[cfg(test)]
mod tests;
