//! kill -9 of the daemon at any moment of a pull, and power cut at the moment a pull reports success.
//!
//! `WINDLASS_CRASHES` is the number of kills (default 10, so that CI stays quick; the promise is measured with 100).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::{Engine, Registry, finish};

use crate::fixtures::{self, Files};

/// Longest that a restarted daemon may take until it serves.
const RESTART: Duration = Duration::from_secs(1);

fn kills() -> usize {
    std::env::var("WINDLASS_CRASHES").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

#[test]
fn b5_a_daemon_killed_at_any_moment_of_a_pull_restarts_quickly_and_the_pull_completes() -> Result<()> {
    let registry = Registry::start()?;
    let (builder, expected) = fixtures::crowd(4, 400, 20_000);
    let image = registry.push(&builder.build()?, "crowd", "1")?;
    let mut engine = Engine::new()?;
    engine.start_daemon()?;
    let started = Instant::now();
    engine.ok(["pull", "--quiet", &image])?;
    let whole = started.elapsed();
    forget(&engine, &image)?;

    let count = kills();
    let mut restarts = Vec::new();
    for number in 0..count {
        // Spread evenly over the pull and a little past its end, in an order that jumps about.
        let share = ((number * 7919) % count) as f64 / count as f64;
        let moment = whole.mul_f64(share * 1.1);
        let restart =
            cut(&mut engine, &image, moment).with_context(|| format!("kill {number} after {moment:?}"))?;
        check(&engine, &image, &expected).with_context(|| format!("after kill {number} at {moment:?}"))?;
        forget(&engine, &image)?;
        restarts.push(restart);
    }
    restarts.sort();
    let (median, longest) = (restarts[restarts.len() / 2], restarts[restarts.len() - 1]);
    println!("{count} kills over {whole:?}: restart median {median:?}, longest {longest:?}");
    ensure!(median < RESTART, "half of the restarts took longer than {median:?}");
    Ok(())
}

/// Kills the daemon `moment` after a pull began, and starts it again; returns the time until it served.
fn cut(engine: &mut Engine, image: &str, moment: Duration) -> Result<Duration> {
    let mut client =
        engine.command(["pull", "--quiet", image])?.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    std::thread::sleep(moment);
    engine.kill_daemon()?;
    let asked = Instant::now();
    while client.try_wait()?.is_none() {
        ensure!(asked.elapsed() < Duration::from_secs(10), "the client hangs after its daemon was killed");
        std::thread::sleep(Duration::from_millis(2));
    }
    // A client that begins after the kill may have started a daemon of its own.
    for pid in engine.processes() {
        let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status();
    }
    tests::wait_until("no daemon is left", Duration::from_secs(5), || engine.processes().is_empty())?;
    engine.start_daemon()
}

/// The pull completes, the tree is right, and nothing but the image is there after one collection.
fn check(engine: &Engine, image: &str, expected: &Files) -> Result<()> {
    engine.ok(["pull", "--quiet", image])?;
    let target = engine.scratch().join("mounted");
    fs::create_dir_all(&target)?;
    let place = target.to_str().context("a temporary path is text")?;
    engine.ok(["images", "mount", image, place])?;
    let bad = fixtures::damaged(&target, expected);
    engine.ok(["images", "unmount", place])?;
    ensure!(bad.is_empty(), "{} of {} files are damaged, first {:?}", bad.len(), expected.len(), bad.first());
    engine.ok(["gc"])?;
    let (ingests, trash) = (engine.inside_root("ingests"), engine.inside_root("trash"));
    ensure!(ingests.is_empty() && trash.is_empty(), "left after a collection: {ingests:?} {trash:?}");
    // Manifest, config, four layers; four snapshots.
    ensure!(engine.inside_root("blobs/sha256").len() == 6, "blobs: {:?}", engine.inside_root("blobs/sha256"));
    ensure!(engine.inside_root("snapshots").len() == 4, "snapshots: {:?}", engine.inside_root("snapshots"));
    ensure!(Engine::mounts_below(engine.scratch()).is_empty(), "mounts are left");
    Ok(())
}

/// Removes the image; then nothing at all may be left.
fn forget(engine: &Engine, image: &str) -> Result<()> {
    engine.ok(["images", "rm", image])?;
    engine.ok(["gc"])?;
    for place in ["blobs/sha256", "ingests", "snapshots", "trash"] {
        let left = engine.inside_root(place);
        ensure!(left.is_empty(), "{place} holds {left:?} after the image was removed");
    }
    Ok(())
}

/// An ext4 file system in a file: what has reached the file is what a power cut leaves.
struct Disk {
    _directory: tempfile::TempDir,
    file: PathBuf,
    mounted: PathBuf,
}

impl Disk {
    fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("windlass-power.").tempdir()?;
        let file = directory.path().join("disk");
        fs::File::create(&file)?.set_len(1 << 30)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&file))?;
        Self::mount(directory, file)
    }

    fn mount(directory: tempfile::TempDir, file: PathBuf) -> Result<Self> {
        let mounted = directory.path().join("mounted");
        fs::create_dir(&mounted)?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&file).arg(&mounted))?;
        Ok(Self { _directory: directory, file, mounted })
    }

    /// The disk as it would be found if the power failed now.
    fn after_power_cut(&self) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("windlass-power.").tempdir()?;
        let file = directory.path().join("disk");
        run(Command::new("cp").arg("--sparse=always").arg(&self.file).arg(&file))?;
        Self::mount(directory, file)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.mounted).status();
    }
}

fn run(command: &mut Command) -> Result<String> {
    finish(command, Duration::from_secs(60))?.success().with_context(|| format!("{command:?}"))
}

fn root_on(disk: &Path) -> PathBuf {
    disk.join("root")
}

#[test]
fn b1_an_image_survives_a_power_cut_at_the_moment_its_pull_reports_success() -> Result<()> {
    tests::require_root()?;
    let registry = Registry::start()?;
    let (builder, expected) = fixtures::crowd(3, 700, 20_000);
    let image = registry.push(&builder.build()?, "crowd", "1")?;
    let disk = Disk::new()?;
    let mut engine = Engine::with_root(&root_on(&disk.mounted))?;
    engine.start_daemon()?;
    engine.ok(["pull", "--quiet", &image])?;
    let after = disk.after_power_cut()?;
    engine.kill_daemon()?;
    drop(engine);

    let mut survivor = Engine::with_root(&root_on(&after.mounted))?;
    survivor.start_daemon()?;
    // The registry is gone: what is not on the disk cannot be fetched again.
    drop(registry);
    let target = survivor.scratch().join("mounted");
    fs::create_dir(&target)?;
    let place = target.to_str().context("a temporary path is text")?;
    survivor.ok(["images", "mount", &image, place])?;
    let bad = fixtures::damaged(&target, &expected);
    survivor.ok(["images", "unmount", place])?;
    assert!(bad.is_empty(), "{} of {} files were lost, first {:?}", bad.len(), expected.len(), bad.first());
    for name in survivor.inside_root("blobs/sha256") {
        let bytes = fs::read(survivor.root().join("blobs/sha256").join(&name))?;
        assert_eq!(storage_model::Digest::of(&bytes).hex(), name, "a blob was damaged");
    }
    survivor.kill_daemon()
}
