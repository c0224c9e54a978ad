//! Life cycle: what is active, committed, gone; who may be a parent; what survives.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use storage_model::Labels;

use super::{Bench, active, committed, describe, refused};
use crate::{ErrorKind, Info, Kind};

pub(super) fn a_snapshot_is_prepared_written_committed_and_stacked(bench: &mut Bench<'_>) {
    let s = bench.snapshotter();
    let mounts = s.prepare(&active("/tmp/first"), None, &Labels::new()).unwrap();
    bench.mounted(&mounts, |root| {
        assert_eq!(fs::read_dir(root).unwrap().count(), 0, "it begins empty");
        fs::write(root.join("foo"), "foo\n").unwrap();
        fs::create_dir_all(root.join("a/b/c")).unwrap();
    });
    s.commit(&active("/tmp/first"), &committed("/tmp/one"), None, &Labels::new()).unwrap();
    let info = s.stat("/tmp/one").unwrap();
    assert_eq!((info.kind, info.parent.as_deref(), info.name.as_str()), (Kind::Committed, None, "/tmp/one"));
    refused(s.stat("/tmp/first"), ErrorKind::NotFound);

    let mounts = s.prepare(&active("/tmp/second"), Some(&committed("/tmp/one")), &Labels::new()).unwrap();
    assert_eq!(s.stat("/tmp/second").unwrap().parent.as_deref(), Some("/tmp/one"));
    bench.mounted(&mounts, |root| {
        assert_eq!(fs::read_to_string(root.join("foo")).unwrap(), "foo\n", "it begins as its parent is");
        fs::write(root.join("bar"), "bar\n").unwrap();
        fs::write(root.join("foo"), "changed\n").unwrap();
        fs::remove_dir_all(root.join("a/b")).unwrap();
    });
    s.commit(&active("/tmp/second"), &committed("/tmp/two"), None, &Labels::new()).unwrap();

    bench.look("/tmp/two", |root| {
        assert_eq!(fs::read_to_string(root.join("foo")).unwrap(), "changed\n");
        assert_eq!(fs::read_to_string(root.join("bar")).unwrap(), "bar\n");
        assert!(root.join("a").is_dir() && !root.join("a/b").exists());
    });
    bench.look("/tmp/one", |root| {
        assert_eq!(fs::read_to_string(root.join("foo")).unwrap(), "foo\n", "the parent is as it was");
        assert!(root.join("a/b/c").is_dir() && !root.join("bar").exists());
    });
}

pub(super) fn an_active_snapshot_shows_what_it_is(bench: &mut Bench<'_>) {
    let s = bench.snapshotter();
    s.prepare(&active("a"), None, &Labels::new()).unwrap();
    s.view(&active("v"), None, &Labels::new()).unwrap();
    let (a, v) = (s.stat("a").unwrap(), s.stat("v").unwrap());
    assert_eq!((a.name.as_str(), a.kind, a.parent), ("a", Kind::Active, None));
    assert_eq!((v.name.as_str(), v.kind, v.parent), ("v", Kind::View, None));
}

pub(super) fn each_snapshot_names_its_own_parent_only(bench: &mut Bench<'_>) {
    bench.layer("a", None, |_| {});
    bench.layer("b", Some("a"), |_| {});
    bench.layer("c", Some("b"), |_| {});
    let parent = |key: &str| bench.snapshotter().stat(key).unwrap().parent;
    assert_eq!((parent("a"), parent("b"), parent("c")), (None, Some("a".into()), Some("b".into())));
}

pub(super) fn only_a_committed_snapshot_may_be_a_parent(bench: &mut Bench<'_>) {
    let s = bench.snapshotter();
    s.prepare(&active("active"), None, &Labels::new()).unwrap();
    s.view(&active("view"), None, &Labels::new()).unwrap();
    for parent in ["active", "view"] {
        refused(
            s.prepare(&active("x"), Some(&committed(parent)), &Labels::new()),
            ErrorKind::InvalidArgument,
        );
        refused(s.view(&active("x"), Some(&committed(parent)), &Labels::new()), ErrorKind::InvalidArgument);
    }
    refused(s.prepare(&active("x"), Some(&committed("nobody")), &Labels::new()), ErrorKind::NotFound);
    refused(s.view(&active("x"), Some(&committed("nobody")), &Labels::new()), ErrorKind::NotFound);
    refused(s.stat("x"), ErrorKind::NotFound);
}

pub(super) fn only_an_active_snapshot_can_be_committed(bench: &mut Bench<'_>) {
    bench.layer("base", None, |_| {});
    let s = bench.snapshotter();
    s.view(&active("view"), Some(&committed("base")), &Labels::new()).unwrap();
    s.prepare(&active("active"), None, &Labels::new()).unwrap();
    let commit = |key: &str, name: &str| s.commit(&active(key), &committed(name), None, &Labels::new());
    refused(commit("view", "x"), ErrorKind::FailedPrecondition);
    refused(commit("base", "x"), ErrorKind::FailedPrecondition);
    refused(commit("nobody", "x"), ErrorKind::NotFound);
    refused(commit("active", "base"), ErrorKind::AlreadyExists);
    refused(commit("active", "view"), ErrorKind::AlreadyExists);
    refused(s.stat("x"), ErrorKind::NotFound);
    assert_eq!(s.stat("active").unwrap().kind, Kind::Active, "a refused commit leaves it as it was");
    commit("active", "x").unwrap();
}

pub(super) fn a_committed_snapshot_is_not_mounted_itself(bench: &mut Bench<'_>) {
    bench.layer("base", None, |_| {});
    let s = bench.snapshotter();
    refused(s.mounts(&active("base")), ErrorKind::FailedPrecondition);
    refused(s.mounts(&active("nobody")), ErrorKind::NotFound);
    refused(s.layer_target(&active("base")), ErrorKind::FailedPrecondition);
    refused(s.layer_target(&active("nobody")), ErrorKind::NotFound);
}

pub(super) fn mounts_are_found_again(bench: &mut Bench<'_>) {
    bench.layer("one", None, |_| {});
    bench.layer("two", Some("one"), |_| {});
    let mut expected = Vec::new();
    for parent in [None, Some("one"), Some("two")] {
        let s = bench.snapshotter();
        let (a, v) = (active(&format!("a {parent:?}")), active(&format!("v {parent:?}")));
        let parent = parent.map(committed);
        expected.push((a.clone(), s.prepare(&a, parent.as_ref(), &Labels::new()).unwrap()));
        expected.push((v.clone(), s.view(&v, parent.as_ref(), &Labels::new()).unwrap()));
    }
    for reopened in [false, true] {
        for (key, mounts) in &expected {
            assert_eq!(&bench.snapshotter().mounts(key).unwrap(), mounts, "{key}, reopened: {reopened}");
        }
        bench.reopen();
    }
}

pub(super) fn what_was_acknowledged_is_there_after_opening_again(bench: &mut Bench<'_>) {
    let write = |root: &Path| fs::write(root.join("file"), "content").unwrap();
    bench.layer("one", None, write);
    bench.layer("two", Some("one"), |root| fs::write(root.join("more"), "more").unwrap());
    let mounts = bench.snapshotter().prepare(&active("a"), Some(&committed("two")), &Labels::new()).unwrap();
    bench.mounted(&mounts, |root| fs::write(root.join("work"), "in progress").unwrap());
    let all = |bench: &Bench<'_>| {
        let mut infos: Vec<Info> = Vec::new();
        let mut visit = |info| {
            infos.push(info);
            ControlFlow::Continue(())
        };
        bench.snapshotter().walk(&mut visit).unwrap();
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        infos
    };
    let (infos, tree) = (all(bench), bench.look("two", describe));
    bench.reopen();
    assert_eq!(all(bench), infos);
    assert_eq!(bench.look("two", describe), tree);
    let mounts = bench.snapshotter().mounts(&active("a")).unwrap();
    bench.mounted(&mounts, |root| {
        assert_eq!(fs::read_to_string(root.join("work")).unwrap(), "in progress");
    });
}

pub(super) fn a_snapshot_that_others_stand_on_cannot_be_removed(bench: &mut Bench<'_>) {
    bench.layer("one", None, |root| fs::write(root.join("1"), "").unwrap());
    bench.layer("two", Some("one"), |root| fs::write(root.join("2"), "").unwrap());
    bench.layer("three", Some("two"), |root| fs::write(root.join("3"), "").unwrap());
    let s = bench.snapshotter();
    s.view(&active("view"), Some(&committed("three")), &Labels::new()).unwrap();
    for key in ["one", "two", "three"] {
        let error = refused(s.remove(key), ErrorKind::FailedPrecondition);
        assert!(error.to_string().contains("remove"), "{error}");
    }
    s.cleanup().unwrap();
    let mounts = s.mounts(&active("view")).unwrap();
    bench.mounted(&mounts, |root| assert_eq!(fs::read_dir(root).unwrap().count(), 3));
    for key in ["view", "three", "two", "one"] {
        s.remove(key).unwrap();
        refused(s.stat(key), ErrorKind::NotFound);
    }
    refused(s.remove("one"), ErrorKind::NotFound);
    s.cleanup().unwrap();
}

pub(super) fn writing_to_one_snapshot_changes_no_other(bench: &mut Bench<'_>) {
    bench.layer("base", None, |root| fs::write(root.join("file"), "base").unwrap());
    let s = bench.snapshotter();
    let base = committed("base");
    let one = s.prepare(&active("one"), Some(&base), &Labels::new()).unwrap();
    let two = s.prepare(&active("two"), Some(&base), &Labels::new()).unwrap();
    let view = s.view(&active("view"), Some(&base), &Labels::new()).unwrap();
    bench.mounted(&one, |root| fs::write(root.join("file"), "one").unwrap());
    bench.mounted(&two, |root| fs::remove_file(root.join("file")).unwrap());
    bench.mounted(&view, |root| assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "base"));
    s.remove("two").unwrap();
    s.cleanup().unwrap();
    bench.mounted(&one, |root| assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "one"));
    assert_eq!(bench.look("base", |root| fs::read_to_string(root.join("file")).unwrap()), "base");
}

pub(super) fn cleanup_touches_nothing_that_exists(bench: &mut Bench<'_>) {
    bench.layer("base", None, |root| fs::write(root.join("file"), "base").unwrap());
    let s = bench.snapshotter();
    let mounts = s.prepare(&active("a"), Some(&committed("base")), &Labels::new()).unwrap();
    let other = bench.bind("other");
    let others = other.prepare(&active("a"), None, &Labels::new()).unwrap();
    bench.mounted(&others, |root| fs::write(root.join("theirs"), "").unwrap());
    bench.mounted(&mounts, |root| {
        s.cleanup().unwrap();
        fs::write(root.join("file"), "new").unwrap();
        s.cleanup().unwrap();
        assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "new");
    });
    bench.mounted(&others, |root| assert!(root.join("theirs").exists()));
}
