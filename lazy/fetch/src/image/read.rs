//! A read: what is here is copied, what is not is wanted, and waited for.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use lazy_index::{ChunkRef, Coding, NodeId, NodeKind};

use super::Image;
use crate::FetchError;
use crate::cache::lock;
use crate::engine::{GroupKey, Priority, Slot, Want};
use crate::status::FaultNote;

/// A chunk that is not here, and the part of `out` that wants some of it.
struct Missing {
    chunk: ChunkRef,
    /// Where in the chunk the wanted bytes begin.
    from: u64,
    /// Where they go.
    to: Range<usize>,
}

impl Image {
    /// Reads bytes of a file from `offset` on into `out`, as `pread` does: all of `out` is filled but at the end of the
    /// file. Blocks until the bytes are here and verified, at most [`Config::fault_deadline`](crate::Config::fault_deadline).
    ///
    /// # Errors
    /// [`FetchError`]; what `out` holds then is undefined.
    pub fn read(&self, node: NodeId, offset: u64, out: &mut [u8]) -> Result<usize, FetchError> {
        let core = &self.core;
        let attr = core.index.attr(node).filter(|attr| attr.kind == NodeKind::File);
        let size = attr.ok_or_else(|| core.not_a_file(node))?.size;
        let count = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        if count == 0 {
            return Ok(0);
        }
        let out = &mut out[..count];
        let at_ms = u64::try_from(core.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        lock(&core.log).read(node, offset, count as u64, at_ms);
        let missing = self.read_here(node, offset, out)?;
        if missing.is_empty() {
            self.engine.metrics.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(count);
        }
        let began = Instant::now();
        let brought = self.read_missing(node, size, offset, out, missing, began);
        self.note(node, offset, count as u64, began.elapsed(), &brought);
        brought.map(|_| count)
    }

    /// Copies what is here, and lists what is not.
    fn read_here(&self, node: NodeId, offset: u64, out: &mut [u8]) -> Result<Vec<Missing>, FetchError> {
        let (core, cache) = (&self.core, &self.engine.cache);
        let end = offset + out.len() as u64;
        let mut at = offset;
        let mut missing = Vec::new();
        for chunk in core.index.chunks(node, offset, out.len() as u64) {
            let upto = chunk.file_offset.saturating_add(chunk.length).min(end);
            if chunk.file_offset > at || upto <= at {
                break;
            }
            let (from, to) = (at - chunk.file_offset, (at - offset) as usize..(upto - offset) as usize);
            let target = &mut out[to.clone()];
            if chunk.group.coding == Coding::Zeros {
                target.fill(0);
            } else if !cache.read(&core.place(cache, &chunk), from, target) {
                missing.push(Missing { chunk, from, to });
            }
            at = upto;
        }
        if at == end {
            return Ok(missing);
        }
        Err(FetchError::Index { image: core.name.clone(), node: node.0, offset: at })
    }

    /// Wants what is missing and waits for all of it. Returns who sent it.
    fn read_missing(
        &self,
        node: NodeId,
        size: u64,
        offset: u64,
        out: &mut [u8],
        missing: Vec<Missing>,
        began: Instant,
    ) -> Result<String, FetchError> {
        let patience = self.engine.patience();
        let tickets = self.want(node, size, offset + out.len() as u64, &missing);
        let mut host = String::new();
        let mut failed = None;
        for (part, (key, slot)) in missing.iter().zip(tickets) {
            // After a failure the others are only left.
            if failed.is_none() {
                let target = &mut out[part.to.clone()];
                match self.take(part, &key, slot.as_ref(), target, (began, patience)) {
                    Ok(Some(from)) => host = from,
                    Ok(None) => {}
                    Err(error) => failed = Some(error),
                }
            }
            if slot.is_some() {
                self.engine.leave(&key);
            }
        }
        failed.map_or(Ok(host), Err)
    }

    /// Wants the groups of `missing`, and what follows them in the file behind them.
    fn want(
        &self,
        node: NodeId,
        size: u64,
        end: u64,
        missing: &[Missing],
    ) -> Vec<(GroupKey, Option<Arc<Slot>>)> {
        let (core, engine) = (&self.core, &self.engine);
        let ahead = engine.config.fault_range_bytes_max.min(size.saturating_sub(end));
        let next = core.index.chunks(node, end, ahead).filter(|chunk| !core.is_here(&engine.cache, chunk));
        let mut next: Vec<ChunkRef> = next.collect();
        next.extend(self.along(missing, &next));
        let chunks = missing.iter().map(|part| (part.chunk, true));
        let chunks: Vec<_> = chunks.chain(next.into_iter().map(|chunk| (chunk, false))).collect();
        let looks: Vec<_> =
            chunks.iter().map(|(chunk, _)| move || core.is_here(&engine.cache, chunk)).collect();
        let wants: Vec<Want<'_>> = chunks
            .iter()
            .zip(&looks)
            .map(|((chunk, waits), is_here)| Want {
                key: core.key(&chunk.group),
                group: chunk.group,
                priority: if *waits { Priority::Fault } else { Priority::File },
                waits: *waits,
                is_here,
            })
            .collect();
        let slots = engine.want(core, &wants);
        wants.iter().map(|want| want.key).zip(slots).take(missing.len()).collect()
    }

    /// What lies right behind the missing bytes in the blob and is not here either: one chunk for each group of it.
    fn along(&self, missing: &[Missing], next: &[ChunkRef]) -> Vec<ChunkRef> {
        let (core, engine) = (&self.core, &self.engine);
        let Some(last) = missing.last() else { return Vec::new() };
        let last = next.last().unwrap_or(&last.chunk).group;
        let first = missing.first().map_or(last, |part| part.chunk.group);
        let upto = first.offset.saturating_add(first.length).saturating_add(engine.bytes_along());
        let groups = (last.number + 1..).map_while(|number| core.index.group(number));
        let near = groups
            .take_while(|group| group.blob == last.blob && group.offset.saturating_add(group.length) <= upto);
        let first_chunks = near.filter_map(|group| core.index.group_chunks(group.number).next());
        first_chunks.filter(|chunk| !core.is_here(&engine.cache, chunk)).collect()
    }

    /// Waits for one chunk and copies it. Returns who sent it, unless it was here by now.
    fn take(
        &self,
        part: &Missing,
        key: &GroupKey,
        slot: Option<&Arc<Slot>>,
        out: &mut [u8],
        (began, patience): (Instant, Duration),
    ) -> Result<Option<String>, FetchError> {
        let cache = &self.engine.cache;
        let place = self.core.place(cache, &part.chunk);
        let outcome = match slot {
            Some(slot) => slot.wait(began + patience),
            None if cache.read(&place, part.from, out) => return Ok(None),
            // It was here a moment ago, and was given up or found damaged since.
            None => return self.take_again(part, out, (began, patience)),
        };
        let error = match outcome {
            Some(Ok(output)) => match output.chunk(&part.chunk) {
                Some(bytes) => {
                    let from = part.from as usize;
                    out.copy_from_slice(&bytes[from..from + out.len()]);
                    return Ok(Some(output.host.clone()));
                }
                // Another image's idea of this group was carried: ours is wanted anew.
                None => return self.take_again(part, out, (began, patience)),
            },
            Some(Err(error)) => error,
            None => FetchError::Deadline {
                blob: key.blob,
                offset: key.offset,
                after: began.elapsed(),
                last: slot.and_then(|slot| slot.last()),
            },
        };
        // Some chunks of a group may be right, and kept, where others are wrong.
        if cache.read(&place, part.from, out) { Ok(None) } else { Err(error) }
    }

    fn take_again(
        &self,
        part: &Missing,
        out: &mut [u8],
        (began, patience): (Instant, Duration),
    ) -> Result<Option<String>, FetchError> {
        let (chunk, key) = (part.chunk, self.core.key(&part.chunk.group));
        let late = |last| FetchError::Deadline { blob: key.blob, offset: key.offset, after: patience, last };
        if began.elapsed() >= patience {
            return Err(late(None));
        }
        let want =
            Want { key, group: chunk.group, priority: Priority::Fault, waits: true, is_here: &|| false };
        let slot = self.engine.want(&self.core, &[want]).pop().flatten();
        let outcome = slot.as_ref().and_then(|slot| slot.wait(began + patience));
        self.engine.leave(&key);
        let output = outcome.ok_or_else(|| late(slot.and_then(|slot| slot.last())))??;
        let bytes = output.chunk(&chunk).ok_or_else(|| FetchError::Index {
            image: self.core.name.clone(),
            node: chunk.node.0,
            offset: chunk.file_offset,
        })?;
        let from = part.from as usize;
        out.copy_from_slice(&bytes[from..from + out.len()]);
        Ok(Some(output.host.clone()))
    }

    /// Remembers a fault for people.
    fn note(
        &self,
        node: NodeId,
        offset: u64,
        length: u64,
        wait: Duration,
        brought: &Result<String, FetchError>,
    ) {
        let stats = &self.core.stats;
        let wait_us = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        stats.faults.fetch_add(1, Ordering::Relaxed);
        stats.fault_wait_us.fetch_add(wait_us, Ordering::Relaxed);
        if brought.is_err() {
            stats.failures.fetch_add(1, Ordering::Relaxed);
        }
        self.engine.metrics.fault(wait, brought.is_err());
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let note = FaultNote {
            path: self.path_of(node),
            offset,
            length,
            at_unix_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            wait_us,
            source: brought.as_ref().cloned().unwrap_or_default(),
            error: brought.as_ref().err().map(ToString::to_string),
        };
        lock(&self.core.log).fault(note);
    }
}
