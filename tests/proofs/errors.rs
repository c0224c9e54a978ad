//! EIO: from any system call that changes the root, and from any write or flush of the disk below a real ext4.
//!
//! The step may fail, in words of its own, or succeed where the error hit nothing that matters; the process lives; what it
//! acknowledged is there, and what it did not is not half there. A sync that failed is a promise that cannot be kept:
//! nothing that hangs on it may be acknowledged, which is what the disk's own errors put to the test.

use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;

use crate::disk::{Blocks, Disk, Refuse};
use crate::figures::{self, Random, Tally, side_by_side};
use crate::judge::{Case, Then};
use crate::kill;
use crate::step::OWN_WRITE;
use crate::trace::{self, Fault, Outcome};
use crate::worker::{Job, Traced};
use crate::world::{self, Memory, World};

/// Trials in the short form, of each of the two kinds.
const SHORT: u64 = 60;

/// Size of the disk, in bytes.
const DISK_BYTES: usize = 48 << 20;

fn job(case: &Case, root: &Path, traced: Traced) -> Job {
    Job {
        root: root.to_owned(),
        steps: vec![case.step.clone()],
        traced,
        left_out: Vec::new(),
        confirmed: false,
    }
}

/// The cases, each with the place it starts from.
fn prepared(world: &World, folder: &Path) -> Result<Vec<(Case, std::path::PathBuf)>> {
    let prepare = |(name, before, step): (&'static str, Vec<_>, _)| {
        let start = folder.join(name.replace(' ', "-"));
        Ok((Case::prepare(name, &before, step, &start)?, start))
    };
    kill::cases(world).into_iter().map(prepare).collect()
}

/// The worker lived, and said either that it is done or what is wrong.
fn lived(outcome: &Outcome) -> Result<()> {
    ensure!(outcome.succeeded, "the worker died: {:?}", outcome.said);
    ensure!(!outcome.said.is_empty(), "the worker said nothing");
    let ours = |line: &&String| line.contains(" Untyped ") && !line.contains(OWN_WRITE);
    let untyped = outcome.said.iter().find(ours);
    ensure!(untyped.is_none(), "an error without a kind: {untyped:?}");
    Ok(())
}

#[test]
fn f6_an_error_of_any_system_call_fails_the_step_and_breaks_nothing() -> Result<()> {
    let world = World::new()?;
    let memory = Memory::mount()?;
    let cases = prepared(&world, memory.path())?;
    let mut calls = Vec::new();
    for (case, start) in &cases {
        let root = memory.path().join("survey");
        world::copy(start, &root)?;
        calls.push(trace::run(job(case, &root, Traced::SinceOpen).command(), &root, Fault::None)?.calls);
        std::fs::remove_dir_all(&root)?;
    }
    let total: u64 = calls.iter().sum();
    let count = figures::trials(SHORT);
    let tally = Tally::new("F6 EIO of system calls");
    tally.note(&format!("{total} points in all"));
    side_by_side(figures::threads(), count, |thread, number| {
        let mut at = if count < total { number * total / count } else { number % total };
        let mut which = 0;
        while at >= calls[which] {
            at -= calls[which];
            which += 1;
        }
        let ((case, start), then) = (&cases[which], [Then::Collect, Then::Retry][(number % 2) as usize]);
        let root = memory.path().join(format!("trial-{thread}"));
        let fault = Fault::Fail(at + 1, Errno::EIO);
        let attempt = || -> Result<Outcome> {
            world::copy(start, &root)?;
            let outcome = trace::run(job(case, &root, Traced::SinceOpen).command(), &root, fault)?;
            lived(&outcome)?;
            let judged = case.judge(&root, outcome.acknowledged(0), then);
            judged.with_context(|| format!("call {:?}, then {:?}", outcome.hit, outcome.said))?;
            Ok(outcome)
        };
        let outcome = attempt();
        let _ = std::fs::remove_dir_all(&root);
        let _ = std::fs::remove_dir_all(world::state_beside(&root));
        let hit = outcome.as_ref().map_or(true, |outcome| outcome.hit.is_some());
        tally.count(hit, || format!("{} {fault:?} then {then:?}", case.name), outcome.map(|_| ()));
    });
    tally.close("tmpfs");
    Ok(())
}

/// A case, the disk it starts from, and how many writes and flushes it makes.
struct Start {
    case: Case,
    disk: Blocks,
    writes: u64,
}

impl Start {
    fn prepare(case: Case, folder: &Path, formatted: &Blocks) -> Result<Self> {
        let mut disk = Disk::new(formatted.clone())?;
        let root = disk.mount("")?.join("root");
        world::copy(folder, &root)?;
        disk.unmount()?;
        let start = disk.blocks();
        let root = disk.mount("")?.join("root");
        disk.refuse(Refuse::Nothing);
        let outcome = trace::run(job(&case, &root, Traced::Never).command(), &root, Fault::None)?;
        ensure!(outcome.acknowledged(0), "{}: {outcome:?}", case.name);
        let writes = disk.refuse(Refuse::Nothing);
        disk.unmount()?;
        Ok(Self { case, disk: start, writes })
    }
}

/// The disk refuses a write during the step, then is well again and is mounted anew, as after a reboot.
fn refused(disk: &mut Disk, start: &Start, refuse: Refuse, then: Then) -> Result<()> {
    disk.load(start.disk.clone())?;
    let root = disk.mount("")?.join("root");
    disk.refuse(refuse);
    let outcome = trace::run(job(&start.case, &root, Traced::Never).command(), &root, Fault::None)?;
    lived(&outcome)?;
    // What the file system still holds is lost with it if the disk stays gone, and written late if not.
    let left = disk.unmount();
    disk.refuse(Refuse::Nothing);
    left?;
    let root = disk.mount("")?.join("root");
    start.case.judge(&root, outcome.acknowledged(0), then).with_context(|| format!("{:?}", outcome.said))
}

#[test]
fn f6_a_disk_that_refuses_a_write_or_all_of_them_loses_nothing_that_was_acknowledged() -> Result<()> {
    let world = World::new()?;
    let memory = Memory::mount()?;
    let formatted = Disk::format(DISK_BYTES, &["-N", "4096"])?.blocks();
    let mut starts = Vec::new();
    for (case, folder) in prepared(&world, memory.path())? {
        starts.push(Start::prepare(case, &folder, &formatted)?);
    }
    let disks: Vec<_> = (0..figures::threads())
        .map(|_| Ok(Mutex::new(Disk::new(formatted.clone())?)))
        .collect::<Result<_>>()?;
    let tally = Tally::new("F6 EIO of the disk");
    tally.note(&format!("{} points in all", starts.iter().map(|start| 2 * start.writes).sum::<u64>()));
    side_by_side(figures::threads(), figures::trials(SHORT), |thread, number| {
        let mut random = Random::new(figures::seed() ^ number.wrapping_mul(0x5851_f42d_4c95_7f2d));
        let start = &starts[(number % starts.len() as u64) as usize];
        let at = random.next() % start.writes.max(1);
        let refuse = if random.below(2) == 0 { Refuse::Once(at) } else { Refuse::After(at) };
        let then = [Then::Collect, Then::Retry][random.below(2)];
        let mut disk = disks[thread as usize].lock().unwrap();
        let outcome = refused(&mut disk, start, refuse, then);
        disk.refuse(Refuse::Nothing);
        let outcome = outcome.and(disk.unmount());
        tally.count(true, || format!("{} {refuse:?} then {then:?}", start.case.name), outcome);
    });
    tally.close("ext4");
    Ok(())
}
