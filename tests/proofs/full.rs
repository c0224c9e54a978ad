//! A full disk, level by level: room for a block more each time, from none at all to more than the step needs.
//!
//! A step that does not fit says so in its own words, leaves nothing half-made, and succeeds once there is room. The disk
//! is ext4, which hands out blocks late: what a write was given, the sync may be refused.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::disk::{Blocks, Disk};
use crate::figures::{self, Tally, side_by_side};
use crate::judge::{Case, Then};
use crate::kill;
use crate::step::OWN_WRITE;
use crate::worker::{Job, Traced};
use crate::world::{self, Memory, World};

/// Trials in the short form.
const SHORT: u64 = 60;

/// Size of the disk, in bytes: too small for the store's reserve, so that full means full.
const DISK_BYTES: usize = 48 << 20;

/// More room than a step may need, in bytes, beyond what it is seen to take: tables being written beside old ones.
const SLACK_BYTES: u64 = 2 << 20;

/// A step, the disk it starts from, and the room it takes.
struct Level {
    case: Case,
    start: Blocks,
    needs_bytes: u64,
}

impl Level {
    fn prepare(case: Case, folder: &Path, formatted: &Blocks) -> Result<Self> {
        let mut disk = Disk::new(formatted.clone())?;
        let root = disk.mount("")?.join("root");
        world::copy(folder, &root)?;
        let free = free_bytes(&root)?;
        let said = run(&case, &root, || Ok(()))?;
        ensure!(acknowledged(&said), "{}: {said:?}", case.name);
        let needs_bytes = free.saturating_sub(free_bytes(&root)?) + SLACK_BYTES;
        disk.unmount()?;
        disk.load(formatted.clone())?;
        let root = disk.mount("")?.join("root");
        world::copy(folder, &root)?;
        disk.unmount()?;
        Ok(Self { case, start: disk.blocks(), needs_bytes })
    }
}

/// Takes the step of a case. Once the engine is open, `filled` is called.
fn run(case: &Case, root: &Path, mut filled: impl FnMut() -> Result<()>) -> Result<Vec<String>> {
    let job = Job {
        root: root.to_owned(),
        steps: vec![case.step.clone()],
        traced: Traced::Never,
        left_out: Vec::new(),
        confirmed: true,
    };
    job.run(|line| if line == "open" { filled() } else { Ok(()) })
}

fn acknowledged(said: &[String]) -> bool {
    said.iter().any(|line| line == "ack 0")
}

fn free_bytes(path: &Path) -> Result<u64> {
    rustix::fs::syncfs(File::open(path)?)?;
    let facts = statvfs(path)?;
    Ok(facts.f_bfree * facts.f_frsize)
}

/// Takes all room but `left` bytes.
fn fill(path: &Path, left: u64) -> Result<()> {
    let file = File::create(path)?;
    // The file's own extents take blocks too, so what is asked for shrinks until it is there.
    let mut wanted = free_bytes(path)?.saturating_sub(left);
    while wanted > 0 && fallocate(&file, FallocateFlags::empty(), 0, wanted).is_err() {
        wanted = wanted.saturating_sub(4096);
    }
    ensure!(left > 0 || file.metadata()?.blocks() > 0, "nothing was filled");
    Ok(())
}

/// How a step met a disk with little room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Met {
    /// There was enough.
    Room,
    /// It was refused.
    Refusal,
    /// The engine could not even be opened.
    NoOpening,
}

/// Fills the disk when the engine is open, or before, takes the step, and asks the question once there is room.
fn trial(disk: &mut Disk, level: &Level, left: u64, open_first: bool, then: Then) -> Result<Met> {
    disk.load(level.start.clone())?;
    let mounted = disk.mount("")?;
    let (root, filler) = (mounted.join("root"), mounted.join("filler"));
    if !open_first {
        fill(&filler, left)?;
    }
    let said = run(&level.case, &root, || if open_first { fill(&filler, left) } else { Ok(()) })?;
    std::fs::remove_file(&filler)?;
    let refused = said.iter().find(|line| line.starts_with("failed "));
    match refused {
        None => ensure!(acknowledged(&said), "the worker said nothing"),
        // What a user writes into a snapshot is refused to the user.
        Some(line) => ensure!(
            line.contains(" ResourceExhausted ") || line.contains(OWN_WRITE),
            "a full disk is called: {line}"
        ),
    }
    level.case.judge(&root, acknowledged(&said), then).with_context(|| format!("{said:?}"))?;
    Ok(match refused {
        None => Met::Room,
        Some(line) if line.starts_with("failed open ") => Met::NoOpening,
        Some(_) => Met::Refusal,
    })
}

#[test]
fn f5_on_a_disk_with_any_room_a_step_is_whole_or_refused_in_clear_words() -> Result<()> {
    let world = World::new()?;
    let memory = Memory::mount()?;
    let formatted = Disk::format(DISK_BYTES, &["-N", "4096"])?.blocks();
    let mut levels = Vec::new();
    for (name, before, step) in kill::cases(&world) {
        let folder = memory.path().join(name.replace(' ', "-"));
        let case = Case::prepare(name, &before, step, &folder)?;
        levels.push(Level::prepare(case, &folder, &formatted).with_context(|| name.to_owned())?);
    }
    let disks: Vec<_> = (0..figures::threads())
        .map(|_| Ok(Mutex::new(Disk::new(formatted.clone())?)))
        .collect::<Result<_>>()?;
    let tally = Tally::new("F5 full disk");
    let closed = AtomicU64::new(0);
    let count = figures::trials(SHORT);
    let each = count.div_ceil(levels.len() as u64);
    side_by_side(figures::threads(), count, |thread, number| {
        let level = &levels[(number % levels.len() as u64) as usize];
        let share = number / levels.len() as u64;
        // Whole blocks: the file system knows nothing smaller.
        let left = (level.needs_bytes * share / each) & !4095;
        let then = if share.is_multiple_of(2) { Then::Collect } else { Then::Retry };
        let mut disk = disks[thread as usize].lock().unwrap();
        let open_first = !share.is_multiple_of(3);
        let outcome = trial(&mut disk, level, left, open_first, then);
        let unmounted = disk.unmount();
        let met = *outcome.as_ref().unwrap_or(&Met::Refusal);
        closed.fetch_add(u64::from(met == Met::NoOpening), Ordering::Relaxed);
        let outcome = outcome.map(|_| ()).and(unmounted);
        tally.count(
            met != Met::Room,
            || format!("{} with {left} bytes left, open {open_first}, then {then:?}", level.case.name),
            outcome,
        );
    });
    tally.note(&format!("hits are refusals, {} of them to open", closed.into_inner()));
    tally.close("ext4");
    Ok(())
}
