//! The same layers look the same in native and in overlay: random layers, unpacked side by side, stacked, and written to
//! through the mounts. The kernel's overlayfs is the model.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use snapshotters_contract::{ActiveKey, CommittedName, Mount, Snapshotter};
use snapshotters_native::Native;
use snapshotters_overlay::Overlay;
use storage_content::Store;
use storage_model::Labels;
use storage_sys::mount::{self, MountError};
use storage_sys::tree::{Attributes, EntryPath, Start, Timestamp, Tree};

/// One entry of a layer. Paths are drawn from few names, so that they meet.
#[derive(Debug, Clone)]
enum Entry {
    File(String, u8),
    Directory(String, u32),
    Link(String, String),
    HardLink(String, String),
    Whiteout(String),
    Opaque(String),
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec("[abc]", 1..4).prop_map(|names| names.join("/"))
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        4 => (path(), any::<u8>()).prop_map(|(path, content)| Entry::File(path, content)),
        3 => (path(), 0o700u32..=0o1777).prop_map(|(path, mode)| Entry::Directory(path, mode)),
        1 => (path(), path()).prop_map(|(path, target)| Entry::Link(path, target)),
        1 => (path(), path()).prop_map(|(path, target)| Entry::HardLink(path, target)),
        3 => path().prop_map(Entry::Whiteout),
        1 => path().prop_map(Entry::Opaque),
    ]
}

/// Writes one entry as the unpacker does. What cannot be (a file where a directory is needed) is left out, in both.
fn write(tree: &mut Tree, entry: &Entry) {
    let parse = |path: &str| EntryPath::parse(path.as_bytes()).unwrap();
    let then = Timestamp { seconds: 1_234_567_890, nanoseconds: 5 };
    let attributes = |mode| Attributes { mode, uid: 7, gid: 8, mtime: then, atime: then, xattrs: &[] };
    let _ = match entry {
        Entry::File(path, content) => tree.file(&parse(path), 0o640).and_then(|mut file| {
            file.write(&[*content; 100])?;
            tree.close(file, &attributes(0o640))
        }),
        Entry::Directory(path, mode) => tree.directory(&parse(path), &attributes(*mode)),
        Entry::Link(path, target) => tree.symlink(&parse(path), target.as_bytes(), &attributes(0o777)),
        Entry::HardLink(path, target) => tree.hard_link(&parse(path), &parse(target)),
        Entry::Whiteout(path) => tree.whiteout(&parse(path)),
        Entry::Opaque(path) => tree.opaque(&parse(path)),
    };
}

type Seen = BTreeMap<PathBuf, (u32, u32, Option<i64>, Vec<u8>)>;

/// Mode, owner, time and content of all that can be found below `root`.
fn look(root: &Path) -> Seen {
    let mut seen = Seen::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let facts = match path.symlink_metadata() {
            // Overlayfs lists a whiteout in a directory that only one layer has, and then finds nothing.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            facts => facts.unwrap(),
        };
        let kind = facts.file_type();
        let content = if kind.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            Vec::new()
        } else if kind.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else {
            fs::read(&path).unwrap()
        };
        let time = (!kind.is_dir()).then(|| facts.mtime());
        seen.insert(path.strip_prefix(root).unwrap().to_owned(), (facts.mode(), facts.uid(), time, content));
    }
    seen
}

struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(mounts: &[Mount]) -> Result<Self, MountError> {
        let target = tempfile::tempdir().unwrap();
        let mounts: Vec<_> = mounts.iter().map(mount::Mount::from).collect();
        mount::mount_all(&mounts, &target.path().canonicalize().unwrap())?;
        Ok(Self(target))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = mount::detach(&self.0.path().canonicalize().unwrap());
    }
}

fn name(n: usize) -> CommittedName {
    format!("layer {n}").parse().unwrap()
}

/// Unpacks the layers side by side, stacks them, and tells what each stack shows; then removes them.
fn stack(snapshotter: &dyn Snapshotter, layers: &[Vec<Entry>]) -> Result<Vec<Seen>, MountError> {
    let keys: Vec<ActiveKey> = (0..layers.len()).map(|n| format!("key {n}").parse().unwrap()).collect();
    for (key, layer) in keys.iter().zip(layers) {
        snapshotter.prepare(key, None, &Labels::new()).unwrap();
        let target = snapshotter.layer_target(key).unwrap();
        let mut tree = Tree::open(&target.path, Start::Upper).unwrap();
        layer.iter().for_each(|entry| write(&mut tree, entry));
        tree.finish().unwrap();
    }
    let mut seen = Vec::new();
    for (n, key) in keys.iter().enumerate() {
        let parent = n.checked_sub(1).map(name);
        snapshotter.commit(key, &name(n), parent.as_ref(), &Labels::new()).unwrap();
        if n > 0 {
            let view = "view".parse().unwrap();
            let mounted = Mounted::new(&snapshotter.view(&view, Some(&name(n)), &Labels::new()).unwrap())?;
            seen.push(look(mounted.0.path()));
            drop(mounted);
            snapshotter.remove("view").unwrap();
        }
    }
    for n in (0..layers.len()).rev() {
        snapshotter.remove(name(n).as_str()).unwrap();
    }
    Ok(seen)
}

#[test]
fn the_same_layers_show_the_same_tree() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(&root.path().join("root")).unwrap();
    let space = store.space(&"default".parse().unwrap());
    let both: [Arc<dyn Snapshotter>; 2] =
        [Native::new(&store).unwrap().bind(space.clone()), Overlay::new(&store).unwrap().bind(space)];
    if let Err(MountError::NotPermitted { .. }) = stack(&*both[1], &[Vec::new(), Vec::new()]) {
        eprintln!("skipped: mounting is not permitted here (run as root)");
        return;
    }
    let layers = prop::collection::vec(prop::collection::vec(entry(), 0..12), 2..5);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let result = runner.run(&layers, |layers| {
        let [native, overlay] =
            [&both[0], &both[1]].map(|snapshotter| stack(&**snapshotter, &layers).unwrap());
        prop_assert_eq!(native, overlay);
        Ok(())
    });
    result.unwrap();
}
