//! Bringing a damaged blob back, and putting one aside.

use std::io::Read as _;

use storage_content::{ErrorKind, ImageRecord, Space, StoreError};
use storage_model::{Digest, Labels};

use crate::support::{Fixture, descriptor, labels, names, put, put_labelled};

fn read(space: &Space, digest: &Digest) -> Vec<u8> {
    let mut bytes = Vec::new();
    space.open_blob(digest).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_damaged_blob_comes_back_under_its_records_and_labels() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let digest = put_labelled(&space, b"as it was", labels(&[("containerd.io/gc.root", "1")]));
    let before = space.blob(&digest).unwrap();
    for damage in [Some(&b"AS IT WAS"[..]), Some(b"short"), None] {
        match damage {
            Some(bytes) => std::fs::write(fixture.blob_file(&digest), bytes).unwrap(),
            None => std::fs::remove_file(fixture.blob_file(&digest)).unwrap(),
        }
        let mut repair = fixture.store.begin_blob_repair(&digest).unwrap();
        assert_eq!(repair.size(), 9);
        repair.write(b"as it").unwrap();
        repair.write(b" was").unwrap();
        repair.commit().unwrap();
        assert_eq!(read(&space, &digest), b"as it was");
        assert_eq!(space.blob(&digest).unwrap(), before);
    }
    assert!(names(&fixture.root().join("ingests")).is_empty());
}

#[test]
fn wrong_bytes_repair_nothing_and_leave_nothing() {
    let fixture = Fixture::new();
    let digest = put(&fixture.space(), b"right");
    std::fs::write(fixture.blob_file(&digest), b"wrung").unwrap();
    let mut repair = fixture.store.begin_blob_repair(&digest).unwrap();
    repair.write(b"wrong").unwrap();
    assert!(matches!(repair.write(b"!"), Err(StoreError::SizeMismatch { expected: 5, .. })));
    assert!(matches!(repair.commit(), Err(StoreError::DigestMismatch { .. })));
    let mut abandoned = fixture.store.begin_blob_repair(&digest).unwrap();
    abandoned.write(b"ri").unwrap();
    drop(abandoned);
    assert_eq!(read(&fixture.space(), &digest), b"wrung");
    assert!(names(&fixture.root().join("ingests")).is_empty());
}

#[test]
fn a_repair_that_was_killed_is_taken_away_by_the_next_start_and_is_no_ingest_before() {
    let fixture = Fixture::new();
    let digest = put(&fixture.space(), b"right");
    let mut repair = fixture.store.begin_blob_repair(&digest).unwrap();
    repair.write(b"ri").unwrap();
    assert!(fixture.space().ingests().unwrap().is_empty());
    let draft = fixture.root().join("ingests").join(&names(&fixture.root().join("ingests"))[0]);
    drop(repair);
    let fixture = fixture.reopened(|_| std::fs::write(draft, b"ri").unwrap());
    assert!(names(&fixture.root().join("ingests")).is_empty());
    assert_eq!(fixture.store.recovery().discarded_ingests, 1);
}

#[test]
fn a_blob_that_nobody_has_cannot_be_repaired_nor_put_aside() {
    let fixture = Fixture::new();
    let digest = put(&fixture.space(), b"soon gone");
    let mut repair = fixture.store.begin_blob_repair(&digest).unwrap();
    repair.write(b"soon gone").unwrap();
    fixture.space().delete_blob(&digest).unwrap();
    assert_eq!(repair.commit().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fixture.store.begin_blob_repair(&digest).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fixture.store.quarantine_blob(&digest).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!fixture.blob_file(&digest).exists());
}

#[test]
fn a_blob_put_aside_is_gone_in_every_namespace_lies_in_quarantine_and_can_come_again() {
    let fixture = Fixture::new();
    let (space, other) = (fixture.space(), fixture.store.space(&"other".parse().unwrap()));
    let digest = put(&space, b"bytes");
    put_other(&other, &digest);
    space.create_image(ImageRecord::new("i", descriptor(digest), Labels::new())).unwrap();
    std::fs::write(fixture.blob_file(&digest), b"BYTES").unwrap();
    let quarantined = fixture.store.quarantine_blob(&digest).unwrap();
    assert_eq!((quarantined.expected_bytes, quarantined.found_bytes), (5, Some(5)));
    assert_eq!(quarantined.namespaces.len(), 2);
    assert!(space.blob(&digest).is_err() && other.blob(&digest).is_err());
    assert_eq!(names(&fixture.root().join("quarantine")), [digest.hex()]);
    space.image("i").unwrap();
    drop((space, other));
    let fixture = fixture.reopened(|_| ());
    assert!(fixture.store.recovery().is_clean(), "{:?}", fixture.store.recovery());
    assert_eq!(put(&fixture.space(), b"bytes"), digest);
    assert_eq!(read(&fixture.space(), &digest), b"bytes");
    fixture.store.empty_quarantine().unwrap();
    assert!(names(&fixture.root().join("quarantine")).is_empty());
}

fn put_other(space: &Space, digest: &Digest) {
    let expected = storage_content::Expected { digest: Some(*digest), size: None };
    space.ingest("ref", expected).unwrap_err();
}
