//! Keeper, server and client as they are: processes of their own, real mounts, signal 9. The bytes come from a whole blob in
//! the root, so no registry is needed; each is a function of its file and place and is checked.
//!
//! Each test has a mount namespace, a root and a state directory of its own, and kills what it has started.
// Every function here is part of a test; clippy knows only those with the attribute.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lazy_index::{Chunk, Coding, Entry, Group, ImageIndex, Kind, LayerPart, Limits, Time, Toc};
use lazy_mount::{Client, ClientError, FailureKind, MountRequest, Places};
use storage_model::Digest;
use storage_sys::mount::{Mount, detach, mount_all};
use storage_sys::process::{Pidfd, Watch, poll};

/// Files of the image and their sizes in bytes.
const FILES: u64 = 200;

fn size_of(file: u64) -> u64 {
    (file * 7919) % 300_000 + 1
}

fn byte(file: u64, offset: u64) -> u8 {
    (file.wrapping_mul(151) ^ offset ^ (offset >> 8)) as u8
}

fn content(file: u64) -> Vec<u8> {
    (0..size_of(file)).map(|offset| byte(file, offset)).collect()
}

struct World {
    _directory: tempfile::TempDir,
    places: Places,
    client: Client,
    request: MountRequest,
}

/// A root with one image of one layer, whose blob is here.
fn world() -> Option<World> {
    if storage_sys::process::effective_uid() != 0 || !Path::new("/dev/fuse").exists() {
        eprintln!("skipped: needs root and /dev/fuse");
        return None;
    }
    storage_sys::process::own_mount_namespace().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let program = program.parent().unwrap().parent().unwrap().join("examples/lazy_processes");
    let places =
        Places { root: directory.path().join("root"), state: directory.path().join("state"), program };
    fs::create_dir_all(&places.state).unwrap();
    let mut toc = Toc::default();
    let mut blob = Vec::new();
    for file in 0..FILES {
        add(&mut toc, &mut blob, file);
    }
    let digest = Digest::of(&blob);
    for path in [places.blobs().join("sha256").join(digest.hex()), places.index("image"), places.toc(&digest)]
    {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
    }
    fs::write(places.blobs().join("sha256").join(digest.hex()), &blob).unwrap();
    let layer = LayerPart { blob: digest, blob_bytes: blob.len() as u64, toc: &toc };
    fs::write(places.index("image"), ImageIndex::build(&[layer], &Limits::default()).unwrap()).unwrap();
    fs::write(places.toc(&digest), toc.encode()).unwrap();
    let request = MountRequest {
        name: "image".into(),
        index: places.index("image"),
        tocs: vec![places.toc(&digest)],
        mountpoint: places.mountpoint("image"),
        origins: Vec::new(),
        login: None,
        trace: None,
        fill: false,
    };
    let client = Client::connect_or_start(&places).unwrap();
    Some(World { _directory: directory, places, client, request })
}

fn add(toc: &mut Toc, blob: &mut Vec<u8>, file: u64) {
    let bytes = content(file);
    let number = toc.chunks.len() as u32;
    let (offset, length) = (blob.len() as u64, bytes.len() as u64);
    let digest = Some(Digest::of(&bytes));
    toc.chunks.push(Chunk { file_offset: 0, length, digest, group: number, inner_offset: 0 });
    toc.groups.push(Group {
        offset,
        length,
        output_length: Some(length),
        coding: Coding::Plain,
        digest: None,
    });
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

impl World {
    fn path(&self, file: u64) -> PathBuf {
        self.request.mountpoint.join(format!("file-{file}"))
    }

    fn server(&self) -> u32 {
        self.client.status(Some("image")).unwrap()[0].server
    }

    /// The process that has the keeper's lock.
    fn keeper(&self) -> u32 {
        let server = self.server();
        let processes =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let state = self.places.state.to_str().unwrap().to_owned();
        let mut found = processes.filter_map(|name| name.parse::<u32>().ok()).filter(|pid| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<_> = words.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
            *pid != server
                && words.iter().any(|word| *word == state)
                && words.iter().any(|word| word == "lazy-keeper")
                && !fs::read(format!("/proc/{pid}/statm")).unwrap_or_default().starts_with(b"0 ")
        });
        found.next().unwrap()
    }

    fn check_all(&self) {
        for file in 0..FILES {
            assert!(fs::read(self.path(file)).unwrap() == content(file), "file {file}");
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.client.unmount("image");
    }
}

/// Kills a process and returns when it is dead.
fn kill(pid: u32) {
    let handle = Pidfd::open(pid).unwrap();
    handle.signal(9).unwrap();
    let mut watches = [Watch::readable(handle.as_fd())];
    while poll(&mut watches, Some(Duration::from_secs(10))).unwrap() == 0 {}
}

/// Readers that check every byte until they are stopped.
struct Readers {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    worst_us: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

fn readers(world: &World, count: u64) -> Readers {
    let stop = Arc::new(AtomicBool::new(false));
    let (rounds, worst_us) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let threads = (0..count).map(|number| {
        let (stop, rounds, worst_us) = (stop.clone(), rounds.clone(), worst_us.clone());
        let mountpoint = world.request.mountpoint.clone();
        std::thread::spawn(move || {
            let mut file = number * 37;
            while !stop.load(Ordering::Relaxed) {
                file = (file * 5 + 1) % FILES;
                let start = Instant::now();
                read_uncached(&mountpoint.join(format!("file-{file}")), file);
                worst_us.fetch_max(start.elapsed().as_micros() as u64, Ordering::Relaxed);
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let threads = threads.collect();
    Readers { stop, rounds, worst_us, threads }
}

/// Reads a file whose pages are put out of the cache first, and checks it.
fn read_uncached(path: &Path, number: u64) {
    let file = File::open(path).unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let mut bytes = vec![0; size_of(number) as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == content(number), "{} has wrong bytes", path.display());
}

impl Readers {
    /// Waits until `count` more files were read.
    fn wait(&self, count: u64) {
        let goal = self.rounds.load(Ordering::Relaxed) + count;
        while self.rounds.load(Ordering::Relaxed) < goal {
            assert!(self.threads.iter().any(|thread| !thread.is_finished()), "all readers have failed");
            std::thread::yield_now();
        }
    }

    /// Stops them; how long the slowest read took, in microseconds.
    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.worst_us.load(Ordering::Relaxed)
    }
}

#[test]
fn an_image_is_mounted_read_and_taken_away_and_both_processes_end() {
    let Some(world) = world() else { return };
    world.client.mount(&world.request).unwrap();
    world.check_all();
    let status = world.client.status(None).unwrap();
    assert_eq!((status.len(), status[0].servers), (1, 1));
    assert!(status[0].requests > FILES && status[0].image.bytes_total > 0);
    assert!(world.client.metrics().unwrap().contains("windlass_lazy_reads_total{mount=\"image\"}"));
    world.client.mount(&world.request).unwrap();
    let other = MountRequest { index: world.places.index("other"), ..world.request.clone() };
    match world.client.mount(&other) {
        Err(ClientError::Refused(failure)) => assert_eq!(failure.kind, FailureKind::Conflict),
        other => panic!("{other:?}"),
    }
    let (server, keeper) = (world.server(), world.keeper());
    let ends = [server, keeper].map(|pid| Pidfd::open(pid).unwrap());
    world.client.unmount("image").unwrap();
    assert!(!world.path(0).exists());
    for end in &ends {
        let mut watches = [Watch::readable(end.as_fd())];
        assert_eq!(poll(&mut watches, Some(Duration::from_secs(30))).unwrap(), 1, "a process stays");
    }
    assert!(!world.places.control().exists());
    assert!(matches!(world.client.status(None), Err(ClientError::NotRunning { .. })));
    world.client.mount(&world.request).unwrap();
    world.check_all();
}

#[test]
fn l8_no_read_fails_when_the_server_is_killed_again_and_again() {
    let Some(world) = world() else { return };
    world.client.mount(&world.request).unwrap();
    let readers = readers(&world, 16);
    for round in 0..20 {
        readers.wait(50);
        kill(world.server());
        assert_eq!(world.client.status(Some("image")).unwrap()[0].servers, round + 2);
    }
    readers.wait(50);
    println!("slowest read: {} us", readers.finish());
    world.check_all();
}

#[test]
fn l8_a_keeper_that_is_killed_is_replaced_and_the_next_server_has_everything() {
    let Some(world) = world() else { return };
    world.client.mount(&world.request).unwrap();
    let readers = readers(&world, 8);
    for _ in 0..5 {
        let before = world.keeper();
        kill(before);
        readers.wait(20);
        // The server tells the next keeper before it answers anything that has to be kept.
        world.client.fill("image", false).unwrap();
        assert_ne!(world.keeper(), before);
        kill(world.server());
        readers.wait(20);
    }
    readers.finish();
    world.check_all();
}

#[test]
fn l13_what_is_here_is_served_after_everything_died_and_no_source_is_left() {
    let Some(world) = world() else { return };
    world.client.mount(&world.request).unwrap();
    world.check_all();
    let (server, keeper) = (world.server(), world.keeper());
    kill(keeper);
    // The server may have replaced it in the meantime: then its successor has to go as well.
    kill(server);
    while let Ok(status) = Client::connect(&world.places).and_then(|client| client.status(None)) {
        let Some(mount) = status.first() else { break };
        let _ = Pidfd::open(mount.server).and_then(|server| server.signal(9));
        let keeper = Pidfd::open(world.keeper());
        let _ = keeper.and_then(|keeper| keeper.signal(9));
    }
    fs::remove_dir_all(world.places.blobs()).unwrap();
    world.client.mount(&world.request).unwrap();
    world.check_all();
}

#[test]
fn an_image_that_cannot_be_opened_any_more_fails_and_does_not_hang() {
    let Some(world) = world() else { return };
    world.client.mount(&world.request).unwrap();
    let file = File::open(world.path(1)).unwrap();
    fs::remove_file(world.places.index("image")).unwrap();
    kill(world.server());
    let mut part = [0; 1];
    assert_eq!(file.read_exact_at(&mut part, 0).unwrap_err().raw_os_error(), Some(5));
}

#[test]
fn l10_the_server_cannot_reach_its_own_mounts() {
    let Some(world) = world() else { return };
    world.client.mount(&world.request).unwrap();
    for pid in [world.server(), world.keeper()] {
        let seen = PathBuf::from(format!("/proc/{pid}/root{}", world.places.mounts().display()));
        assert_eq!(fs::read_dir(&seen).unwrap().count(), 0, "{} shows mounts", seen.display());
    }
    kill(world.server());
    let seen = PathBuf::from(format!("/proc/{}/root{}", world.server(), world.places.mounts().display()));
    assert_eq!(fs::read_dir(&seen).unwrap().count(), 0, "the successor can");
    world.check_all();
}

#[test]
fn an_overlay_on_top_is_written_to_and_outlives_the_mount_and_the_server() {
    let Some(world) = world() else { return };
    world.client.mount(&world.request).unwrap();
    let part = |name: &str| {
        let path = world.places.state.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    };
    let (upper, work, merged) = (part("upper"), part("work"), part("merged"));
    let options = [("lowerdir", &world.request.mountpoint), ("upperdir", &upper), ("workdir", &work)];
    let options = options.map(|(key, path)| format!("{key}={}", path.display())).to_vec();
    let overlay = Mount { kind: "overlay".into(), source: "overlay".into(), options };
    mount_all(&[overlay], &merged).unwrap();
    fs::write(merged.join("new"), b"new").unwrap();
    let mut changed = content(3);
    changed.push(7);
    File::options().append(true).open(merged.join("file-3")).unwrap().write_all(&[7]).unwrap();
    fs::remove_file(merged.join("file-4")).unwrap();
    let before = fs::metadata(merged.join("file-5")).unwrap().ino();
    fs::set_permissions(merged.join("file-5"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(fs::metadata(merged.join("file-5")).unwrap().ino(), before, "copied up, it is the same file");
    let server = world.server();
    world.client.unmount("image").unwrap();
    kill(server);
    for file in (0..FILES).filter(|file| ![3, 4].contains(file)) {
        assert!(fs::read(merged.join(format!("file-{file}"))).unwrap() == content(file), "file {file}");
    }
    assert!(fs::read(merged.join("file-3")).unwrap() == changed);
    assert!(!merged.join("file-4").exists());
    detach(&merged).unwrap();
}
