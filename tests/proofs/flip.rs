//! T-4: single bits that flip on the disk, in blobs and in unpacked files.
//!
//! A check that reads data must find every damaged object, fetch or unpack it again, and leave all as it was. Several
//! objects are damaged before each check, one bit each, so that a repair must not disturb its neighbours.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use runtime_engine::{Engine, Outcome};

use crate::figures::{self, Random, Tally};
use crate::seen::Seen;
use crate::step::{self, Step};
use crate::world::{IMAGES, Memory, World};

/// Bits in the short form.
const SHORT: u64 = 200;

/// Objects damaged before each check.
const AT_ONCE: usize = 10;

/// Every file whose bits matter: blobs, and regular files of trees.
fn targets(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut pending = vec![root.join("blobs/sha256")];
    for snapshot in root.join("snapshots").read_dir()? {
        pending.push(snapshot?.path().join("fs"));
    }
    let mut inodes = BTreeSet::new();
    while let Some(directory) = pending.pop() {
        for entry in directory.read_dir()? {
            let entry = entry?;
            let facts = entry.metadata()?;
            if facts.is_dir() {
                pending.push(entry.path());
            } else if facts.is_file()
                && facts.len() > 0
                && inodes.insert(std::os::unix::fs::MetadataExt::ino(&facts))
            {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Flips one bit and keeps the file's times, as a disk would.
fn flip(path: &Path, random: &mut Random) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let facts = file.metadata()?;
    let at = random.next() % facts.len();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    byte[0] ^= 1 << random.below(8);
    file.write_all_at(&byte, at)?;
    let times = std::fs::FileTimes::new().set_accessed(facts.accessed()?).set_modified(facts.modified()?);
    File::set_times(&file, times)?;
    Ok(())
}

/// Damages `count` objects, checks, and answers with what is not as it was.
fn trial(engine: &Engine, good: &Seen, count: usize, random: &mut Random) -> Result<()> {
    let mut files = targets(engine.store().root())?;
    let mut objects = BTreeSet::new();
    for _ in 0..count.min(files.len()) {
        let file = files.swap_remove(random.below(files.len()));
        flip(&file, random).with_context(|| file.display().to_string())?;
        objects.insert(object(&file, engine.store().root())?);
    }
    let (report, found) = step::check(engine)?;
    let unrepaired: Vec<_> = found.iter().filter(|found| found.outcome != Outcome::Repaired).collect();
    ensure!(unrepaired.is_empty(), "not repaired: {unrepaired:?}");
    ensure!(
        report.damaged >= objects.len() as u64 && report.repaired == report.damaged,
        "{} objects were damaged ({objects:?}), the check says {report:?}",
        objects.len()
    );
    // What was unpacked beside the damage shares its files with what was repaired until it is removed.
    engine.collect()?;
    let difference = Seen::of(engine)?.differs_from(good);
    ensure!(difference.is_empty(), "after the repair: {difference}");
    Ok(())
}

/// The blob or the snapshot that a file belongs to.
fn object(file: &Path, root: &Path) -> Result<PathBuf> {
    let inside = file.strip_prefix(root)?;
    let depth = if inside.starts_with("snapshots") { 2 } else { 3 };
    Ok(inside.iter().take(depth).collect())
}

#[test]
fn t4_every_flipped_bit_is_found_and_healed() -> Result<()> {
    let world = World::new()?;
    let memory = Memory::mount()?;
    let engine = step::open(&memory.path().join("root"))?;
    for image in 0..IMAGES {
        Step::Pull { reference: world.reference(image) }.take(&engine)?;
    }
    let good = Seen::of(&engine)?;
    let (report, found) = step::check(&engine)?;
    ensure!(report.damaged == 0, "a sound store is called damaged: {found:?}");
    let tally = Tally::new("T-4 flipped bits");
    let mut random = Random::new(figures::seed());
    let count = figures::trials(SHORT);
    let mut left = count;
    while left > 0 {
        let at_once = AT_ONCE.min(left as usize);
        let outcome = trial(&engine, &good, at_once, &mut random);
        let broken = outcome.is_err();
        tally.count(true, || format!("{} bits before the last {left}", at_once), outcome);
        if broken {
            break;
        }
        left -= at_once as u64;
    }
    tally.note(&format!("{} bits in {AT_ONCE}s, each trial one check of everything", count - left));
    tally.close("tmpfs");
    Ok(())
}
