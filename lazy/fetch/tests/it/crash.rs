//! kill -9 of a process that fills the cache, again and again, and a disk that is full. What is found afterwards is right.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use lazy_fetch::{Fetcher, RegistrySources};
use storage_model::Digest;

use crate::common::image::{Layout, Made, made};
use crate::common::source::{Script, Shared};
use crate::common::{config, fetcher, wait_until, whole};

const FILES: [(&str, usize); 5] =
    [("a", 10), ("b", 700_000), ("big", 6_000_000), ("c", 300_000), ("large", 9_000_000)];
/// Where the child finds the folder: it is this test program, started again.
const FOLDER: &str = "LAZY_FETCH_TEST_FOLDER";

fn image() -> Made {
    made(77, &FILES, 64 * 1024, Layout::Gzip)
}

fn open(folder: &Path) -> Fetcher {
    let sources = Arc::new(RegistrySources::new(vec![folder.join("blobs")]));
    Fetcher::open(&folder.join("cache"), config(), sources).unwrap()
}

/// Not a test of its own: fills the cache until it is killed.
#[test]
fn child_that_fills_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let fetcher = open(Path::new(&folder));
    let image = fetcher.image(image().spec("child", &[])).unwrap();
    image.fill();
    loop {
        std::thread::park();
    }
}

fn child(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_that_fills_until_it_is_killed"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Bytes of all files below.
fn size_of(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| if entry.path().is_dir() { size_of(&entry.path()) } else { allocated(&entry.path()) })
        .sum()
}

fn allocated(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).map_or(0, |found| found.blocks() * 512)
}

#[test]
fn crash_a_cache_whose_process_is_killed_at_any_moment_has_no_wrong_byte_and_keeps_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let made = image();
    let blobs = folder.path().join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(made.digest.hex()), &made.blob).unwrap();
    let cache = folder.path().join("cache");
    let mut present = 0;
    for round in 1..=12u64 {
        let mut process = child(folder.path());
        // Killed in the middle of the work, a little later each time.
        let goal = (round * 1_400_000).min(14_000_000);
        wait_until("the child has written", || size_of(&cache) >= goal);
        process.kill().unwrap();
        process.wait().unwrap();
        let fetcher = open(folder.path());
        let image = fetcher.image(made.spec("parent", &[])).unwrap();
        let now = image.status().bytes_present;
        assert!(now >= present, "round {round}: {now} of {present} bytes are left");
        present = now;
        if round % 4 == 0 {
            // What is there is read, and is right; what is not is not asked for here.
            for (path, bytes) in made.files.iter().filter(|(path, _)| image.is_local(made.node(path))) {
                assert_eq!(whole(&image, &made, path, 1 << 20), *bytes, "round {round}: {path}");
            }
        }
    }
    let fetcher = open(folder.path());
    let image = fetcher.image(made.spec("parent", &[])).unwrap();
    for (path, bytes) in &made.files {
        assert_eq!(whole(&image, &made, path, 1 << 20), *bytes, "{path}");
    }
    assert_eq!(Digest::of(&whole(&image, &made, "large", 1 << 20)), Digest::of(made.bytes("large")));
}

/// A small file system in memory, unmounted when dropped. Nothing if this user may not mount.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(bytes: u64) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=700"), "tmpfs"])
            .arg(directory.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(Self(directory))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(done.is_ok_and(|status| status.success()));
    }
}

#[test]
fn l11_a_full_disk_gives_up_other_images_first_and_then_serves_without_keeping() {
    let Some(disk) = Small::mount(12 << 20) else {
        eprintln!("not run: this user may not mount");
        return;
    };
    let script = Script::good();
    let (first, second) = (made(1, &[("x", 900_000), ("y", 5_000_000)], 64 * 1024, Layout::Gzip), image());
    script.add(first.digest, &first.blob);
    script.add(second.digest, &second.blob);
    let fetcher = fetcher(disk.0.path(), config(), &Arc::new(Shared(Arc::clone(&script))));
    let image = fetcher.image(first.spec("first", &[])).unwrap();
    for (path, bytes) in &first.files {
        assert_eq!(whole(&image, &first, path, 1 << 20), *bytes);
    }
    assert!(image.status().complete);
    drop(image);
    // It needs more than there is, even alone.
    let image = fetcher.image(second.spec("second", &[])).unwrap();
    for _ in 0..2 {
        for (path, bytes) in &second.files {
            assert_eq!(whole(&image, &second, path, 1 << 20), *bytes, "{path}");
        }
    }
    let status = image.status();
    assert!(status.bytes_present > 6_000_000 && !status.complete, "{status:?}");
    assert_eq!(status.failures, 0);
    assert!(fetcher.metrics().lines().any(|line| {
        line.strip_prefix("windlass_lazy_cache_evicted_bytes_total ").is_some_and(|value| value != "0")
    }));
}
