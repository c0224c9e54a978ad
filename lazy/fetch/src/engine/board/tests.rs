//! The rules of order, one by one, without threads.

use std::sync::Arc;
use std::time::Instant;

use lazy_index::{Chunk, Coding, Entry, Group, ImageIndex, Kind, LayerPart, Limits, Time, Toc};
use storage_model::Digest;

use super::*;
use crate::{ImageSpec, NoCheckpoints};

const GROUP: u64 = 10_000;
const GAP: u64 = 1_000;

/// An image of `count` files, each in a group of its own, one after the other.
fn image(count: u64) -> Arc<Core> {
    let entry = |path: String, kind| {
        let path = path.into_bytes().into();
        Entry {
            path,
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Time { secs: 0, nanos: 0 },
            xattrs: Vec::new(),
        }
    };
    let mut toc = Toc { entries: vec![entry(String::new(), Kind::Directory)], ..Toc::default() };
    for number in 0..count {
        let n = number as u32;
        let digest = Some(Digest::of(&number.to_le_bytes()));
        toc.chunks.push(Chunk { file_offset: 0, length: GROUP, digest, group: n, inner_offset: 0 });
        let (offset, coding) = (number * GROUP, Coding::Plain);
        toc.groups.push(Group { offset, length: GROUP, output_length: Some(GROUP), coding, digest: None });
        toc.entries
            .push(entry(format!("f{number:03}"), Kind::File { size: GROUP, digest: None, chunks: n..n + 1 }));
    }
    let layer = LayerPart { blob: Digest::of(b"blob"), blob_bytes: count * GROUP, toc: &toc };
    let index = ImageIndex::build(&[layer], &Limits::default()).unwrap();
    let index = Arc::new(ImageIndex::from_bytes(index).unwrap());
    let checkpoints = Arc::new(NoCheckpoints);
    Arc::new(
        Core::new(ImageSpec { name: "test".to_owned(), index, checkpoints, origins: vec![Vec::new()] })
            .unwrap(),
    )
}

struct Table {
    board: Board,
    image: Arc<Core>,
    config: Config,
}

impl Table {
    fn new(count: u64) -> Self {
        let config = Config { gap_bytes_max: GAP, ..Config::default() };
        Self { board: Board::default(), image: image(count), config }
    }

    fn want(&mut self, group: u32, priority: Priority) -> GroupKey {
        let group = self.image.index.group(group).unwrap();
        let key = self.image.key(&group);
        let waits = priority == Priority::Fault;
        let want = Want { key, group, priority, waits, is_here: &|| false };
        self.board.want(&self.image, &want, GAP).unwrap();
        key
    }

    fn next(&mut self, faults: bool) -> Option<Plan> {
        let plan = self.board.next(faults, Instant::now(), &self.config);
        if let Some(plan) = &plan {
            self.board.start(plan.id);
        }
        plan
    }

    fn groups(&self, plan: &Plan) -> Vec<u64> {
        self.board.transfers[&plan.id].todo.iter().map(|key| key.offset / GROUP).collect()
    }
}

#[test]
fn the_urgent_goes_first_and_takes_its_neighbours_along_up_to_a_length() {
    let mut table = Table::new(300);
    table.config.fault_range_bytes_max = 3 * GROUP;
    for group in [200, 201, 202] {
        table.want(group, Priority::Trace);
    }
    for group in [10, 11, 12, 13, 14] {
        table.want(group, Priority::File);
    }
    table.want(10, Priority::Fault);
    let plan = table.next(true).unwrap();
    assert_eq!((table.groups(&plan), plan.range.clone()), (vec![10, 11, 12], 10 * GROUP..13 * GROUP));
    assert!(table.next(true).is_none(), "no other fault");
    let plan = table.next(false).unwrap();
    assert_eq!(table.groups(&plan), [200, 201, 202], "a trace goes beside a fault");
    assert!(table.next(false).is_none(), "the rest waits for it");
}

#[test]
fn a_hole_wider_than_the_gap_ends_a_request_and_a_narrower_one_does_not() {
    let mut table = Table::new(30);
    for group in [3, 5, 6, 8] {
        table.want(group, Priority::Trace);
    }
    let plan = table.next(false).unwrap();
    assert_eq!(table.groups(&plan), [3]);
    table.config.gap_bytes_max = GROUP;
    let plan = table.next(false).unwrap();
    assert_eq!(table.groups(&plan), [5, 6, 8]);
}

#[test]
fn a_fault_far_behind_in_a_transfer_cuts_it_and_one_that_is_next_hurries_it() {
    let mut table = Table::new(100);
    for group in 0..100 {
        table.want(group, Priority::Background);
    }
    let plan = table.next(false).unwrap();
    assert_eq!(table.groups(&plan).len(), 100);
    let first = table.want(0, Priority::Fault);
    assert_eq!(table.groups(&plan).len(), 100, "it is next: nothing is faster");
    assert_eq!(table.board.go(plan.id, 0), Go::On(first));
    table.want(50, Priority::Fault);
    assert_eq!(table.groups(&plan).len(), 50, "the transfer ends before it");
    let fault = table.next(true).unwrap();
    assert_eq!(table.groups(&fault)[0], 50);
    // While the fault has the line, the rest of the transfer waits; afterwards it goes on.
    table.board.finish(&first, Err(FetchError::Closed));
    assert_eq!(table.board.go(plan.id, GROUP), Go::Wait);
    table.board.end(fault.id);
    assert!(matches!(table.board.go(plan.id, GROUP), Go::On(_)));
}

#[test]
fn a_fault_takes_what_a_transfer_has_not_begun_to_ask_for() {
    let mut table = Table::new(10);
    for group in 0..10 {
        table.want(group, Priority::Background);
    }
    // Made, and waiting for memory that a paused transfer may hold.
    let plan = table.board.next(false, Instant::now(), &table.config).unwrap();
    table.want(0, Priority::Fault);
    let fault = table.next(true).unwrap();
    assert_eq!(table.groups(&fault)[0], 0);
    assert_eq!(table.board.start(plan.id), None, "nothing is left for it");
}

#[test]
fn what_nobody_waits_for_any_more_lets_others_go_first() {
    let mut table = Table::new(10);
    let left = table.want(3, Priority::Fault);
    assert!(table.board.has_faults());
    table.board.leave(&left);
    assert!(!table.board.has_faults());
    assert!(table.next(true).is_none());
    let plan = table.next(false).unwrap();
    assert_eq!(table.groups(&plan), [3]);
}

#[test]
fn what_failed_goes_alone_and_not_before_its_time() {
    let mut table = Table::new(10);
    let key = table.want(1, Priority::Fault);
    table.want(2, Priority::File);
    let plan = table.next(true).unwrap();
    assert_eq!(table.groups(&plan), [1, 2]);
    for key in table.board.end(plan.id) {
        table.board.flights.get_mut(&key).unwrap().failures = 1;
        table.board.put_back(key, Some(Duration::from_secs(3600)));
    }
    assert!(table.next(true).is_none());
    let later = Instant::now() + Duration::from_secs(3601);
    let plan = table.board.next(true, later, &table.config).unwrap();
    assert_eq!(table.groups(&plan), [1]);
    assert!(table.board.flights.contains_key(&key));
}

#[test]
fn a_stream_of_a_whole_blob_takes_what_is_ahead_of_it_and_the_rest_waits_for_the_next() {
    let mut table = Table::new(10);
    let key = table.want(5, Priority::Fault);
    let plan = table.next(true).unwrap();
    table.board.stream(plan.id, 0, &Arc::clone(&table.image), Vec::new());
    assert!(matches!(table.board.go(plan.id, 4 * GROUP), Go::On(next) if next == key));
    table.want(8, Priority::Fault);
    assert_eq!(table.groups(&plan), [5, 8], "it comes past");
    assert!(table.next(true).is_none());
    table.want(1, Priority::Fault);
    assert_eq!(table.groups(&plan), [5, 8], "it has passed");
    assert!(table.next(true).is_none(), "and is not asked for beside the stream");
    table.board.end(plan.id);
    let later = Instant::now() + Duration::from_secs(60);
    let plan = table.board.next(true, later, &table.config).unwrap();
    assert_eq!(table.groups(&plan)[0], 1);
}

#[test]
fn closing_leaves_no_flight_and_no_transfer_with_work() {
    let mut table = Table::new(10);
    table.want(1, Priority::Fault);
    table.want(7, Priority::Background);
    let plan = table.next(true).unwrap();
    table.board.close();
    assert_eq!(table.board.go(plan.id, 0), Go::Done);
    assert!(table.board.flights.is_empty() && table.next(false).is_none());
}
