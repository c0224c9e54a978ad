//! One request, from its first byte to the last group it brings.
//!
//! `open -> (bytes -> whole groups -> decode, verify, keep, hand out)* -> end | cut | broken`. Groups are handed out one by
//! one as they are complete; what was received of an incomplete one is kept for the next request.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use lazy_index::GroupRef;

use super::Engine;
use super::board::{Go, Plan};
use super::flight::{GroupKey, Priority};
use crate::cache::lock;
use crate::sources::{Ask, RangeBody};
use crate::{SourceError, image};

/// Fewest bytes per second of a transfer; a slower one is given up as if it gave none.
const PACE_BYTES_MIN: u64 = 4 * 1024;

/// How a transfer ended before it had brought everything.
pub(super) struct Broken {
    pub(super) error: SourceError,
    /// Who it was, if anybody answered.
    pub(super) source: Option<String>,
    /// What is here of the first group that is missing.
    pub(super) partial: BytesMut,
}

/// Received bytes from `base` on, as far as they are still needed.
struct Carver {
    base: u64,
    bytes: BytesMut,
}

impl Carver {
    /// First byte that has not come.
    fn position(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// Forgets what is before `offset`.
    fn trim(&mut self, offset: u64) {
        let count = offset.saturating_sub(self.base).min(self.bytes.len() as u64);
        bytes::Buf::advance(&mut self.bytes, count as usize);
        self.base += count;
    }

    /// The bytes of a group, if all are here.
    fn group(&self, key: &GroupKey) -> Option<&[u8]> {
        let from = usize::try_from(key.offset.checked_sub(self.base)?).ok()?;
        self.bytes.get(from..from.checked_add(usize::try_from(key.length).ok()?)?)
    }
}

/// Who sends, and how fast.
struct Sender {
    body: Box<dyn RangeBody>,
    source: String,
    window: Instant,
    window_bytes: u64,
    /// Time spent waiting for bytes, and how many came.
    waited: Duration,
    came: u64,
}

impl Engine {
    /// Makes the request of a plan and brings its groups to an end, whatever it is.
    pub(super) fn run(&self, plan: Plan) {
        let fault = plan.priority == Priority::Fault;
        let largest = plan.range.end - plan.range.start;
        let _reserved = self.budget.take(largest.saturating_mul(2), fault);
        let id = plan.id;
        let end = lock(&self.board).start(id);
        let broken = end.and_then(|end| {
            let range = plan.range.start..end.max(plan.range.start + 1).min(plan.range.end);
            self.request(Plan { range, ..plan }).err()
        });
        let left = lock(&self.board).end(id);
        match broken {
            Some(broken) => self.broke(left, broken),
            None => {
                let mut board = lock(&self.board);
                left.into_iter().for_each(|key| board.put_back(key, None));
            }
        }
        self.wake_all();
    }

    fn request(&self, plan: Plan) -> Result<(), Broken> {
        let Plan { id, blob, image, range, avoid, partial, .. } = plan;
        let mut carver = Carver { base: range.start - partial.len() as u64, bytes: partial };
        let deadline = Instant::now() + self.config.stall;
        let ask = Ask { blob: &blob, range: range.clone(), deadline, avoid: &avoid };
        self.metrics.requests.fetch_add(1, Ordering::Relaxed);
        image.stats.requests.fetch_add(1, Ordering::Relaxed);
        let asked = Instant::now();
        let body = match self.sources.range(&ask) {
            Ok(body) => {
                if !body.is_local() {
                    self.line.began(asked.elapsed());
                }
                body
            }
            Err(error) => {
                let partial = carver.bytes;
                return Err(Broken { error, source: None, partial });
            }
        };
        if body.start() != range.start {
            if lock(&self.board).is_streamed(&blob.digest, id) {
                // Another transfer has the whole blob coming; what it has passed is asked for after it.
                let mut board = lock(&self.board);
                let left = board.end(id);
                left.into_iter().for_each(|key| board.put_back(key, Some(Duration::from_millis(50))));
                return Ok(());
            }
            carver = Carver { base: body.start(), bytes: BytesMut::new() };
            self.become_stream(id, body.start(), &image, &blob.digest);
        }
        let source = body.source().to_owned();
        let now = Instant::now();
        let mut line = Sender { body, source, window: now, window_bytes: 0, waited: Duration::ZERO, came: 0 };
        let ended = self.receive(id, &mut line, carver, &image);
        if !line.body.is_local() {
            self.line.came(line.came, line.waited);
        }
        ended
    }

    /// The place sends the whole blob: every group that is missing and that the image needs of it comes past.
    fn become_stream(&self, id: u64, start: u64, image: &Arc<image::Core>, blob: &storage_model::Digest) {
        let of_blob = |group: &GroupRef| image.blobs[group.blob as usize].digest == *blob;
        let groups =
            image.index.groups().filter(|group| of_blob(group) && group.offset >= start && group.length > 0);
        let missing = groups.filter(|group| !self.has_group(image, group.number));
        let missing: Vec<_> = missing.map(|group| (image.key(&group), group)).collect();
        lock(&self.board).stream(id, start, image, missing);
    }

    /// Takes bytes and hands out groups until nothing is left to bring.
    fn receive(
        &self,
        id: u64,
        line: &mut Sender,
        mut carver: Carver,
        image: &Arc<image::Core>,
    ) -> Result<(), Broken> {
        loop {
            let go = lock(&self.board).go(id, carver.position());
            let key = match go {
                Go::Done => return Ok(()),
                Go::Wait => {
                    self.wait_for_calm(id, carver.position());
                    line.window = Instant::now();
                    line.window_bytes = 0;
                    continue;
                }
                Go::On(key) => key,
            };
            carver.trim(key.offset);
            if let Some(coded) = carver.group(&key) {
                self.arrived(&key, coded, line.body.as_ref());
                continue;
            }
            match self.more(line) {
                Ok(Some(bytes)) => {
                    let count = bytes.len() as u64;
                    self.metrics.received(count, line.body.is_local());
                    image.stats.bytes_fetched.fetch_add(count, Ordering::Relaxed);
                    self.is_reachable();
                    carver.bytes.extend_from_slice(&bytes);
                }
                ended => {
                    let (position, host) = (carver.position(), line.body.host().to_owned());
                    let error = ended.err().unwrap_or(SourceError::Short {
                        host,
                        received: position.saturating_sub(key.offset),
                        wanted: key.length,
                    });
                    let partial = if carver.base == key.offset { carver.bytes } else { BytesMut::new() };
                    return Err(Broken { error, source: Some(line.source.clone()), partial });
                }
            }
        }
    }

    /// The next bytes, if they come fast enough.
    fn more(&self, line: &mut Sender) -> Result<Option<bytes::Bytes>, SourceError> {
        let stall = self.config.stall;
        let asked = Instant::now();
        let bytes = line.body.next(asked + stall)?;
        let count = bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        line.waited += asked.elapsed();
        line.window_bytes += count;
        line.came += count;
        if line.window.elapsed() >= stall {
            if line.window_bytes < PACE_BYTES_MIN * stall.as_secs().max(1) {
                return Err(SourceError::Deadline { host: line.body.host().to_owned(), after: stall });
            }
            (line.window, line.window_bytes) = (Instant::now(), 0);
        }
        Ok(bytes)
    }

    /// Waits until no fault has the line, or this transfer is wanted itself.
    fn wait_for_calm(&self, id: u64, position: u64) {
        let mut board = lock(&self.board);
        while !board.closed && board.go(id, position) == Go::Wait {
            board = self.calm.wait(board).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lazy_index::Coding;
    use storage_model::Digest;

    fn key(offset: u64, length: u64) -> GroupKey {
        let group = GroupRef {
            number: 0,
            blob: 0,
            offset,
            length,
            output_length: None,
            coding: Coding::Plain,
            digest: None,
        };
        GroupKey::new(Digest::of(b"blob"), &group, Digest::from_bytes([0; 32]))
    }

    #[test]
    fn groups_are_carved_out_of_whatever_pieces_the_bytes_come_in() {
        let mut carver = Carver { base: 100, bytes: BytesMut::new() };
        carver.bytes.extend_from_slice(b"0123");
        assert_eq!(carver.group(&key(101, 5)), None, "not all is here");
        carver.bytes.extend_from_slice(b"456789");
        assert_eq!(carver.group(&key(101, 5)).unwrap(), b"12345");
        assert_eq!(carver.group(&key(103, 4)).unwrap(), b"3456", "groups may overlap");
        carver.trim(104);
        assert_eq!(carver.group(&key(103, 4)), None, "it was given up");
        assert_eq!(carver.group(&key(104, 6)).unwrap(), b"456789");
        carver.trim(500);
        assert_eq!((carver.base, carver.position()), (110, 110), "a gap is received and dropped");
    }
}
