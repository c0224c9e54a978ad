//! Blobs: whole or absent, once on disk, one record per namespace.

use std::io::Read as _;

use storage_content::{ErrorKind, Expected, LabelChange};
use storage_model::{Digest, Labels};

use crate::support::{Fixture, digests, labels, put, put_labelled};

#[test]
fn a_committed_blob_is_read_back_with_its_labels_and_survives_reopening() {
    let fixture = Fixture::new();
    let digest = put_labelled(&fixture.space(), b"content", labels(&[("a", "b")]));
    let fixture = fixture.reopened(|_| ());
    let info = fixture.space().blob(&digest).unwrap();
    assert_eq!((info.size, info.labels), (7, labels(&[("a", "b")])));
    assert_eq!(info.created, info.updated);
    let mut bytes = Vec::new();
    fixture.space().open_blob(&digest).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"content");
}

#[test]
fn the_empty_blob_is_a_blob() {
    let fixture = Fixture::new();
    let digest = put(&fixture.space(), b"");
    assert_eq!(fixture.space().blob(&digest).unwrap().size, 0);
}

#[test]
fn a_namespace_does_not_see_what_another_has_until_it_asks_to_ingest_it() {
    let fixture = Fixture::new();
    let other = fixture.store.space(&"other".parse().unwrap());
    let digest = put_labelled(&fixture.space(), b"shared", labels(&[("mine", "1")]));
    assert_eq!(other.blob(&digest).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(other.open_blob(&digest).unwrap_err().kind(), ErrorKind::NotFound);
    let error = other.ingest("ref", Expected::exactly(digest, 6)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(other.blob(&digest).unwrap().labels, Labels::new(), "labels are not shared");
    assert!(other.ingests().unwrap().is_empty());
}

#[test]
fn the_bytes_stay_until_the_last_namespace_deletes_them() {
    let fixture = Fixture::new();
    let other = fixture.store.space(&"other".parse().unwrap());
    let digest = put(&fixture.space(), b"shared");
    assert!(put_again(&other, b"shared"), "the same bytes come in a second time");
    fixture.space().delete_blob(&digest).unwrap();
    assert!(fixture.blob_file(&digest).exists());
    other.open_blob(&digest).unwrap();
    other.delete_blob(&digest).unwrap();
    assert!(!fixture.blob_file(&digest).exists());
    assert_eq!(other.delete_blob(&digest).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(digests(&other).is_empty());
}

fn put_again(space: &storage_content::Space, bytes: &[u8]) -> bool {
    let mut ingest = space.ingest("again", Expected::default()).unwrap();
    ingest.write(bytes).unwrap();
    ingest.commit(Expected::default(), Labels::new()).unwrap() == Digest::of(bytes)
}

#[test]
fn an_open_blob_stays_readable_when_it_is_deleted() {
    let fixture = Fixture::new();
    let digest = put(&fixture.space(), b"going");
    let mut file = fixture.space().open_blob(&digest).unwrap();
    fixture.space().delete_blob(&digest).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"going");
}

#[test]
fn labels_are_patched_replaced_and_refused_when_too_long() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let digest = put_labelled(&space, b"x", labels(&[("a", "1"), ("b", "2")]));
    let born = space.blob(&digest).unwrap().updated;
    let info = space.set_blob_labels(&digest, LabelChange::set("a", "9")).unwrap();
    assert_eq!(info.labels, labels(&[("a", "9"), ("b", "2")]));
    assert!(info.updated > born);
    let error = space.set_blob_labels(&digest, LabelChange::set("k", "v".repeat(5000))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let info = space.set_blob_labels(&digest, LabelChange::Replace(labels(&[("c", "3")]))).unwrap();
    assert_eq!(info.labels, labels(&[("c", "3")]));
    assert_eq!(space.blob(&digest).unwrap(), info);
}
