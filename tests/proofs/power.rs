//! T-2: what a power cut can leave on ext4, state by state.
//!
//! A worker takes a chain of steps on a [`Disk`] that notes every write and flush, and the moment of each
//! acknowledgement. A state that a power cut can leave is: all writes up to a flush that was answered, and of those after
//! it any subset, each whole or in part (a sector of 512 bytes is written or not). Each state is mounted, so that ext4
//! replays its journal, and judged.
//!
//! That this finds what it looks for is shown by workers whose syncs do nothing: they must lose what they acknowledged.

use anyhow::{Context, Result, ensure};

use crate::disk::{Blocks, Disk, Event};
use crate::figures::{self, Random, Tally};
use crate::judge::{Case, Then};
use crate::seen::PUSHED;
use crate::step::Step;
use crate::worker::{Job, Traced};
use crate::world::{Memory, World};

/// Trials in the short form.
const SHORT: u64 = 240;

/// Size of the disk, in bytes: room for the store's reserve, and little that is never used.
const DISK_BYTES: usize = 128 << 20;

/// Bytes that a disk writes wholly or not at all.
const SECTOR: usize = 512;

/// Where ext4's superblock is, in bytes.
const SUPERBLOCK: usize = 1024;

/// Events between two stored states of the disk, from which the state of any trial is made.
const STRIDE: usize = 64;

/// What the worker does: each kind of step, and each with garbage and other images around it.
fn chain(world: &World) -> Vec<Step> {
    let pull = |image: usize| Step::Pull { reference: world.reference(image) };
    let forget = |image: usize| Step::Forget { reference: world.reference(image) };
    vec![
        pull(0),
        Step::Prepare { key: "draft".into(), reference: world.reference(0) },
        Step::Commit { key: "draft".into(), name: "done".into() },
        pull(1),
        Step::Import { archive: world.archive.clone(), name: "local.test/imported".into() },
        Step::Convert { reference: world.reference(1), target: "local.test/converted:1".into() },
        Step::Push { reference: world.reference(0), repository: world.registry.reference(PUSHED) },
        Step::Remove { key: "done".into() },
        forget(0),
        Step::Collect,
        Step::Fetch { reference: world.reference(0) },
        Step::Unpack { reference: world.reference(0) },
    ]
}

/// All that reached the disk while the worker worked.
struct Recording {
    events: Vec<Event>,
    /// The disk before every [`STRIDE`]th event.
    stored: Vec<Blocks>,
    /// Flushes, as positions in `events`.
    flushes: Vec<usize>,
    /// Acknowledgements, likewise.
    marks: Vec<usize>,
}

impl Recording {
    fn make(formatted: &Blocks, steps: &[Step], left_out: &[&str]) -> Result<Self> {
        let mut disk = Disk::new(formatted.clone())?;
        // Mounting writes too: it says in the superblock that the journal is to be replayed.
        disk.record();
        let root = disk.mount(&mount_options())?.join("root");
        let job = Job {
            root,
            steps: steps.to_vec(),
            traced: Traced::Never,
            left_out: left_out.iter().map(|&name| name.to_owned()).collect(),
            confirmed: true,
        };
        work(&job, &disk)?;
        let events = disk.recorded();
        disk.unmount()?;
        Ok(Self::index(formatted, events))
    }

    fn index(formatted: &Blocks, events: Vec<Event>) -> Self {
        let mut now = formatted.clone();
        let (mut stored, mut flushes, mut marks) = (Vec::new(), Vec::new(), Vec::new());
        for (position, event) in events.iter().enumerate() {
            if position % STRIDE == 0 {
                stored.push(now.clone());
            }
            match event {
                Event::Write { offset, bytes } => now.write(*offset, bytes),
                Event::Flush => flushes.push(position),
                Event::Mark => marks.push(position),
            }
        }
        stored.push(now);
        Self { events, stored, flushes, marks }
    }

    /// The disk after the events before `position`, all of them written.
    fn at(&self, position: usize) -> Blocks {
        let from = position / STRIDE;
        let mut disk = self.stored[from.min(self.stored.len() - 1)].clone();
        for event in self.events.iter().take(position).skip(from * STRIDE) {
            if let Event::Write { offset, bytes } = event {
                disk.write(*offset, bytes);
            }
        }
        disk
    }

    /// Where the writes begin that may be lost if the power fails at `position`.
    fn durable_until(&self, position: usize) -> usize {
        let flushed = self.flushes.partition_point(|flush| *flush < position);
        flushed.checked_sub(1).map_or(0, |last| self.flushes[last] + 1)
    }

    /// Steps that were acknowledged before `position`.
    fn acknowledged(&self, position: usize) -> usize {
        self.marks.partition_point(|mark| *mark < position)
    }
}

fn mount_options() -> String {
    std::env::var("WINDLASS_PROOF_MOUNT").unwrap_or_default()
}

/// Runs a worker to its end; each acknowledgement is marked before it goes on.
fn work(job: &Job, disk: &Disk) -> Result<()> {
    let mut done = 0;
    job.run(|line| {
        ensure!(!line.starts_with("failed "), "the worker failed: {line}");
        if line.starts_with("ack ") {
            disk.mark();
            done += 1;
        }
        Ok(())
    })?;
    ensure!(done == job.steps.len(), "the worker stopped after {done} steps");
    Ok(())
}

/// What of the unflushed writes is on the disk.
#[derive(Debug, Clone, Copy)]
enum Kept {
    /// All: the disk wrote in order.
    All,
    /// Each or not, by chance.
    Some,
    /// Each or not, and of one that is kept, each sector or not.
    Torn,
}

/// One state to be judged; the same numbers make the same state of the same recording.
#[derive(Debug, Clone, Copy)]
struct Cut {
    position: usize,
    kept: Kept,
    seed: u64,
}

impl Cut {
    /// The trial of this number: the first are all prefixes, evenly spread, the rest chosen by chance.
    fn number(number: u64, count: u64, recording: &Recording) -> Self {
        let mut random = Random::new(figures::seed() ^ number.wrapping_mul(0x5851_f42d_4c95_7f2d));
        let positions = recording.events.len() + 1;
        let prefixes = (count / 3).clamp(1, positions as u64);
        let (position, kept) = if number < prefixes {
            ((number as usize * positions) / prefixes as usize, Kept::All)
        } else {
            (random.below(positions), if random.below(3) == 0 { Kept::Torn } else { Kept::Some })
        };
        Self { position, kept, seed: random.next() }
    }

    /// The disk as the power cut leaves it.
    fn state(&self, recording: &Recording) -> Blocks {
        if matches!(self.kept, Kept::All) {
            return recording.at(self.position);
        }
        let from = recording.durable_until(self.position);
        let mut disk = recording.at(from);
        let mut random = Random::new(self.seed);
        let window = &recording.events[from..self.position];
        let torn = random.below(window.len().max(1));
        for (number, event) in window.iter().enumerate() {
            let Event::Write { offset, bytes } = event else { continue };
            // ext4 counts on its superblock being written whole: its checksum lies one sector after what it covers.
            let superblock = (*offset..offset + bytes.len()).contains(&SUPERBLOCK);
            if matches!(self.kept, Kept::Torn) && number == torn && !superblock {
                for (sector, bytes) in bytes.chunks(SECTOR).enumerate() {
                    if random.below(2) == 0 {
                        disk.write(offset + sector * SECTOR, bytes);
                    }
                }
            } else if random.below(2) == 0 {
                disk.write(*offset, bytes);
            }
        }
        disk
    }
}

/// Mounts one state and asks the question.
fn trial(disk: &mut Disk, recording: &Recording, cases: &[Case], cut: Cut, then: Then) -> Result<()> {
    disk.load(cut.state(recording))?;
    let root = disk.mount(&mount_options())?.join("root");
    let done = recording.acknowledged(cut.position);
    let (case, acknowledged) = match cases.get(done) {
        Some(case) => (case, false),
        None => (cases.last().context("there are steps")?, true),
    };
    let judged = case.judge(&root, acknowledged, then).with_context(|| format!("{done} steps acknowledged"));
    disk.unmount()?;
    judged
}

/// Judges `count` states of a recording.
fn judge_all(
    tally: &Tally,
    recording: &Recording,
    formatted: &Blocks,
    cases: &[Case],
    count: u64,
) -> Result<()> {
    let disks: Vec<_> = (0..figures::threads())
        .map(|_| Ok(std::sync::Mutex::new(Disk::new(formatted.clone())?)))
        .collect::<Result<_>>()?;
    figures::side_by_side(figures::threads(), count, |thread, number| {
        let cut = Cut::number(number, count, recording);
        let then = if number % 4 == 0 { Then::Retry } else { Then::Collect };
        let mut disk = disks[thread as usize].lock().unwrap();
        let outcome = trial(&mut disk, recording, cases, cut, then);
        if outcome.is_err() {
            keep(&cut.state(recording), number);
        }
        if disk.unmount().is_err() {
            eprintln!("a disk stays mounted after {cut:?}");
        }
        tally.count(true, || format!("{cut:?} then {then:?}"), outcome);
    });
    Ok(())
}

/// Writes a state that failed into the directory `WINDLASS_PROOF_KEEP`, if one is named: `e2fsck -fn` and a mount tell more.
fn keep(state: &Blocks, number: u64) {
    let Some(directory) = std::env::var_os("WINDLASS_PROOF_KEEP") else { return };
    let path = std::path::Path::new(&directory).join(format!("state-{number}"));
    if let Err(error) = std::fs::write(&path, state.read(0, state.bytes())) {
        eprintln!("{} cannot be kept: {error}", path.display());
    }
}

fn describe(recording: &Recording) -> String {
    let writes = recording.events.iter().filter(|event| matches!(event, Event::Write { .. })).count();
    format!(
        "{writes} writes, {} flushes, {} acknowledgements recorded",
        recording.flushes.len(),
        recording.marks.len()
    )
}

#[test]
fn t2_after_a_power_cut_nothing_acknowledged_is_lost_and_nothing_half_made_is_seen() -> Result<()> {
    let world = World::new()?;
    let steps = chain(&world);
    let cases = Case::chain(&steps, Memory::mount()?.path())?;
    let formatted = Disk::format(DISK_BYTES, &["-N", "8192"])?.blocks();
    let recording = Recording::make(&formatted, &steps, &[])?;
    let tally = Tally::new("T-2 power cut");
    tally.note(&describe(&recording));
    judge_all(&tally, &recording, &formatted, &cases, figures::trials(SHORT))?;
    tally.close(&format!("ext4 {:?}", mount_options()));
    Ok(())
}

#[test]
fn t2_without_syncs_a_power_cut_loses_what_was_acknowledged_and_this_is_seen() -> Result<()> {
    let world = World::new()?;
    let steps = chain(&world);
    let cases = Case::chain(&steps, Memory::mount()?.path())?;
    let formatted = Disk::format(DISK_BYTES, &["-N", "8192"])?.blocks();
    for (left_out, must_fail) in [
        (vec!["fsync", "fdatasync", "syncfs", "sync_file_range"], true),
        (vec!["syncfs"], true),
        (vec!["fdatasync"], true),
        (vec!["fsync"], false),
    ] {
        let recording = Recording::make(&formatted, &steps, &left_out)?;
        let tally = Tally::new("T-2 negative control");
        tally.note(&format!("without {}", left_out.join(" ")));
        tally.note(&describe(&recording));
        judge_all(&tally, &recording, &formatted, &cases, 60)?;
        tally.print("ext4");
        ensure!(
            !must_fail || tally.failures() > 0,
            "without {left_out:?} nothing was found: this proof is blind"
        );
    }
    Ok(())
}
