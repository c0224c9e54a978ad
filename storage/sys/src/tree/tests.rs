//! Rows U11 and U12 of the catalogue: somebody else moves things while we write or remove. As root.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, RenameFlags};

use super::*;

fn path(text: &str) -> EntryPath {
    EntryPath::parse(text.as_bytes()).unwrap()
}

fn plain() -> Attributes<'static> {
    let time = Timestamp { seconds: 1_000_000_000, nanoseconds: 5 };
    Attributes { mode: 0o644, uid: 0, gid: 0, mtime: time, atime: time, xattrs: &[] }
}

fn write(tree: &mut Tree, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = tree.file(&path(name), 0o644)?;
    file.write(bytes)?;
    tree.close(file, &plain())
}

/// How long races are run: 2 s, or `WINDLASS_RACE_SECONDS` (60 for the full form of rows U11 and U12).
fn race_time() -> Duration {
    let asked = std::env::var("WINDLASS_RACE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(asked.unwrap_or(2))
}

fn open(directory: &Path) -> OwnedFd {
    rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

/// Exchanges two names as fast as it can until told to stop.
fn exchange(directory: OwnedFd, one: &str, other: &str, stop: &AtomicBool) {
    let fd = &directory;
    while !stop.load(Ordering::Relaxed) {
        let _ = rustix::fs::renameat_with(fd, one, fd, other, RenameFlags::EXCHANGE);
    }
}

#[test]
fn vuln_u11_a_directory_swapped_for_a_link_while_we_write_leads_nowhere_else() {
    let yard = tempfile::tempdir().unwrap();
    let (root, outside) = (yard.path().join("root"), yard.path().join("outside"));
    fs::create_dir_all(root.join("d/sub")).unwrap();
    fs::create_dir_all(outside.join("sub")).unwrap();
    symlink(&outside, root.join("s")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let directory = open(&root);
        let stop = &stop;
        scope.spawn(move || exchange(directory, "d", "s", stop));
        let end = Instant::now() + race_time();
        let mut made = 0;
        while Instant::now() < end {
            // A tree each time: no cache hides the race.
            let mut tree = Tree::open(&root, Start::Whole).unwrap();
            made += u64::from(write(&mut tree, "d/x", b"evil").is_ok());
            let _ = tree.directory(&path("d/sub/new"), &plain());
            let _ = tree.symlink(&path("d/sub/l"), b"x", &plain());
            let _ = tree.remove(&path("d/sub/new"));
            let _ = tree.finish();
        }
        stop.store(true, Ordering::Relaxed);
        assert!(made > 100, "{made}");
    });
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read_dir(outside.join("sub")).unwrap().count(), 0);
}

/// A chain of `depth` directories below `top`, made through descriptors, with a file in each.
fn chain(top: &Path, depth: usize) {
    fs::create_dir(top).unwrap();
    let mut here = open(top);
    for level in 0..depth {
        rustix::fs::mkdirat(&here, "d", Mode::from_raw_mode(0o755)).unwrap();
        if level % 100 == 0 {
            rustix::fs::openat(&here, "f", OFlags::CREATE | OFlags::WRONLY, Mode::empty()).unwrap();
        }
        here = rustix::fs::openat(&here, "d", OFlags::PATH, Mode::empty()).unwrap();
    }
}

#[test]
fn vuln_u12_a_tree_of_100_000_levels_is_removed_without_recursion() {
    // In memory if there is such a place: 10^5 renames through a disk's journal wait for every sync on the machine.
    let yard = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let top = yard.path().join("top");
    chain(&top, 100_000);
    let removed = remove_all(&top).unwrap();
    assert_eq!((removed.inodes, removed.directory), (101_001, true));
    assert!(!top.exists());
}

#[test]
fn vuln_u12_a_directory_swapped_for_a_link_while_we_remove_is_not_followed() {
    let yard = tempfile::tempdir().unwrap();
    let outside = yard.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "x").unwrap();
    let end = Instant::now() + race_time();
    while Instant::now() < end {
        let top = yard.path().join("top");
        fs::create_dir_all(top.join("a/b/c")).unwrap();
        symlink(&outside, top.join("s")).unwrap();
        symlink(&outside, top.join("a/s")).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let directory = open(&top);
            let stop = &stop;
            scope.spawn(move || exchange(directory, "a", "s", stop));
            while remove_all(&top).is_err() {}
            stop.store(true, Ordering::Relaxed);
        });
        assert!(outside.join("precious").exists());
    }
}

#[test]
fn a_file_is_made_anew_and_a_directory_merges() {
    let root = tempfile::tempdir().unwrap();
    let mut tree = Tree::open(root.path(), Start::Upper).unwrap();
    write(&mut tree, "d/f", b"one").unwrap();
    fs::hard_link(root.path().join("d/f"), root.path().join("other")).unwrap();
    write(&mut tree, "d/f", b"two").unwrap();
    tree.directory(&path("d"), &Attributes { mode: 0o1711, ..plain() }).unwrap();
    let finished = tree.finish().unwrap();
    assert_eq!(fs::read(root.path().join("d/f")).unwrap(), b"two");
    assert_eq!(fs::read(root.path().join("other")).unwrap(), b"one");
    use std::os::unix::fs::MetadataExt as _;
    let stat = fs::metadata(root.path().join("d")).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.mtime(), stat.mtime_nsec()), (0o1711, 1_000_000_000, 5));
    assert_eq!(finished.implied, []);
}

#[test]
fn the_group_of_a_set_group_id_directory_does_not_leak_into_entries() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let root = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(root.path(), None, Some(77)).unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o2777)).unwrap();
    let mut tree = Tree::open(root.path(), Start::Upper).unwrap();
    write(&mut tree, "f", b"").unwrap();
    tree.symlink(&path("l"), b"f", &plain()).unwrap();
    tree.directory(&path("d"), &Attributes { mode: 0o755, ..plain() }).unwrap();
    tree.finish().unwrap();
    for name in ["f", "l", "d"] {
        let stat = fs::symlink_metadata(root.path().join(name)).unwrap();
        assert_eq!((stat.gid(), stat.mode() & 0o2000), (0, 0), "{name}");
    }
}

#[test]
fn links_that_lead_in_circles_are_an_error_and_not_a_loop() {
    let root = tempfile::tempdir().unwrap();
    let mut tree = Tree::open(root.path(), Start::Upper).unwrap();
    tree.symlink(&path("a"), b"b", &plain()).unwrap();
    tree.symlink(&path("b"), b"a", &plain()).unwrap();
    let error = write(&mut tree, "a/x", b"").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::LOOP.raw_os_error()));
}

#[test]
fn magic_links_are_not_followed() {
    let root = tempfile::tempdir().unwrap();
    symlink(format!("/proc/{}/root", std::process::id()), root.path().join("out")).unwrap();
    let mut tree = Tree::open(root.path(), Start::Upper).unwrap();
    // Inside this root there is no /proc: the way is made, not followed.
    write(&mut tree, "out/x", b"").unwrap();
    assert!(root.path().join(format!("proc/{}/root/x", std::process::id())).exists());
    assert!(!Path::new("/x").exists());
}
