//! News: each change is told once, after it is durable, to someone who may use the store.

use std::sync::{Arc, Mutex};

use storage_content::{Change, ErrorKind, Expected, ImageRecord, LabelChange, NewSnapshot, Usage};
use storage_model::{Digest, Labels, Namespace};

use crate::support::{Fixture, container, descriptor, labels, put};

type Heard = Arc<Mutex<Vec<(String, Change)>>>;

fn listen(fixture: &Fixture) -> Heard {
    let heard = Heard::default();
    let ear = heard.clone();
    fixture.store.observe(Arc::new(move |namespace: &Namespace, change: &Change| {
        ear.lock().unwrap().push((namespace.to_string(), change.clone()));
    }));
    heard
}

fn take(heard: &Heard) -> Vec<Change> {
    std::mem::take(&mut *heard.lock().unwrap()).into_iter().map(|(_, change)| change).collect()
}

#[test]
fn images_are_told_when_made_replaced_changed_and_deleted() {
    let fixture = Fixture::new();
    let (space, heard) = (fixture.space(), listen(&fixture));
    let image = ImageRecord::new("i", descriptor(Digest::of(b"x")), labels(&[("a", "1")]));
    space.put_image(image.clone()).unwrap();
    space.put_image(image.clone()).unwrap();
    space
        .update_image("i", |image| {
            image.labels.insert("b".into(), "2".into());
            Ok(())
        })
        .unwrap();
    space.create_image(image).unwrap_err();
    space.delete_image("i").unwrap();
    space.delete_image("i").unwrap_err();
    let one = labels(&[("a", "1")]);
    let name = || "i".to_owned();
    assert_eq!(
        take(&heard),
        [
            Change::ImageCreated { name: name(), labels: one.clone() },
            Change::ImageUpdated { name: name(), labels: one },
            Change::ImageUpdated { name: name(), labels: labels(&[("a", "1"), ("b", "2")]) },
            Change::ImageDeleted { name: name() },
        ]
    );
}

#[test]
fn content_is_told_in_each_namespace_that_gets_or_loses_it() {
    let fixture = Fixture::new();
    let (space, heard) = (fixture.space(), listen(&fixture));
    let other = fixture.store.space(&"other".parse().unwrap());
    let digest = put(&space, b"bytes");
    let wanted = Expected::exactly(digest, 5);
    assert_eq!(other.ingest("ref", wanted).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(other.ingest("ref", wanted).unwrap_err().kind(), ErrorKind::AlreadyExists);
    space.delete_blob(&digest).unwrap();
    let news = std::mem::take(&mut *heard.lock().unwrap());
    let created = Change::ContentCreated { digest, size: 5 };
    assert_eq!(
        news,
        [
            ("default".to_owned(), created.clone()),
            ("other".to_owned(), created),
            ("default".to_owned(), Change::ContentDeleted { digest }),
        ]
    );
}

#[test]
fn snapshots_containers_and_namespaces_are_told() {
    let fixture = Fixture::new();
    let (space, heard) = (fixture.space(), listen(&fixture));
    let table = space.snapshots("overlayfs");
    table.insert(NewSnapshot::Active, "draft", None, Labels::new()).unwrap();
    table.commit("draft", "base", None, Usage::default(), Labels::new()).unwrap();
    table.insert(NewSnapshot::View, "view", Some("base"), Labels::new()).unwrap();
    table.remove("view").unwrap();
    space.put_container(container("c", "base")).unwrap();
    space.put_container(container("c", "base")).unwrap();
    space.delete_container(&"c".parse().unwrap()).unwrap();
    let named: Namespace = "named".parse().unwrap();
    fixture.store.create_namespace(&named, Labels::new()).unwrap();
    fixture.store.update_namespace(&named, &LabelChange::set("k", "v")).unwrap();
    fixture.store.delete_namespace(&named).unwrap();
    let snapshotter = || "overlayfs".to_owned();
    let (id, image) = (|| "c".to_owned(), String::new);
    assert_eq!(
        take(&heard),
        [
            Change::SnapshotPrepared { snapshotter: snapshotter(), key: "draft".into(), parent: None },
            Change::SnapshotCommitted {
                snapshotter: snapshotter(),
                key: "draft".into(),
                name: "base".into()
            },
            Change::SnapshotRemoved { snapshotter: snapshotter(), key: "view".into() },
            Change::ContainerCreated { id: id(), image: image(), runtime: String::new() },
            Change::ContainerUpdated {
                id: id(),
                image: image(),
                labels: Labels::new(),
                snapshot_key: "base".into(),
            },
            Change::ContainerDeleted { id: id() },
            Change::NamespaceCreated { labels: Labels::new() },
            Change::NamespaceUpdated { labels: labels(&[("k", "v")]) },
            Change::NamespaceDeleted,
        ]
    );
}

#[test]
fn a_collection_tells_what_it_removed_referrers_first() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let target = put(&space, b"target");
    let past = labels(&[("containerd.io/gc.expire", "2001-01-01T00:00:00Z")]);
    space.create_image(ImageRecord::new("old", descriptor(target), past)).unwrap();
    let table = space.snapshots("overlayfs");
    table.insert(NewSnapshot::Active, "draft", None, Labels::new()).unwrap();
    let heard = listen(&fixture);
    fixture.store.collect(&mut |_| ()).unwrap();
    let news = take(&heard);
    assert_eq!(news.len(), 3);
    let place = |change: &Change| news.iter().position(|one| one == change).unwrap();
    let image = place(&Change::ImageDeleted { name: "old".into() });
    assert!(image < place(&Change::ContentDeleted { digest: target }));
    place(&Change::SnapshotRemoved { snapshotter: "overlayfs".into(), key: "draft".into() });
}

#[test]
fn whoever_hears_of_a_change_finds_it_done_and_may_use_the_store() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let (ear, seen) = (space.clone(), Arc::new(Mutex::new(0)));
    let count = seen.clone();
    fixture.store.observe(Arc::new(move |_: &Namespace, change: &Change| match change {
        Change::ContentCreated { digest, .. } => {
            // Takes the gate and the digest's lock: a change that was told under either would wait for ever.
            ear.blob(digest).unwrap();
            ear.delete_blob(digest).unwrap();
            ear.store().collect(&mut |_| ()).unwrap();
        }
        _ => *count.lock().unwrap() += 1,
    }));
    let digest = put(&space, b"bytes");
    assert_eq!(space.blob(&digest).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(*seen.lock().unwrap(), 1, "the deletion was told too");
    // The observer holds the store, and the store the observer.
    fixture.store.observe(Arc::new(|_: &Namespace, _: &Change| ()));
}
