//! What is native's own: what a crash leaves at each step, layers that delete, shared blocks.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use snapshotters_contract::{ActiveKey, CommittedName, ErrorKind, SnapshotError, Snapshotter, WhiteoutForm};
use snapshotters_native::{NAME, Native};
use storage_content::{NewSnapshot, SnapshotTable, Store, Usage};
use storage_model::Labels;
use storage_sys::tree::{EntryPath, Start, Tree};

struct Bench {
    root: PathBuf,
    store: Store,
    snapshotter: Arc<dyn Snapshotter>,
    scratch: Option<tempfile::TempDir>,
}

impl Bench {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let bench = Self::over(scratch.path().join("root"));
        Self { scratch: Some(scratch), ..bench }
    }

    fn over(root: PathBuf) -> Self {
        let store = Store::open(&root).unwrap();
        let native = Native::new(&store).unwrap();
        let snapshotter = native.bind(store.space(&"default".parse().unwrap()));
        Self { root, store, snapshotter, scratch: None }
    }

    /// Closes everything and opens it again, as after a crash.
    fn reopen(self) -> Self {
        let Self { root, store, snapshotter, scratch } = self;
        drop((snapshotter, store));
        Self { scratch, ..Self::over(root) }
    }

    fn table(&self) -> SnapshotTable {
        self.store.space(&"default".parse().unwrap()).snapshots(NAME)
    }

    /// Directory of a snapshot of any kind.
    fn of(&self, key: &str) -> PathBuf {
        self.store.root().join("snapshots").join(self.table().get(key).unwrap().number.to_string())
    }

    fn names(&self, key: &str) -> Vec<String> {
        names(&self.of(key))
    }

    /// A committed snapshot that `write` filled as a layer is unpacked.
    fn layer(&self, name: &str, on: Option<&str>, write: impl FnOnce(&Path)) {
        let key = active(&format!("making {name}"));
        self.snapshotter.prepare(&key, None, &Labels::new()).unwrap();
        let target = self.snapshotter.layer_target(&key).unwrap();
        assert_eq!(target.whiteouts, WhiteoutForm::Overlay);
        write(&target.path);
        self.snapshotter.commit(&key, &committed(name), on.map(committed).as_ref(), &Labels::new()).unwrap();
    }

    /// The whole tree of a committed snapshot.
    fn tree(&self, name: &str) -> PathBuf {
        self.snapshotter.layers(&committed(name)).unwrap().remove(0)
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn active(key: &str) -> ActiveKey {
    key.parse().unwrap()
}

fn committed(name: &str) -> CommittedName {
    name.parse().unwrap()
}

/// Whether overlay's form of a deletion, a device, can be written here.
fn is_root() -> bool {
    let root = storage_sys::durable::effective_user() == 0;
    if !root {
        eprintln!("skipped: this needs root");
    }
    root
}

fn whiteout(root: &Path, name: &str) {
    let mut tree = Tree::open(root, Start::Upper).unwrap();
    tree.whiteout(&EntryPath::parse(name.as_bytes()).unwrap()).unwrap();
    tree.finish().unwrap();
}

#[test]
fn a_crash_between_the_steps_of_prepare_leaves_a_snapshot_that_works() {
    let bench = Bench::new();
    bench.layer("base", None, |root| fs::write(root.join("file"), "x").unwrap());
    for (key, parent) in [("nothing", Some("base")), ("half", Some("base")), ("lone", None)] {
        bench.table().insert(NewSnapshot::Active, key, parent, Labels::new()).unwrap();
    }
    // Cut short while the parent was copied.
    fs::create_dir_all(bench.of("half").join("fs.new/part of a copy")).unwrap();
    let bench = bench.reopen();
    for key in ["nothing", "half"] {
        bench.snapshotter.mounts(&active(key)).unwrap();
        assert_eq!(bench.names(key), ["fs"]);
        assert_eq!(names(&bench.of(key).join("fs")), ["file"]);
    }
    bench.snapshotter.commit(&active("lone"), &committed("empty"), None, &Labels::new()).unwrap();
    assert!(names(&bench.tree("empty")).is_empty());
}

#[test]
fn a_crash_in_the_middle_of_a_commit_leaves_what_was_unpacked() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    bench.layer("base", None, |root| {
        fs::write(root.join("gone"), "").unwrap();
        fs::write(root.join("kept"), "").unwrap();
    });
    let key = active("layer");
    bench.snapshotter.prepare(&key, None, &Labels::new()).unwrap();
    whiteout(&bench.snapshotter.layer_target(&key).unwrap().path, "gone");
    // The tree was made, on a parent or half of it, and the record was not written.
    for left in ["fs", "fs.new"] {
        fs::create_dir_all(bench.of("layer").join(left)).unwrap();
        fs::write(bench.of("layer").join(left).join("of another parent"), "").unwrap();
    }
    let bench = bench.reopen();
    bench.snapshotter.commit(&key, &committed("top"), Some(&committed("base")), &Labels::new()).unwrap();
    assert_eq!(names(&bench.tree("top")), ["kept"]);
    assert_eq!(bench.names("top"), ["fs"]);
}

#[test]
fn a_crash_after_a_commit_leaves_nothing_after_opening_again() {
    let bench = Bench::new();
    bench.layer("base", None, |root| fs::write(root.join("file"), "x").unwrap());
    bench.layer("top", Some("base"), |root| fs::write(root.join("more"), "x").unwrap());
    // The record was written, what the tree was made of is still there.
    let diff = bench.of("top").join("diff");
    fs::create_dir(&diff).unwrap();
    fs::hard_link(bench.of("top").join("fs/more"), diff.join("more")).unwrap();
    let bench = bench.reopen();
    assert_eq!(bench.names("top"), ["fs"]);
    assert_eq!(bench.names("base"), ["diff"], "a tree that stands on nothing is not made twice");
    assert_eq!(names(&bench.tree("top")), ["file", "more"]);
    bench.store.empty_trash();
    assert_eq!(bench.of("top").join("fs/more").metadata().unwrap().nlink(), 1);
}

#[test]
fn a_lowest_layer_that_deletes_shows_no_deletions() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    bench.layer("base", None, |root| {
        fs::create_dir(root.join("dir")).unwrap();
        fs::write(root.join("dir/file"), "x").unwrap();
        whiteout(root, "nothing");
        whiteout(root, "dir/nothing");
    });
    let tree = bench.tree("base");
    assert_eq!((names(&tree), names(&tree.join("dir"))), (vec!["dir".into()], vec!["file".into()]));
    assert_eq!(bench.names("base"), ["fs"]);
    assert_eq!(bench.snapshotter.usage("base").unwrap().inodes, 3);
}

#[test]
fn a_count_by_the_caller_is_for_its_layer_and_a_copy_is_counted_anew() {
    let bench = Bench::new();
    bench.layer("base", None, |root| fs::write(root.join("file"), "x").unwrap());
    let key = active("layer");
    bench.snapshotter.prepare(&key, None, &Labels::new()).unwrap();
    let counted = Some(Usage { bytes: 1, inodes: 1 });
    let on = Some(committed("base"));
    bench
        .snapshotter
        .commit_with_usage(&key, &committed("top"), on.as_ref(), &Labels::new(), counted)
        .unwrap();
    assert_eq!(bench.snapshotter.usage("top").unwrap().inodes, 2);
}

#[test]
fn a_committed_snapshot_whose_files_are_gone_is_told_as_damage() {
    let bench = Bench::new();
    bench.layer("lost", None, |_| {});
    fs::remove_dir_all(bench.tree("lost")).unwrap();
    let lost = Some(committed("lost"));
    for refused in [
        bench.snapshotter.prepare(&active("a"), lost.as_ref(), &Labels::new()).unwrap_err(),
        bench.snapshotter.view(&active("a"), lost.as_ref(), &Labels::new()).unwrap_err(),
    ] {
        assert!(matches!(&refused, SnapshotError::Missing { key, .. } if key == "lost"), "{refused}");
        let gone = bench.snapshotter.stat("a").unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound, "a refused prepare keeps no key");
    }
}

/// A file system in a file, on a loop device.
struct Disk {
    scratch: tempfile::TempDir,
}

impl Disk {
    /// `None` where this user may not mount, or the kernel has no XFS.
    fn xfs() -> Option<Self> {
        let scratch = tempfile::tempdir().unwrap();
        let (image, mounted) = (scratch.path().join("image"), scratch.path().join("mounted"));
        fs::create_dir(&mounted).unwrap();
        fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
        let made = Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&image).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfs.xfs is in the package xfsprogs");
        let mut mount = Command::new("mount");
        mount.args(["-t", "xfs", "-o", "loop"]).arg(&image).arg(&mounted);
        if mount.status().is_ok_and(|status| status.success()) {
            return Some(Self { scratch });
        }
        eprintln!("skipped: XFS cannot be mounted here");
        None
    }

    fn path(&self) -> PathBuf {
        self.scratch.path().join("mounted")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(self.path()).status();
        assert!(done.is_ok_and(|status| status.success()));
    }
}

#[test]
fn where_the_file_system_shares_blocks_copies_take_none() {
    const MIB: u64 = 1 << 20;
    let Some(disk) = Disk::xfs() else { return };
    let bench = Bench::over(disk.path().join("root"));
    bench.layer("base", None, |root| fs::write(root.join("big"), vec![7; 32 * MIB as usize]).unwrap());
    bench.store.sync().unwrap();
    let before = storage_sys::durable::free_bytes(&disk.path()).unwrap();
    for n in 0..20 {
        bench.snapshotter.prepare(&active(&n.to_string()), Some(&committed("base")), &Labels::new()).unwrap();
    }
    let copy = bench.of("7").join("fs/big");
    assert_eq!(copy.metadata().unwrap().len(), 32 * MIB);
    fs::write(&copy, "changed").unwrap();
    assert_eq!(fs::read(bench.of("8").join("fs/big")).unwrap(), vec![7; 32 * MIB as usize]);
    bench.store.sync().unwrap();
    let taken = before.saturating_sub(storage_sys::durable::free_bytes(&disk.path()).unwrap());
    assert!(taken < 32 * MIB, "twenty copies of 32 MiB took {taken} bytes");
}
