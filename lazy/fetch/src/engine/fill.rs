//! The background: brings in all that an image lacks, one long range after the other, behind everything else.
//!
//! `idle -> active: list what is missing -> take batches -> look again at what was taken -> complete | again later | full`.
//! The list is made once; nothing is asked of the board before a worker has nothing better to do.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Engine;
use super::board::{Plan, Want};
use super::flight::Priority;
use crate::cache::lock;
use crate::image::Core;

/// How long after a pass that brought nothing the next is tried; it doubles, to at most [`AGAIN_MAX`].
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(60);
/// How soon what others are carrying is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The background work of one image.
#[derive(Default)]
pub(crate) struct Fill {
    pub(crate) active: bool,
    /// Groups that were missing and are not taken yet, in the order of blob and place.
    todo: VecDeque<u32>,
    /// Groups taken in this pass.
    taken: Vec<u32>,
    listed: bool,
    not_before: Option<Instant>,
    passes_in_vain: u32,
    uncached_before: u64,
    pub(crate) error: Option<String>,
}

/// What to do for an image now.
enum Step {
    Carry(Box<Plan>),
    Later(Instant),
    Nothing,
}

impl Engine {
    /// The next request of the background, or when to look again.
    pub(super) fn next_fill(&self) -> Result<Plan, Option<Instant>> {
        let mut later: Option<Instant> = None;
        for image in self.images.open() {
            match self.fill_step(&image) {
                Step::Carry(plan) => return Ok(*plan),
                Step::Later(at) => later = Some(later.map_or(at, |other| other.min(at))),
                Step::Nothing => {}
            }
        }
        Err(later)
    }

    /// Starts or stops the background of an image.
    pub(crate) fn set_fill(&self, image: &Core, active: bool) {
        let mut fill = lock(&image.fill);
        if fill.active != active {
            *fill = Fill { active, ..Fill::default() };
        }
        drop(fill);
        // Under the board's lock, or a worker that has just looked would sleep on.
        let mut board = lock(&self.board);
        board.fill_changes += 1;
        self.other_work.notify_all();
    }

    fn fill_step(&self, image: &Arc<Core>) -> Step {
        let mut fill = lock(&image.fill);
        if !fill.active {
            return Step::Nothing;
        }
        if let Some(at) = fill.not_before.filter(|at| *at > Instant::now()) {
            return Step::Later(at);
        }
        if !fill.listed {
            let groups = (0..image.index.group_count()).filter(|group| !self.has_group(image, *group));
            fill.todo = groups.collect();
            fill.listed = true;
            fill.uncached_before = self.cache.uncached_bytes.load(std::sync::atomic::Ordering::Relaxed);
        }
        while !fill.todo.is_empty() {
            if let Some(plan) = self.batch(image, &mut fill) {
                self.other_work.notify_one();
                return Step::Carry(Box::new(plan));
            }
        }
        self.end_of_pass(image, &mut fill)
    }

    /// Nothing is left to take: is everything here?
    fn end_of_pass(&self, image: &Arc<Core>, fill: &mut Fill) -> Step {
        let before = fill.taken.len();
        fill.taken.retain(|group| !self.has_group(image, *group));
        if fill.taken.is_empty() {
            let (active, error) = (false, None);
            *fill = Fill { active, error, ..Fill::default() };
            return Step::Nothing;
        }
        let flying = {
            let board = lock(&self.board);
            let mut missing = fill.taken.iter().filter_map(|group| image.index.group(*group));
            missing.any(|group| board.flights.contains_key(&image.key(&group)))
        };
        let mut wait = LOOK_AGAIN;
        if !flying {
            if self.cache.uncached_bytes.load(std::sync::atomic::Ordering::Relaxed) > fill.uncached_before {
                let error = Some("the cache is full: the rest is fetched when it is read".to_owned());
                *fill = Fill { error, ..Fill::default() };
                return Step::Nothing;
            }
            fill.todo = std::mem::take(&mut fill.taken).into();
            let in_vain = fill.todo.len() == before;
            fill.passes_in_vain = if in_vain { fill.passes_in_vain + 1 } else { 0 };
            fill.error = Some(format!("{} pieces could not be fetched; trying again", fill.todo.len()));
            wait = AGAIN.saturating_mul(1 << fill.passes_in_vain.min(6)).min(AGAIN_MAX);
        }
        let at = Instant::now() + wait;
        fill.not_before = Some(at);
        Step::Later(at)
    }

    /// A request for the first groups of the list that lie together, without those that are here or on their way.
    fn batch(&self, image: &Arc<Core>, fill: &mut Fill) -> Option<Plan> {
        let (longest, gap) = (self.config.range_bytes_max, self.config.gap_bytes_max);
        let mut board = lock(&self.board);
        let mut todo = BTreeSet::new();
        let mut span: Option<(u32, u64, u64)> = None;
        while let Some(&number) = fill.todo.front() {
            let Some(group) = image.index.group(number) else { break };
            let end = group.offset.saturating_add(group.length);
            if let Some((blob, start, upto)) = span
                && (blob != group.blob
                    || group.offset > upto.saturating_add(gap)
                    || end.max(upto) - start > longest)
            {
                break;
            }
            fill.todo.pop_front();
            fill.taken.push(number);
            let key = image.key(&group);
            let is_here = || group.length == 0 || self.has_group(image, number);
            let priority = Priority::Background;
            let known = board.flights.contains_key(&key);
            let want = Want { key, group, priority, waits: false, is_here: &is_here };
            if known || board.want(image, &want, gap).is_none() || !board.is_waiting(&key) {
                continue;
            }
            todo.insert(key);
            let start = span.map_or(group.offset, |(_, start, _)| start);
            span = Some((group.blob, start, span.map_or(end, |(_, _, upto)| upto.max(end))));
        }
        let (_, start, end) = span?;
        Some(board.carry(todo, start..end, Priority::Background))
    }
}
