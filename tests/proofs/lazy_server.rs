//! F14: kill -9 of the server of lazy mounts under readers that check every byte, and of its keeper every few times.
//!
//! A trial is one death. Between two of them a random number of files is read, so a server dies at any point of its life:
//! before it answers for the first time, with reads of many files in it, in the middle of writing its cache. A trial fails
//! if any reader got an error or a wrong byte, or if any call took longer than [`STALL_MAX`].
//!
//! The processes are those of `windlass`; the bytes come from a whole blob in the root, so that nothing but the deaths can
//! be the reason. Not here: registries that fail (`lazy/fetch`), what a server does with what it finds (`lazy/mount/tests`).

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lazy_index::{Chunk, Coding, Entry, Group, ImageIndex, Kind, LayerPart, Limits, Time, Toc};
use lazy_mount::{Client, MountRequest, Places};
use storage_model::Digest;
use storage_sys::process::{Pidfd, Watch, poll};
use tests::{require_root, windlass};

use crate::figures::{Random, Tally, seed, trials};

/// Deaths in the short form.
const SHORT: u64 = 30;

/// Readers at a time.
const READERS: u64 = 100;

/// Longest a call may take.
const STALL_MAX: Duration = Duration::from_secs(1);

/// Every so many deaths it is the keeper's.
const KEEPER_EVERY: u64 = 10;

/// Files of the image.
const FILES: u64 = 400;

/// The bytes of a file, from 1 to 200,000 of them.
fn content(file: u64) -> Vec<u8> {
    let size = (file * 7919) % 200_000 + 1;
    (0..size).map(|offset| (file.wrapping_mul(151) ^ offset ^ (offset >> 8)) as u8).collect()
}

/// A layer of such files and its table of contents, one chunk a file.
fn layer() -> (Vec<u8>, Toc) {
    let (mut blob, mut toc) = (Vec::new(), Toc::default());
    for file in 0..FILES {
        let bytes = content(file);
        let number = toc.chunks.len() as u32;
        let (offset, length) = (blob.len() as u64, bytes.len() as u64);
        let digest = Some(Digest::of(&bytes));
        toc.chunks.push(Chunk { file_offset: 0, length, digest, group: number, inner_offset: 0 });
        let coding = Coding::Plain;
        toc.groups.push(Group { offset, length, output_length: Some(length), coding, digest: None });
        toc.entries.push(Entry {
            path: format!("file-{file}").into_bytes().into(),
            kind: Kind::File { size: length, digest, chunks: number..number + 1 },
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: Vec::new(),
        });
        blob.extend_from_slice(&bytes);
    }
    (blob, toc)
}

/// A root with one image, mounted.
struct World {
    _directory: tempfile::TempDir,
    places: Places,
    client: Client,
    mountpoint: PathBuf,
}

impl World {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let places = Places {
            root: directory.path().join("root"),
            state: directory.path().join("state"),
            program: windlass()?,
        };
        let (blob, toc) = layer();
        let digest = Digest::of(&blob);
        let whole = places.blobs().join("sha256").join(digest.hex());
        for path in [&whole, &places.index("image"), &places.toc(&digest), &places.control()] {
            fs::create_dir_all(path.parent().context("a parent")?)?;
        }
        fs::write(&whole, &blob)?;
        let part = LayerPart { blob: digest, blob_bytes: blob.len() as u64, toc: &toc };
        fs::write(places.index("image"), ImageIndex::build(&[part], &Limits::default())?)?;
        fs::write(places.toc(&digest), toc.encode())?;
        let client = Client::connect_or_start(&places)?;
        let mountpoint = places.mountpoint("image");
        client.mount(&MountRequest {
            name: "image".into(),
            index: places.index("image"),
            tocs: vec![places.toc(&digest)],
            mountpoint: mountpoint.clone(),
            origins: Vec::new(),
            login: None,
            trace: None,
            fill: true,
        })?;
        Ok(Self { _directory: directory, places, client, mountpoint })
    }

    fn server(&self) -> Result<u32> {
        let status = self.client.status(Some("image"))?;
        Ok(status.first().context("the mount is forgotten")?.server)
    }

    /// The process that was started as keeper of this state directory and lives.
    fn keeper(&self) -> Result<u32> {
        let state = self.places.state.to_str().context("a name")?;
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<_> = words.split(|byte| *byte == 0).collect();
            if words.contains(&b"lazy-keeper".as_slice()) && words.contains(&state.as_bytes()) {
                return Ok(pid);
            }
        }
        bail!("there is no keeper");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.client.unmount("image");
    }
}

/// Kills a process and returns when it is dead.
fn kill(pid: u32) -> Result<()> {
    let handle = Pidfd::open(pid)?;
    handle.signal(9)?;
    let mut watches = [Watch::readable(handle.as_fd())];
    while poll(&mut watches, Some(STALL_MAX))? == 0 {}
    Ok(())
}

/// What the readers have to say.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    calls: AtomicU64,
    slowest_us: AtomicU64,
    slowest_ever_us: AtomicU64,
    errors: Mutex<Vec<String>>,
}

impl Seen {
    /// Does something that must not fail, and takes its time.
    fn timed<T>(&self, act: impl FnOnce() -> std::io::Result<T>) -> Option<T> {
        let begun = Instant::now();
        let outcome = act();
        let took = begun.elapsed().as_micros() as u64;
        self.slowest_us.fetch_max(took, Ordering::Relaxed);
        self.slowest_ever_us.fetch_max(took, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
        outcome.map_err(|error| self.errors.lock().unwrap().push(error.to_string())).ok()
    }

    /// Waits for `count` further calls.
    fn wait(&self, count: u64) -> Result<()> {
        let goal = self.calls.load(Ordering::Relaxed) + count;
        let begun = Instant::now();
        while self.calls.load(Ordering::Relaxed) < goal {
            ensure!(begun.elapsed() < Duration::from_secs(60), "the readers hang");
            std::thread::yield_now();
        }
        Ok(())
    }
}

/// Reads one file after the other, past the page cache, and asks things that are never cached.
fn read_on(mountpoint: &Path, expected: &[Vec<u8>], number: u64, seen: &Seen) {
    let mut random = Random::new(seed() ^ number);
    while !seen.stop.load(Ordering::Relaxed) {
        let file = random.below(expected.len());
        let path = mountpoint.join(format!("file-{file}"));
        let Some(open) = seen.timed(|| File::open(&path)) else { continue };
        // Somebody else may be reading it: then some of it comes from the page cache.
        let _ = rustix::fs::fadvise(&open, 0, None, rustix::fs::Advice::DontNeed);
        let mut bytes = vec![0; expected[file].len()];
        if seen.timed(|| open.read_exact_at(&mut bytes, 0)).is_some() && bytes != expected[file] {
            seen.errors.lock().unwrap().push(format!("{} has wrong bytes", path.display()));
        }
        let size = seen.timed(|| open.metadata());
        if size.is_some_and(|size| size.len() != expected[file].len() as u64) {
            seen.errors.lock().unwrap().push(format!("{} has another size", path.display()));
        }
        seen.timed(|| rustix::fs::fstatvfs(&open).map_err(Into::into));
    }
}

fn die(world: &World, seen: &Seen, trial: u64, pause: u64) -> Result<()> {
    seen.slowest_us.store(0, Ordering::Relaxed);
    seen.wait(pause)?;
    let victim = if trial % KEEPER_EVERY == KEEPER_EVERY - 1 { world.keeper()? } else { world.server()? };
    kill(victim)?;
    // Everybody gets an answer of the next server.
    seen.wait(READERS)?;
    let errors = std::mem::take(&mut *seen.errors.lock().unwrap());
    ensure!(errors.is_empty(), "{} errors, the first: {}", errors.len(), errors[0]);
    let slowest = Duration::from_micros(seen.slowest_us.load(Ordering::Relaxed));
    ensure!(slowest <= STALL_MAX, "a call took {} ms", slowest.as_millis());
    Ok(())
}

#[test]
fn f14_no_reader_notices_that_the_server_or_its_keeper_is_killed() {
    require_root().unwrap();
    storage_sys::process::own_mount_namespace().unwrap();
    let world = World::new().unwrap();
    let expected: Vec<_> = (0..FILES).map(content).collect();
    let seen = Seen::default();
    let tally = Tally::new("lazy server");
    let mut random = Random::new(seed());
    std::thread::scope(|scope| {
        for number in 0..READERS {
            let (world, expected, seen) = (&world, &expected, &seen);
            scope.spawn(move || read_on(&world.mountpoint, expected, number, seen));
        }
        for trial in 0..trials(SHORT) {
            let pause = random.below(400) as u64;
            let outcome = die(&world, &seen, trial, pause);
            let failed = outcome.is_err();
            tally.count(true, || format!("death {trial} after {pause} calls"), outcome);
            // After one the next ones would say the same.
            if failed && tally.failures() > 3 {
                break;
            }
        }
        seen.stop.store(true, Ordering::Relaxed);
    });
    let status = world.client.status(Some("image")).unwrap();
    tally.note(&format!(
        "{READERS} readers, {} calls, slowest {} ms, {} servers",
        seen.calls.load(Ordering::Relaxed),
        seen.slowest_ever_us.load(Ordering::Relaxed) / 1000,
        status[0].servers,
    ));
    tally.close("fuse");
}
