//! What is overlay's own: what a crash leaves, what hostile layers cannot do, many layers, deep trees.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use snapshotters_contract::{ActiveKey, CommittedName, ErrorKind, Mount, SnapshotError, Snapshotter, Usage};
use snapshotters_overlay::{NAME, Overlay};
use storage_content::{NewSnapshot, Space, Store};
use storage_model::Labels;
use storage_sys::mount::{self, Attributes, Depth, MountError};

struct Bench {
    scratch: tempfile::TempDir,
    store: Store,
    overlay: Overlay,
    snapshotter: Arc<dyn Snapshotter>,
}

impl Bench {
    fn new() -> Self {
        Self::over(tempfile::tempdir().unwrap())
    }

    fn over(scratch: tempfile::TempDir) -> Self {
        let store = Store::open(&scratch.path().join("root")).unwrap();
        let overlay = Overlay::new(&store).unwrap();
        let snapshotter = overlay.bind(space(&store));
        Self { scratch, store, overlay, snapshotter }
    }

    /// Closes everything and opens it again, as after a crash.
    fn reopen(self) -> Self {
        let Self { scratch, store, overlay, snapshotter } = self;
        drop((snapshotter, overlay, store));
        Self::over(scratch)
    }

    fn folder(&self) -> PathBuf {
        self.store.root().join("snapshots")
    }

    fn numbers(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn number(&self, key: &str) -> u64 {
        space(&self.store).snapshots(NAME).get(key).unwrap().number
    }

    fn files(&self, key: &str) -> PathBuf {
        self.folder().join(self.number(key).to_string()).join("fs")
    }

    /// A committed snapshot whose directory `write` fills as it lies on the disk.
    fn layer(&self, name: &str, parent: Option<&str>, write: impl FnOnce(&Path)) {
        let key = active(&format!("making {name}"));
        self.snapshotter.prepare(&key, parent.map(committed).as_ref(), &Labels::new()).unwrap();
        write(&self.snapshotter.layer_target(&key).unwrap().path);
        let counted = Some(Usage::default());
        self.snapshotter.commit_with_usage(&key, &committed(name), None, &Labels::new(), counted).unwrap();
    }

    /// Mounts and looks; `None` where mounting is not permitted.
    fn mounted<T>(&self, mounts: &[Mount], look: impl FnOnce(&Path) -> T) -> Option<T> {
        struct Guard(PathBuf);
        impl Drop for Guard {
            fn drop(&mut self) {
                let _ = mount::detach(&self.0);
            }
        }
        match mount::bind(self.scratch.path(), Depth::One, Attributes::default()) {
            Ok(_) => {}
            Err(MountError::NotPermitted { .. }) => {
                eprintln!("skipped: mounting is not permitted here (run as root)");
                return None;
            }
            Err(error) => panic!("{error}"),
        }
        let target = self.scratch.path().canonicalize().unwrap().join("mount");
        fs::create_dir_all(&target).unwrap();
        let mounts: Vec<_> = mounts.iter().map(mount::Mount::from).collect();
        mount::mount_all(&mounts, &target).unwrap();
        let guard = Guard(target);
        Some(look(&guard.0))
    }

    fn look<T>(&self, name: &str, look: impl FnOnce(&Path) -> T) -> Option<T> {
        let view = active(&format!("looking at {name}"));
        let mounts = self.snapshotter.view(&view, Some(&committed(name)), &Labels::new()).unwrap();
        let seen = self.mounted(&mounts, look);
        self.snapshotter.remove(view.as_str()).unwrap();
        seen
    }
}

fn space(store: &Store) -> Space {
    store.space(&"default".parse().unwrap())
}

fn active(key: &str) -> ActiveKey {
    key.parse().unwrap()
}

fn committed(name: &str) -> CommittedName {
    name.parse().unwrap()
}

/// Whether foreign owners and `trusted.*` attributes can be made up here.
fn is_root() -> bool {
    let root = storage_sys::durable::effective_user() == 0;
    if !root {
        eprintln!("skipped: this needs root");
    }
    root
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    use storage_sys::tree::{Attributes, EntryPath, Start, Timestamp, Tree};
    let facts = path.symlink_metadata().unwrap();
    let (directory, leaf) = (path.parent().unwrap(), path.file_name().unwrap());
    let entry = EntryPath::parse(leaf.as_encoded_bytes()).unwrap();
    let then = Timestamp { seconds: 0, nanoseconds: 0 };
    let xattrs = [(name.as_bytes().to_vec(), value.to_vec())];
    let attributes =
        Attributes { mode: facts.mode(), uid: 0, gid: 0, mtime: then, atime: then, xattrs: &xattrs };
    let mut tree = Tree::open(directory, Start::Whole).unwrap();
    if facts.is_dir() {
        tree.directory(&entry, &attributes).unwrap();
    } else {
        let open = tree.file(&entry, facts.mode()).unwrap();
        tree.close(open, &attributes).unwrap();
    }
    tree.finish().unwrap();
}

#[test]
fn a_directory_without_a_record_is_discarded_when_opening() {
    let bench = Bench::new();
    bench.layer("kept", None, |root| fs::write(root.join("file"), "x").unwrap());
    let (kept, folder) = (bench.number("kept").to_string(), bench.folder());
    fs::create_dir_all(folder.join("900/fs/deep/er")).unwrap();
    fs::create_dir_all(folder.join("901")).unwrap();
    fs::create_dir_all(folder.join("007")).unwrap();
    fs::create_dir_all(folder.join("not-a-number")).unwrap();
    let bench = bench.reopen();
    let mut expected = vec!["007".to_owned(), kept, "not-a-number".to_owned()];
    expected.sort();
    assert_eq!(bench.numbers(), expected, "only what our own names could be is judged");
    assert_eq!(fs::read_to_string(bench.files("kept").join("file")).unwrap(), "x");
}

#[test]
fn a_crash_between_the_steps_of_remove_leaves_nothing_after_cleanup() {
    let bench = Bench::new();
    bench.layer("gone", None, |root| fs::write(root.join("file"), "x").unwrap());
    // The record went, the directory did not.
    space(&bench.store).snapshots(NAME).remove("gone").unwrap();
    assert_eq!(bench.numbers().len(), 1);
    bench.snapshotter.cleanup().unwrap();
    assert!(bench.numbers().is_empty());
    assert!(bench.overlay.cleanup().is_ok());
}

#[test]
fn a_crash_between_the_steps_of_prepare_leaves_a_snapshot_that_works() {
    let bench = Bench::new();
    bench.layer("base", None, |root| {
        fs::set_permissions(root, fs::Permissions::from_mode(0o711)).unwrap();
        fs::write(root.join("file"), "x").unwrap();
    });
    let table = space(&bench.store).snapshots(NAME);
    for (kind, key, parent) in [
        (NewSnapshot::Active, "a", Some("base")),
        (NewSnapshot::Active, "lone", None),
        (NewSnapshot::Active, "half", Some("base")),
        (NewSnapshot::View, "v", None),
    ] {
        table.insert(kind, key, parent, Labels::new()).unwrap();
    }
    drop(table);
    let half = bench.folder().join(bench.number("half").to_string());
    fs::create_dir_all(half.join("fs.new")).unwrap();
    let bench = bench.reopen();
    for key in ["a", "half", "lone", "v"] {
        let mounts = bench.snapshotter.mounts(&active(key)).unwrap();
        bench.mounted(&mounts, |root| {
            let based = key == "a" || key == "half";
            assert_eq!(root.join("file").exists(), based);
            assert_eq!(root.metadata().unwrap().mode() & 0o7777, if based { 0o711 } else { 0o755 });
        });
    }
    bench.snapshotter.commit(&active("a"), &committed("c"), None, &Labels::new()).unwrap();
    table_insert_and_commit_without_mounting(&bench);
    for key in ["half", "lone", "v"] {
        bench.snapshotter.remove(key).unwrap();
    }
}

/// The commit itself makes what the cut-short prepare did not.
fn table_insert_and_commit_without_mounting(bench: &Bench) {
    let table = space(&bench.store).snapshots(NAME);
    table.insert(NewSnapshot::Active, "never mounted", None, Labels::new()).unwrap();
    bench.snapshotter.commit(&active("never mounted"), &committed("empty"), None, &Labels::new()).unwrap();
    assert_eq!(bench.snapshotter.usage("empty").unwrap().inodes, 1);
    bench.look("empty", |root| assert_eq!(fs::read_dir(root).unwrap().count(), 0));
}

#[test]
fn a_number_is_never_used_twice_even_after_a_crash() {
    let mut bench = Bench::new();
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..5 {
        for n in 0..3 {
            let key = format!("{round} {n}");
            bench.snapshotter.prepare(&active(&key), None, &Labels::new()).unwrap();
            assert!(seen.insert(bench.number(&key)));
            bench.snapshotter.remove(&key).unwrap();
        }
        bench = bench.reopen();
    }
}

#[test]
fn a_committed_snapshot_whose_files_are_gone_is_told_as_damage() {
    let bench = Bench::new();
    bench.layer("lost", None, |_| {});
    fs::remove_dir_all(bench.files("lost")).unwrap();
    let refused =
        bench.snapshotter.prepare(&active("a"), Some(&committed("lost")), &Labels::new()).unwrap_err();
    assert!(matches!(&refused, SnapshotError::Missing { key, .. } if key == "lost"), "{refused}");
    assert_eq!(refused.kind(), ErrorKind::DataLoss);
    let gone = bench.snapshotter.stat("a").unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound, "a refused prepare keeps no key");
}

#[test]
fn three_hundred_layers_are_mounted() {
    let bench = Bench::new();
    let mut parent: Option<String> = None;
    for n in 0..300 {
        let name = format!("layer {n}");
        bench.layer(&name, parent.as_deref(), |root| {
            fs::write(root.join(n.to_string()), "").unwrap();
            fs::write(root.join("top"), n.to_string()).unwrap();
        });
        parent = Some(name);
    }
    let top = parent.unwrap();
    bench.look(&top, |root| {
        assert_eq!(fs::read_dir(root).unwrap().count(), 301);
        assert_eq!(fs::read_to_string(root.join("top")).unwrap(), "299");
    });
    let mounts = bench.snapshotter.prepare(&active("a"), Some(&committed(&top)), &Labels::new()).unwrap();
    bench.mounted(&mounts, |root| fs::remove_file(root.join("0")).unwrap());
    bench.mounted(&mounts, |root| assert!(!root.join("0").exists() && root.join("1").exists()));
}

#[test]
fn more_layers_than_can_be_mounted_are_refused_and_nothing_is_left() {
    let bench = Bench::new();
    let table = space(&bench.store).snapshots(NAME);
    let mut parent: Option<String> = None;
    for n in 0..=storage_sys::mount::LAYERS_MAX {
        let name = format!("layer {n}");
        table.insert(NewSnapshot::Active, "making", parent.as_deref(), Labels::new()).unwrap();
        table.commit("making", &name, None, Usage::default(), Labels::new()).unwrap();
        parent = Some(name);
    }
    let parent = committed(&parent.unwrap());
    for refused in [
        bench.snapshotter.prepare(&active("a"), Some(&parent), &Labels::new()).unwrap_err(),
        bench.snapshotter.view(&active("a"), Some(&parent), &Labels::new()).unwrap_err(),
    ] {
        assert!(matches!(refused, SnapshotError::TooManyLayers { count: 501, max: 500, .. }), "{refused}");
        assert_eq!(bench.snapshotter.stat("a").unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[test]
fn a_tree_of_any_depth_is_counted_and_removed() {
    let bench = Bench::new();
    bench.snapshotter.prepare(&active("deep"), None, &Labels::new()).unwrap();
    let mut path = bench.snapshotter.layer_target(&active("deep")).unwrap().path;
    // Depth beyond PATH_MAX: the rest is moved below, piece by piece.
    let piece = ["d"; 500].join("/");
    let spare = bench.scratch.path().join("spare");
    for n in 0..6 {
        fs::create_dir_all(spare.join(&piece)).unwrap();
        if n > 0 {
            fs::rename(path.join("top"), spare.join(&piece).join("top")).unwrap();
        }
        fs::rename(&spare, path.join("top")).unwrap();
    }
    assert_eq!(bench.snapshotter.usage("deep").unwrap().inodes, 1 + 6 * 501);
    bench.snapshotter.remove("deep").unwrap();
    path.pop();
    assert!(!path.exists(), "out of sight at once");
    let trash = bench.store.root().join("trash");
    let begun = std::time::Instant::now();
    while fs::read_dir(&trash).unwrap().next().is_some() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "unlinked soon");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn vuln_u17_a_whiteout_in_a_layer_hides_in_the_overlay_what_it_hides_nowhere_else() {
    let bench = Bench::new();
    bench.layer("base", None, |root| fs::write(root.join("file"), "x").unwrap());
    bench.layer("top", Some("base"), |root| {
        use storage_sys::tree::{EntryPath, Start, Tree};
        let mut tree = Tree::open(root, Start::Upper).unwrap();
        tree.whiteout(&EntryPath::parse(b"file").unwrap()).unwrap();
        tree.finish().unwrap();
    });
    bench.look("top", |root| assert!(root.join("file").symlink_metadata().is_err()));
    bench.look("base", |root| assert!(root.join("file").exists()));
}

#[test]
fn vuln_u18_overlay_attributes_in_a_layer_lead_nowhere() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    bench.layer("secret", None, |root| {
        fs::create_dir(root.join("hidden")).unwrap();
        fs::write(root.join("hidden/key"), "secret").unwrap();
    });
    bench.layer("evil", Some("secret"), |root| {
        for (lure, attribute) in [("lure", "trusted.overlay.redirect"), ("lure2", "user.overlay.redirect")] {
            fs::create_dir(root.join(lure)).unwrap();
            set_xattr(&root.join(lure), attribute, b"/hidden");
        }
        fs::create_dir(root.join("hidden")).unwrap();
        set_xattr(&root.join("hidden"), "user.overlay.opaque", b"y");
    });
    let look = |root: &Path| {
        assert!(fs::read(root.join("lure/key")).is_err());
        assert!(fs::read(root.join("lure2/key")).is_err());
        assert_eq!(
            fs::read_to_string(root.join("hidden/key")).unwrap(),
            "secret",
            "user.overlay means nothing"
        );
    };
    bench.look("evil", look);
    let mounts = bench.snapshotter.prepare(&active("a"), Some(&committed("evil")), &Labels::new()).unwrap();
    bench.mounted(&mounts, look);
}

#[test]
fn vuln_u19_a_metacopy_in_a_layer_reads_no_other_file() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    bench.layer("secret", None, |root| fs::write(root.join("key"), "secret").unwrap());
    bench.layer("evil", Some("secret"), |root| {
        fs::write(root.join("lure"), "").unwrap();
        set_xattr(&root.join("lure"), "trusted.overlay.redirect", b"/key");
        set_xattr(&root.join("lure"), "trusted.overlay.metacopy", b"");
    });
    let look = |root: &Path| assert_ne!(fs::read(root.join("lure")).ok(), Some(b"secret".to_vec()));
    bench.look("evil", look);
    let mounts = bench.snapshotter.prepare(&active("a"), Some(&committed("evil")), &Labels::new()).unwrap();
    bench.mounted(&mounts, |root| {
        look(root);
        let _ = fs::set_permissions(root.join("lure"), fs::Permissions::from_mode(0o644));
        look(root);
    });
}

#[test]
fn vuln_u21_nobody_else_reaches_a_snapshots_files() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    bench.layer("base", None, |root| {
        fs::write(root.join("program"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(root.join("program"), fs::Permissions::from_mode(0o4755)).unwrap();
    });
    let program = bench.files("base").join("program");
    for directory in
        [bench.store.root().to_owned(), bench.folder(), program.parent().unwrap().parent().unwrap().into()]
    {
        assert_eq!(directory.metadata().unwrap().mode() & 0o077, 0, "{directory:?}");
    }
    fs::set_permissions(bench.scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut as_nobody = std::process::Command::new(&program);
    std::os::unix::process::CommandExt::uid(&mut as_nobody, 65_534);
    assert_eq!(as_nobody.status().unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
}
