//! Layers unpacked into a snapshot without mounting it, before or after its parent is there.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use storage_model::Labels;
use storage_sys::tree::{EntryPath, Start, Tree};

use super::{Bench, active, committed, describe, refused};
use crate::{ErrorKind, PARENT_CHAIN_ID_LABEL, WhiteoutForm};

fn names(root: &Path) -> Vec<PathBuf> {
    describe(root).into_keys().collect()
}

fn paths<const N: usize>(names: [&str; N]) -> [PathBuf; N] {
    names.map(PathBuf::from)
}

/// Deletes `name` in a directory that a layer is unpacked into.
fn delete(target: &Path, name: &str, form: WhiteoutForm) {
    match form {
        WhiteoutForm::Apply => fs::remove_file(target.join(name)).unwrap(),
        WhiteoutForm::Overlay => {
            let mut tree = Tree::open(target, Start::Upper).unwrap();
            tree.whiteout(&EntryPath::parse(name.as_bytes()).unwrap()).unwrap();
            tree.finish().unwrap();
        }
    }
}

pub(super) fn a_layer_unpacked_without_a_mount_looks_the_same(bench: &mut Bench<'_>) {
    bench.layer("base", None, |root| {
        fs::write(root.join("gone"), "").unwrap();
        fs::write(root.join("kept"), "").unwrap();
    });
    let s = bench.snapshotter();
    let key = active("a");
    let mounts = s.prepare(&key, Some(&committed("base")), &Labels::new()).unwrap();
    let target = s.layer_target(&key).unwrap();
    assert!(target.path.is_absolute() && target.path.is_dir());
    fs::write(target.path.join("new"), "").unwrap();
    delete(&target.path, "gone", target.whiteouts);
    let expected = paths(["", "kept", "new"]);
    bench.mounted(&mounts, |root| assert_eq!(names(root), expected));
    s.commit(&key, &committed("c"), None, &Labels::new()).unwrap();
    assert_eq!(bench.look("c", names), expected);
    s.view(&active("view"), None, &Labels::new()).unwrap();
    refused(s.layer_target(&active("view")), ErrorKind::FailedPrecondition);
}

pub(super) fn layers_unpacked_side_by_side_are_stacked_at_commit(bench: &mut Bench<'_>) {
    let s = bench.snapshotter();
    let keys = [active("x 1"), active("x 2"), active("x 3")];
    for key in &keys {
        s.prepare(key, None, &Labels::new()).unwrap();
    }
    let target = |n: usize| s.layer_target(&keys[n]).unwrap();
    assert_eq!(target(0).whiteouts, WhiteoutForm::Overlay, "what is deleted lies in a parent to come");
    fs::write(target(2).path.join("third"), "3").unwrap();
    fs::write(target(0).path.join("first"), "1").unwrap();
    fs::write(target(0).path.join("changed"), "1").unwrap();
    delete(&target(1).path, "first", WhiteoutForm::Overlay);
    fs::write(target(1).path.join("changed"), "2").unwrap();
    let layers = [committed("one"), committed("two"), committed("three")];
    s.commit(&keys[0], &layers[0], None, &Labels::new()).unwrap();
    s.commit(&keys[1], &layers[1], Some(&layers[0]), &Labels::new()).unwrap();
    s.commit(&keys[2], &layers[2], Some(&layers[1]), &Labels::new()).unwrap();
    assert_eq!(s.stat("three").unwrap().parent.as_deref(), Some("two"));
    bench.look("three", |root| {
        assert_eq!(names(root), paths(["", "changed", "third"]));
        assert_eq!(fs::read_to_string(root.join("changed")).unwrap(), "2");
    });
    refused(s.remove("one"), ErrorKind::FailedPrecondition);
}

pub(super) fn a_snapshot_is_put_on_another_parent_only_if_it_has_none(bench: &mut Bench<'_>) {
    bench.layer("one", None, |_| {});
    bench.layer("two", None, |_| {});
    let s = bench.snapshotter();
    let (key, one) = (active("a"), committed("one"));
    s.prepare(&key, Some(&one), &Labels::new()).unwrap();
    let commit = |key: &str, rebase: &str| {
        s.commit(&active(key), &committed("c"), Some(&committed(rebase)), &Labels::new())
    };
    refused(commit("a", "two"), ErrorKind::InvalidArgument);
    s.prepare(&active("b"), None, &Labels::new()).unwrap();
    refused(commit("b", "nobody"), ErrorKind::NotFound);
    refused(commit("b", "a"), ErrorKind::FailedPrecondition);
    assert_eq!(s.stat("b").unwrap().parent, None);
    commit("a", "one").unwrap();
}

fn waiting() -> Labels {
    Labels::from([(PARENT_CHAIN_ID_LABEL.to_owned(), "sha256:below".to_owned())])
}

/// The directory that containerd's applier would unpack into: the upper directory of the one mount.
fn upper(mounts: &[crate::Mount]) -> PathBuf {
    let [mount] = mounts else { panic!("one mount: {mounts:?}") };
    assert_eq!(mount.kind, "overlay");
    mount.options.iter().find_map(|option| option.strip_prefix("upperdir=")).unwrap().into()
}

pub(super) fn what_waits_for_its_parent_is_an_overlay_with_an_upper_directory(bench: &mut Bench<'_>) {
    bench.layer("base", None, |root| {
        fs::create_dir(root.join("dir")).unwrap();
        for file in ["gone", "kept", "dir/hidden"] {
            fs::write(root.join(file), file).unwrap();
        }
    });
    let (s, key) = (bench.snapshotter(), active("layer"));
    let mounts = s.prepare(&key, None, &waiting()).unwrap();
    let target = upper(&mounts);
    assert_eq!(s.layer_target(&key).unwrap().path, target);
    delete(&target, "gone", WhiteoutForm::Overlay);
    let mut tree = Tree::open(&target, Start::Upper).unwrap();
    tree.opaque(&EntryPath::parse(b"dir").unwrap()).unwrap();
    tree.finish().unwrap();
    bench.mounted(&mounts, |root| fs::write(root.join("dir/new"), "").unwrap());
    s.update(key.as_str(), crate::LabelChange::Replace(Labels::new())).unwrap();
    bench.reopen();
    let s = bench.snapshotter();
    assert_eq!(s.mounts(&key).unwrap(), mounts, "decided once, whatever becomes of the label");
    s.commit(&key, &committed("top"), Some(&committed("base")), &Labels::new()).unwrap();
    bench.look("top", |root| assert_eq!(names(root), paths(["", "dir", "dir/new", "kept"])));
    bench.look("base", |root| assert_eq!(names(root), paths(["", "dir", "dir/hidden", "gone", "kept"])));
}

pub(super) fn what_is_neither_waiting_nor_on_a_parent_is_no_overlay(bench: &mut Bench<'_>) {
    bench.layer("base", None, |_| {});
    let (s, base) = (bench.snapshotter(), committed("base"));
    let plain = s.prepare(&active("plain"), None, &Labels::new()).unwrap();
    let view = s.view(&active("view"), None, &waiting()).unwrap();
    assert!([&plain, &view].iter().all(|mounts| mounts[0].kind == "bind"), "{plain:?} {view:?}");
    // A label that contradicts the parent counts for nothing.
    let both = s.prepare(&active("both"), Some(&base), &waiting()).unwrap();
    assert_eq!(both.len(), s.prepare(&active("on"), Some(&base), &Labels::new()).unwrap().len());
    bench.mounted(&both, |root| fs::write(root.join("file"), "").unwrap());
    s.commit(&active("both"), &committed("top"), Some(&base), &Labels::new()).unwrap();
    bench.look("top", |root| assert_eq!(names(root), paths(["", "file"])));
}

pub(super) fn a_layer_unpacked_before_its_parent_deletes_from_it(bench: &mut Bench<'_>) {
    bench.layer("base", None, |root| {
        fs::create_dir_all(root.join("dir/below")).unwrap();
        for file in ["file", "dir/file", "dir/below/file"] {
            fs::write(root.join(file), "base").unwrap();
        }
    });
    let s = bench.snapshotter();
    let prepare = |key: &str| {
        s.prepare(&active(key), None, &Labels::new()).unwrap();
        s.layer_target(&active(key)).unwrap().path
    };
    let first = prepare("first");
    delete(&first, "file", WhiteoutForm::Overlay);
    delete(&first, "dir/below", WhiteoutForm::Overlay);
    // In the place of what one layer deletes, the next has something of another type.
    let second = prepare("second");
    fs::create_dir(second.join("file")).unwrap();
    fs::write(second.join("file/inside"), "second").unwrap();
    delete(&second, "dir", WhiteoutForm::Overlay);
    let third = prepare("third");
    fs::create_dir(third.join("dir")).unwrap();
    fs::write(third.join("dir/file"), "third").unwrap();
    let mut below = committed("base");
    for (key, name) in [("first", "one"), ("second", "two"), ("third", "three")] {
        s.commit(&active(key), &committed(name), Some(&below), &Labels::new()).unwrap();
        below = committed(name);
    }
    bench.look("one", |root| assert_eq!(names(root), paths(["", "dir", "dir/file"])));
    bench.look("two", |root| assert_eq!(names(root), paths(["", "file", "file/inside"])));
    bench.look("three", |root| {
        assert_eq!(names(root), paths(["", "dir", "dir/file", "file", "file/inside"]));
        assert_eq!(fs::read_to_string(root.join("dir/file")).unwrap(), "third");
    });
    let mounts = s.prepare(&active("on top"), Some(&below), &Labels::new()).unwrap();
    bench.mounted(&mounts, |root| fs::remove_dir_all(root.join("file")).unwrap());
    s.commit(&active("on top"), &committed("four"), None, &Labels::new()).unwrap();
    bench.look("four", |root| assert_eq!(names(root), paths(["", "dir", "dir/file"])));
}

pub(super) fn a_failed_commit_on_a_parent_changes_nothing(bench: &mut Bench<'_>) {
    bench.layer("wrong", None, |root| fs::write(root.join("wrong"), "").unwrap());
    bench.layer("right", None, |root| {
        fs::write(root.join("gone"), "").unwrap();
        fs::write(root.join("right"), "").unwrap();
    });
    let s = bench.snapshotter();
    s.prepare(&active("layer"), None, &Labels::new()).unwrap();
    let target = s.layer_target(&active("layer")).unwrap().path;
    delete(&target, "gone", WhiteoutForm::Overlay);
    let commit = |labels: &Labels, on: &str| {
        s.commit(&active("layer"), &committed("done"), Some(&committed(on)), labels)
    };
    let long = Labels::from([("key".to_owned(), "v".repeat(5000))]);
    refused(commit(&long, "wrong"), ErrorKind::InvalidArgument);
    assert_eq!(s.stat("layer").unwrap().parent, None);
    assert_eq!(s.layer_target(&active("layer")).unwrap().path, target);
    commit(&Labels::new(), "right").unwrap();
    bench.look("done", |root| assert_eq!(names(root), paths(["", "right"])));
}

pub(super) fn links_within_a_layer_survive_its_commit_on_a_parent(bench: &mut Bench<'_>) {
    bench.layer("base", None, |root| {
        fs::write(root.join("one"), "base").unwrap();
        fs::hard_link(root.join("one"), root.join("two")).unwrap();
    });
    let s = bench.snapshotter();
    s.prepare(&active("layer"), None, &Labels::new()).unwrap();
    let target = s.layer_target(&active("layer")).unwrap().path;
    fs::create_dir(target.join("dir")).unwrap();
    fs::write(target.join("dir/a"), "layer").unwrap();
    fs::hard_link(target.join("dir/a"), target.join("b")).unwrap();
    s.commit(&active("layer"), &committed("top"), Some(&committed("base")), &Labels::new()).unwrap();
    s.cleanup().unwrap();
    bench.look("top", |root| {
        let inode = |name: &str| root.join(name).metadata().unwrap().ino();
        assert_eq!(inode("dir/a"), inode("b"));
        assert_eq!(inode("one"), inode("two"));
    });
    let (top, base) = (s.usage("top").unwrap(), s.usage("base").unwrap());
    let own = if bench.implementation.copies_parents() { base.inodes - 1 } else { 0 };
    assert_eq!(top.inodes - own, 3, "two directories and one file of two names");
}

pub(super) fn the_trees_of_a_committed_snapshot_are_told_highest_first(bench: &mut Bench<'_>) {
    let s = bench.snapshotter();
    let mut record = Vec::new();
    for (name, parent) in [("one", None), ("two", Some("one"))] {
        let key = active(&format!("making {name}"));
        s.prepare(&key, None, &Labels::new()).unwrap();
        let target = s.layer_target(&key).unwrap();
        fs::write(target.path.join(name), name).unwrap();
        if let Some(path) = &target.record {
            assert!(!path.exists() && !path.starts_with(&target.path), "beside the tree, not in it");
            fs::write(path, "a record").unwrap();
        }
        record.insert(0, target.record);
        s.commit(&key, &committed(name), parent.map(committed).as_ref(), &Labels::new()).unwrap();
    }
    bench.reopen();
    let s = bench.snapshotter();
    s.cleanup().unwrap();
    let trees = s.trees(&committed("two")).unwrap();
    assert_eq!(trees.iter().map(|tree| tree.name.as_str()).collect::<Vec<_>>(), ["two", "one"]);
    for (tree, record) in trees.iter().zip(&record) {
        assert_eq!(fs::read_to_string(tree.files.join(&tree.name)).unwrap(), tree.name);
        assert_eq!(&tree.record, record, "what is checked is what was unpacked");
        assert!(record.as_ref().is_none_or(|path| fs::read(path).unwrap() == b"a record"));
    }
    s.prepare(&active("a"), None, &Labels::new()).unwrap();
    refused(s.trees(&committed("a")), ErrorKind::NotFound);
    refused(s.trees(&committed("nobody")), ErrorKind::NotFound);
}
