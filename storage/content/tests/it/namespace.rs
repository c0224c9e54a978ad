//! Namespaces: recorded when written to, deleted when empty.

use storage_content::{ErrorKind, Expected, ImageRecord, LabelChange, NewSnapshot};
use storage_model::{Digest, Labels, Namespace};

use crate::support::{Fixture, descriptor, labels, names, put};

#[test]
fn a_namespace_is_recorded_when_something_is_written_in_it() {
    let fixture = Fixture::new();
    let name: Namespace = "k8s.io".parse().unwrap();
    let space = fixture.store.space(&name);
    assert!(space.images().unwrap().is_empty());
    assert_eq!(fixture.store.namespace(&name).unwrap_err().kind(), ErrorKind::NotFound);
    put(&space, b"x");
    assert_eq!(fixture.store.namespaces().unwrap()[0].name, name);
    let error = fixture.store.create_namespace(&name, Labels::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
}

#[test]
fn a_namespace_that_is_not_empty_is_kept_and_what_is_left_is_named() {
    let fixture = Fixture::new();
    let name: Namespace = "a".parse().unwrap();
    let space = fixture.store.space(&name);
    let digest = put(&space, b"x");
    space.create_image(ImageRecord::new("i", descriptor(digest), Labels::new())).unwrap();
    space.snapshots("overlayfs").insert(NewSnapshot::Active, "k", None, Labels::new()).unwrap();
    let error = fixture.store.delete_namespace(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.to_string().contains("1 image, 1 blob, 1 snapshot"), "{error}");
    space.delete_image("i").unwrap();
    space.delete_blob(&digest).unwrap();
    space.snapshots("overlayfs").remove("k").unwrap();
    space.create_lease(None, Labels::new()).unwrap();
    let ingest = space.ingest("ref", Expected::default()).unwrap();
    assert!(fixture.store.delete_namespace(&name).unwrap_err().to_string().contains("being written"));
    drop(ingest);
    fixture.store.delete_namespace(&name).unwrap();
    assert_eq!(fixture.store.delete_namespace(&name).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(space.leases().unwrap().is_empty());
    assert!(names(&fixture.root().join("ingests")).is_empty());
    put(&space, b"y");
    assert_eq!(fixture.store.namespaces().unwrap().len(), 1, "it is recorded again when written to again");
}

#[test]
fn a_namespace_whose_name_begins_like_another_is_not_mistaken_for_it() {
    let fixture = Fixture::new();
    let (short, long) = ("a".parse().unwrap(), "a-b".parse().unwrap());
    put(&fixture.store.space(&long), b"x");
    fixture.store.create_namespace(&short, Labels::new()).unwrap();
    fixture.store.delete_namespace(&short).unwrap();
    fixture.store.space(&long).blob(&Digest::of(b"x")).unwrap();
}

#[test]
fn the_labels_of_a_namespace_are_changed_and_survive() {
    let fixture = Fixture::new();
    let name = "a".parse().unwrap();
    fixture.store.create_namespace(&name, labels(&[("x", "1")])).unwrap();
    fixture.store.update_namespace(&name, &LabelChange::set("y", "2")).unwrap();
    let fixture = fixture.reopened(|_| ());
    assert_eq!(fixture.store.namespace(&name).unwrap().labels, labels(&[("x", "1"), ("y", "2")]));
}
