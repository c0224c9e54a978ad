//! Ingests: one writer, resumable, and nothing is a blob before it is verified.

use std::io::Read as _;

use storage_content::{ErrorKind, Expected, StoreError};
use storage_model::{Digest, Labels};

use crate::support::{Fixture, digests, labels, names, put};

fn expecting(bytes: &[u8]) -> Expected {
    Expected::exactly(Digest::of(bytes), bytes.len() as u64)
}

#[test]
fn a_blob_with_the_wrong_digest_is_never_visible_and_its_ingest_stays() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let mut ingest = space.ingest("ref", Expected::default()).unwrap();
    ingest.write(b"other bytes").unwrap();
    let wanted = Digest::of(b"the bytes");
    let error = ingest.commit(Expected { digest: Some(wanted), size: None }, Labels::new()).unwrap_err();
    assert!(matches!(error, StoreError::DigestMismatch { expected, .. } if expected == wanted));
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(digests(&space).is_empty());
    assert!(names(&fixture.root().join("blobs/sha256")).is_empty());
    assert_eq!(space.ingest("ref", Expected::default()).unwrap().offset(), 11);
}

#[test]
fn a_blob_of_another_size_than_announced_is_refused_as_early_as_it_shows() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let mut ingest = space.ingest("ref", Expected { digest: None, size: Some(4) }).unwrap();
    ingest.write(b"abc").unwrap();
    let error = ingest.write(b"de").unwrap_err();
    assert!(matches!(error, StoreError::SizeMismatch { expected: 4, actual: 5, .. }), "{error}");
    assert_eq!(ingest.offset(), 3, "nothing of the write counts");
    let error = ingest.commit(Expected::default(), Labels::new()).unwrap_err();
    assert!(matches!(error, StoreError::SizeMismatch { expected: 4, actual: 3, .. }), "{error}");
}

#[test]
fn a_second_writer_of_one_reference_is_turned_away_until_the_first_lets_go() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let ingest = space.ingest("ref", Expected::default()).unwrap();
    assert_eq!(space.ingest("ref", Expected::default()).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(space.abort_ingest("ref").unwrap_err().kind(), ErrorKind::Unavailable);
    let elsewhere = fixture.store.space(&"other".parse().unwrap());
    elsewhere.ingest("ref", Expected::default()).unwrap();
    drop(ingest);
    space.ingest("ref", Expected::default()).unwrap();
}

#[test]
fn a_dropped_ingest_goes_on_where_it_was_with_its_start_and_its_digest() {
    let fixture = Fixture::new();
    let mut ingest = fixture.space().ingest("ref", expecting(b"hello world")).unwrap();
    ingest.write(b"hello ").unwrap();
    let before = ingest.status();
    drop(ingest);
    let fixture = fixture.reopened(|_| ());
    let mut ingest = fixture.space().ingest("ref", Expected::default()).unwrap();
    assert_eq!((ingest.offset(), ingest.resumed_bytes()), (6, 6));
    assert_eq!(ingest.status().started, before.started);
    assert_eq!(ingest.expected(), expecting(b"hello world"), "what was expected is remembered");
    assert_eq!(ingest.digest(), Digest::of(b"hello "));
    let mut prefix = Vec::new();
    ingest.reader().unwrap().read_to_end(&mut prefix).unwrap();
    assert_eq!(prefix, b"hello ");
    ingest.write(b"world").unwrap();
    assert_eq!(ingest.commit(Expected::default(), Labels::new()).unwrap(), Digest::of(b"hello world"));
    assert!(names(&fixture.root().join("ingests")).is_empty());
}

#[test]
fn damage_to_a_resumed_prefix_is_noticed_because_it_is_hashed_again() {
    let fixture = Fixture::new();
    let mut ingest = fixture.space().ingest("ref", expecting(b"hello world")).unwrap();
    ingest.write(b"hello ").unwrap();
    drop(ingest);
    let fixture = fixture.reopened(|root| {
        let directory = root.join("ingests").read_dir().unwrap().next().unwrap().unwrap().path();
        std::fs::write(directory.join("data"), b"jello ").unwrap();
    });
    let mut ingest = fixture.space().ingest("ref", Expected::default()).unwrap();
    ingest.write(b"world").unwrap();
    let error = ingest.commit(Expected::default(), Labels::new()).unwrap_err();
    assert!(matches!(error, StoreError::DigestMismatch { .. }));
    let mut ingest = fixture.space().ingest("ref", Expected::default()).unwrap();
    assert!(ingest.resumed_bytes() > 0, "a caller can tell that another attempt from 0 is worth it");
    ingest.truncate(0).unwrap();
    ingest.write(b"hello world").unwrap();
    ingest.commit(Expected::default(), Labels::new()).unwrap();
}

#[test]
fn cutting_an_ingest_cuts_its_digest_too_and_it_cannot_be_cut_behind_its_end() {
    let fixture = Fixture::new();
    let mut ingest = fixture.space().ingest("ref", Expected::default()).unwrap();
    ingest.write(b"0123456789").unwrap();
    assert_eq!(ingest.truncate(11).unwrap_err().kind(), ErrorKind::OutOfRange);
    for size in [10, 7, 0] {
        ingest.truncate(size).unwrap();
        assert_eq!(ingest.offset(), size);
        assert_eq!(ingest.digest(), Digest::of(&b"0123456789"[..usize::try_from(size).unwrap()]));
    }
}

#[test]
fn a_known_blob_is_not_ingested_again() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let digest = put(&space, b"known");
    let error = space.ingest("ref", Expected { digest: Some(digest), size: None }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let mut ingest = space.ingest("ref", Expected::default()).unwrap();
    ingest.write(b"known").unwrap();
    let error = ingest.commit(Expected::default(), labels(&[("new", "1")])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(space.blob(&digest).unwrap().labels, Labels::new(), "the first one's labels stay");
    assert!(space.ingests().unwrap().is_empty(), "the reference is clean");
}

#[test]
fn ingests_are_listed_and_aborted_by_reference() {
    let fixture = Fixture::new();
    let space = fixture.space();
    for (reference, bytes) in [("layer sha256:1/../x", &b"aa"[..]), ("b", b"bbb")] {
        space.ingest(reference, Expected::default()).unwrap().write(bytes).unwrap();
    }
    let mut found: Vec<_> =
        space.ingests().unwrap().into_iter().map(|one| (one.reference, one.offset)).collect();
    found.sort();
    assert_eq!(found, [("b".to_owned(), 3), ("layer sha256:1/../x".to_owned(), 2)]);
    assert_eq!(space.ingest_status("b").unwrap().offset, 3);
    space.abort_ingest("b").unwrap();
    assert_eq!(space.ingest_status("b").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(space.abort_ingest("b").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(space.ingest("", Expected::default()).unwrap_err().kind(), ErrorKind::InvalidArgument);
}
