//! What happens to a group whose bytes are here: decode, verify, keep, hand out. And to one whose bytes are not.
//!
//! Nothing leaves here unverified: a chunk with a digest has it, or the coded bytes of its group have theirs. Wrong bytes
//! are asked for again, each source at most twice, all at most [`WRONG_MAX`] times; then the readers fail.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lazy_index::{ChunkRef, Coding};
use storage_model::Digest;

use super::Engine;
use super::flight::{GroupKey, Output, Priority};
use super::transfer::Broken;
use crate::cache::lock;
use crate::decode::{DecodeError, Resume, decode};
use crate::image::Core;
use crate::sources::RangeBody;
use crate::{FetchError, SourceError, WrongBytes};

/// Most times that wrong bytes of one group are received before its readers fail.
const WRONG_MAX: usize = 3;
/// Most failures in a row of what nobody waits for.
const UNWATCHED_FAILURES_MAX: u32 = 3;
/// Most attempts where asking again should not help: somebody may just be restarting.
const FINAL_FAILURES_MAX: u32 = 2;
/// First wait after a failure; it doubles, to at most [`BACKOFF_MAX`].
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

impl Engine {
    /// Takes the coded bytes of a group.
    pub(super) fn arrived(&self, key: &GroupKey, coded: &[u8], body: &dyn RangeBody) {
        let (image, group) = {
            let board = lock(&self.board);
            let Some(flight) = board.flights.get(key) else { return };
            (Arc::clone(&flight.image), flight.group)
        };
        let chunks: Vec<ChunkRef> = image.index.group_chunks(group.number).collect();
        match self.prove(&image, &chunks, coded, body.host()) {
            Ok(output) => {
                lock(&self.board).finish(key, Ok(Arc::new(output)));
            }
            Err(fault) => self.wrong(key, body, fault),
        }
    }

    /// Decodes a group, verifies its chunks and keeps the right ones.
    ///
    /// # Errors
    /// What is wrong with the first chunk that is wrong; the others are kept all the same.
    fn prove(
        &self,
        image: &Core,
        chunks: &[ChunkRef],
        coded: &[u8],
        host: &str,
    ) -> Result<Output, WrongBytes> {
        let Some(first) = chunks.first() else {
            return Ok(Output { bytes: Vec::new(), proved: Vec::new(), coded: None, host: host.to_owned() });
        };
        let group = &first.group;
        let mut coded_digest = None;
        if chunks.iter().any(|chunk| chunk.digest.is_none()) {
            let actual = Digest::of(coded);
            if let Some(expected) = group.digest.filter(|expected| *expected != actual) {
                return Err(WrongBytes::Digest { expected, actual });
            }
            coded_digest = Some(actual);
        }
        let wanted = chunks.iter().map(|chunk| chunk.inner_offset.saturating_add(chunk.length)).max();
        let bytes = match group.coding {
            Coding::Deflate { checkpoint } => {
                let point =
                    image.checkpoint(group.blob, checkpoint).ok_or(WrongBytes::Checkpoint(checkpoint))?;
                let resume = Resume { bits: point.bits, window: &point.window };
                decode(group.coding, coded, Some(resume), wanted.unwrap_or(0))
            }
            coding => decode(coding, coded, None, wanted.unwrap_or(0)),
        };
        let bytes = bytes.map_err(undecodable)?;
        let mut output = Output { bytes, proved: Vec::new(), coded: coded_digest, host: host.to_owned() };
        let mut fault = None;
        for chunk in chunks {
            if let Err(wrong) = self.keep(image, chunk, &mut output) {
                fault = fault.or(Some(wrong));
            }
        }
        fault.map_or(Ok(output), Err)
    }

    /// Verifies one chunk and puts it into the cache.
    fn keep(&self, image: &Core, chunk: &ChunkRef, output: &mut Output) -> Result<(), WrongBytes> {
        let start = chunk.inner_offset as usize;
        let bytes = &output.bytes[start..start + chunk.length as usize];
        let actual = Digest::of(bytes);
        match chunk.digest {
            Some(expected) if expected != actual => return Err(WrongBytes::Digest { expected, actual }),
            Some(_) => {}
            // The coded bytes had theirs; one with neither is refused by the index, and here again.
            None if chunk.group.digest.is_some() && chunk.group.digest == output.coded => {}
            None => return Err(WrongBytes::Undecodable("nothing says what they should be".to_owned())),
        }
        self.cache.store(&image.place(&self.cache, chunk), actual, bytes);
        output.proved.push((chunk.inner_offset, chunk.length, actual));
        Ok(())
    }

    /// A group came and was wrong.
    fn wrong(&self, key: &GroupKey, body: &dyn RangeBody, fault: WrongBytes) {
        self.metrics.wrong_groups.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(blob = %key.blob, offset = key.offset, host = body.host(), %fault, "wrong bytes arrived");
        let mut board = lock(&self.board);
        let Some(flight) = board.flights.get_mut(key) else { return };
        flight.wrong.push(body.source().to_owned());
        let hopeless = matches!(fault, WrongBytes::Checkpoint(_)) || flight.wrong.len() >= WRONG_MAX;
        flight.wrong_fault = Some(fault);
        if hopeless {
            let error = wrong_bytes(key, flight);
            board.finish(key, Err(error));
        } else {
            board.put_back(*key, None);
            self.fault_work.notify_one();
            self.other_work.notify_one();
        }
    }

    /// A transfer broke: decides for each of the groups it did not bring.
    pub(super) fn broke(&self, left: BTreeSet<GroupKey>, broken: Broken) {
        let Broken { error, source, partial } = broken;
        tracing::debug!(%error, "a transfer broke");
        self.metrics.broken_transfers.fetch_add(1, Ordering::Relaxed);
        if error.is_transient() {
            self.is_unreachable();
        }
        let error = Arc::new(error);
        let Some(head) = left.first().copied() else { return };
        let mut board = lock(&self.board);
        let Some(flight) = board.flights.get_mut(&head) else { return };
        flight.failures = if partial.len() > flight.partial.len() { 1 } else { flight.failures + 1 };
        flight.partial = partial;
        let wait = BACKOFF.saturating_mul(1 << flight.failures.min(10)).min(BACKOFF_MAX);
        let mut verdict = None;
        if matches!(*error, SourceError::None { .. }) && !flight.slow.is_empty() {
            flight.slow.clear();
        } else if matches!(*error, SourceError::None { .. }) && !flight.wrong.is_empty() {
            verdict = Some(wrong_bytes(&head, flight));
        } else if !error.is_transient() && flight.failures >= FINAL_FAILURES_MAX {
            verdict = Some(FetchError::Unavailable { blob: head.blob, source: Arc::clone(&error) });
        } else if let Some(source) = source {
            flight.slow.push(source);
        }
        for key in left {
            let Some(flight) = board.flights.get_mut(&key) else { continue };
            // That nobody is left says less than why they were left.
            if !matches!(*error, SourceError::None { .. }) || flight.slot.last().is_none() {
                flight.slot.note(&error);
            }
            let unwatched = flight.waiters == 0 && flight.priority != Priority::Fault;
            let patient = !unwatched || flight.failures < UNWATCHED_FAILURES_MAX;
            match &verdict {
                // A blob that cannot be had cannot be had for all of them; wrong bytes are a matter of one group.
                Some(verdict) if key == head || matches!(verdict, FetchError::Unavailable { .. }) => {
                    board.finish(&key, Err(verdict.clone()));
                }
                None if !patient => {
                    let error = FetchError::Unavailable { blob: key.blob, source: Arc::clone(&error) };
                    board.finish(&key, Err(error));
                }
                _ => board.put_back(key, Some(wait)),
            }
        }
    }
}

fn wrong_bytes(key: &GroupKey, flight: &super::flight::Flight) -> FetchError {
    let mut sources = flight.wrong.clone();
    sources.dedup();
    let fault = flight.wrong_fault.clone().unwrap_or_else(|| WrongBytes::Undecodable(String::new()));
    FetchError::WrongBytes { blob: key.blob, offset: key.offset, sources, fault }
}

fn undecodable(error: DecodeError) -> WrongBytes {
    match error {
        DecodeError::Short { expected_bytes, actual_bytes } => {
            WrongBytes::Short { actual: actual_bytes, wanted: expected_bytes }
        }
        error => {
            let cause =
                std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
            WrongBytes::Undecodable(format!("{error}{cause}"))
        }
    }
}
