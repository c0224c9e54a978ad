//! Names, labels, listing, namespaces.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::SystemTime;

use storage_model::Labels;

use super::{Bench, active, committed, refused};
use crate::{ErrorKind, Info, LabelChange, Snapshotter};

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn list(snapshotter: &dyn Snapshotter) -> BTreeMap<String, Info> {
    let mut infos = BTreeMap::new();
    let mut visit = |info: Info| {
        assert!(infos.insert(info.name.clone(), info).is_none(), "visited twice");
        ControlFlow::Continue(())
    };
    snapshotter.walk(&mut visit).unwrap();
    infos
}

pub(super) fn a_key_is_taken_whatever_its_kind(bench: &mut Bench<'_>) {
    bench.layer("committed", None, |_| {});
    let s = bench.snapshotter();
    s.prepare(&active("active"), None, &Labels::new()).unwrap();
    s.view(&active("view"), None, &Labels::new()).unwrap();
    for key in ["committed", "active", "view"] {
        let before = s.stat(key).unwrap();
        refused(s.prepare(&active(key), None, &Labels::new()), ErrorKind::AlreadyExists);
        refused(
            s.view(&active(key), Some(&committed("committed")), &Labels::new()),
            ErrorKind::AlreadyExists,
        );
        assert_eq!(s.stat(key).unwrap(), before);
    }
}

pub(super) fn keys_and_names_can_be_used_again(bench: &mut Bench<'_>) {
    let s = bench.snapshotter();
    let (key, name) = (active("key"), committed("name"));
    s.prepare(&key, None, &Labels::new()).unwrap();
    s.remove("key").unwrap();
    s.view(&key, None, &Labels::new()).unwrap();
    s.remove("key").unwrap();
    for round in ["first", "second"] {
        let mounts = s.prepare(&key, None, &Labels::new()).unwrap();
        bench.mounted(&mounts, |root| {
            assert_eq!(std::fs::read_dir(root).unwrap().count(), 0, "nothing of an earlier one is there");
            std::fs::write(root.join(round), "").unwrap();
        });
        s.commit(&key, &name, None, &Labels::new()).unwrap();
        bench.look("name", |root| assert!(root.join(round).exists()));
        s.remove("name").unwrap();
    }
}

pub(super) fn keys_of_any_text_are_told_apart(bench: &mut Bench<'_>) {
    let s = bench.snapshotter();
    let long = "k".repeat(crate::KEY_BYTES_MAX);
    let keys =
        ["a", "a/", "/a", "a b", "../a", "default/3/extract-5 sha256:0", "A", "\u{e4}\n", long.as_str()];
    for key in keys {
        s.prepare(&active(key), None, &labels(&[("key", &key.len().to_string())])).unwrap();
    }
    assert_eq!(list(s).len(), keys.len());
    for key in keys {
        assert_eq!(s.stat(key).unwrap().name, key);
    }
}

pub(super) fn a_walk_tells_what_stat_tells(bench: &mut Bench<'_>) {
    bench.layer("one", None, |_| {});
    bench.layer("two", Some("one"), |_| {});
    let s = bench.snapshotter();
    s.prepare(&active("active"), Some(&committed("two")), &labels(&[("l", "1")])).unwrap();
    s.view(&active("view"), Some(&committed("one")), &Labels::new()).unwrap();
    let infos = list(s);
    assert_eq!(infos.keys().collect::<Vec<_>>(), ["active", "one", "two", "view"]);
    for (name, info) in &infos {
        assert_eq!(&s.stat(name).unwrap(), info);
    }
    let mut visited = 0;
    let mut visit = |_| {
        visited += 1;
        ControlFlow::Break(())
    };
    s.walk(&mut visit).unwrap();
    assert_eq!(visited, 1, "a walk ends where its visitor breaks");
}

pub(super) fn a_visitor_may_call_the_snapshotter(bench: &mut Bench<'_>) {
    bench.layer("one", None, |_| {});
    let s = bench.snapshotter();
    s.prepare(&active("active"), Some(&committed("one")), &Labels::new()).unwrap();
    let mut seen = Vec::new();
    let mut visit = |info: Info| {
        assert_eq!(s.stat(&info.name).unwrap(), info);
        s.usage(&info.name).unwrap();
        s.update(&info.name, LabelChange::set("seen", "yes")).unwrap();
        if let Some(parent) = &info.parent {
            s.stat(parent).unwrap();
        }
        seen.push(info.name);
        ControlFlow::Continue(())
    };
    s.walk(&mut visit).unwrap();
    seen.sort();
    assert_eq!(seen, ["active", "one"]);
    assert!(list(s).values().all(|info| info.labels.contains_key("seen")));
}

pub(super) fn an_update_changes_labels_and_their_time_only(bench: &mut Bench<'_>) {
    let begun = SystemTime::now();
    bench.layer("committed", None, |_| {});
    let s = bench.snapshotter();
    let three = labels(&[("l1", "a"), ("l2", "b"), ("l3", "c")]);
    s.prepare(&active("active"), Some(&committed("committed")), &three).unwrap();
    s.view(&active("view"), Some(&committed("committed")), &three).unwrap();
    for key in ["committed", "active", "view"] {
        let before = s.stat(key).unwrap();
        assert!(begun <= before.created && before.created <= SystemTime::now(), "{before:?}");
        assert_eq!(before.created, before.updated, "at birth");
        let asked = SystemTime::now();
        let after = s.update(key, LabelChange::Replace(three.clone())).unwrap();
        assert!(asked <= after.updated && after.updated <= SystemTime::now(), "{after:?}");
        let expected = Info { labels: three.clone(), updated: after.updated, ..before };
        assert_eq!((&after, s.stat(key).unwrap()), (&expected, expected.clone()));
        let patch = BTreeMap::from([
            ("l1".to_owned(), None),
            ("l2".to_owned(), Some("new".to_owned())),
            ("l4".to_owned(), Some("d".to_owned())),
        ]);
        let patched = s.update(key, LabelChange::Patch(patch)).unwrap();
        assert_eq!(patched.labels, labels(&[("l2", "new"), ("l3", "c"), ("l4", "d")]));
        let emptied = s.update(key, LabelChange::Replace(Labels::new())).unwrap();
        assert_eq!((emptied.labels, emptied.created), (Labels::new(), expected.created));
    }
    refused(s.update("nobody", LabelChange::Replace(Labels::new())), ErrorKind::NotFound);
}

pub(super) fn labels_are_those_given_last(bench: &mut Bench<'_>) {
    let s = bench.snapshotter();
    let (first, second) = (labels(&[("containerd.io/snapshot.ref", "x")]), labels(&[("other", "y")]));
    s.prepare(&active("a"), None, &first).unwrap();
    assert_eq!(s.stat("a").unwrap().labels, first);
    s.commit(&active("a"), &committed("c"), None, &second).unwrap();
    assert_eq!(s.stat("c").unwrap().labels, second, "a commit's labels stand alone");
}

pub(super) fn a_label_that_is_too_long_is_refused(bench: &mut Bench<'_>) {
    let s = bench.snapshotter();
    let long = labels(&[("key", &"v".repeat(4094))]);
    refused(s.prepare(&active("a"), None, &long), ErrorKind::InvalidArgument);
    refused(s.view(&active("a"), None, &long), ErrorKind::InvalidArgument);
    refused(s.stat("a"), ErrorKind::NotFound);
    let longest = labels(&[("key", &"v".repeat(4093))]);
    s.prepare(&active("a"), None, &longest).unwrap();
    refused(s.commit(&active("a"), &committed("c"), None, &long), ErrorKind::InvalidArgument);
    refused(s.update("a", LabelChange::Replace(long)), ErrorKind::InvalidArgument);
    assert_eq!(s.stat("a").unwrap().labels, longest, "a refused change changes nothing");
}

pub(super) fn a_namespace_sees_its_own_snapshots_only(bench: &mut Bench<'_>) {
    bench.layer("base", None, |root| std::fs::write(root.join("ours"), "").unwrap());
    let (ours, theirs) = (bench.snapshotter(), bench.bind("other"));
    refused(theirs.stat("base"), ErrorKind::NotFound);
    refused(theirs.prepare(&active("x"), Some(&committed("base")), &Labels::new()), ErrorKind::NotFound);
    refused(theirs.view(&active("x"), Some(&committed("base")), &Labels::new()), ErrorKind::NotFound);
    refused(theirs.remove("base"), ErrorKind::NotFound);
    let mounts = theirs.prepare(&active("key"), None, &Labels::new()).unwrap();
    bench.mounted(&mounts, |root| std::fs::write(root.join("theirs"), "").unwrap());
    theirs.commit(&active("key"), &committed("base"), None, &Labels::new()).unwrap();
    assert_eq!(list(ours).len(), 1);
    assert_eq!(list(&*theirs).len(), 1);
    bench.look("base", |root| assert!(root.join("ours").exists() && !root.join("theirs").exists()));
    theirs.remove("base").unwrap();
    ours.cleanup().unwrap();
    bench.look("base", |root| assert!(root.join("ours").exists()));
}
