//! Every state a crash can leave, made by hand: what the next start does with it.

use storage_content::{ErrorKind, Expected, ImageRecord};
use storage_model::{Digest, Labels};

use crate::support::{Fixture, descriptor, digests, names, put};

#[test]
fn vuln_b2_a_blob_whose_file_is_gone_is_quarantined_in_every_namespace_and_can_come_again() {
    let fixture = Fixture::new();
    let other = fixture.store.space(&"other".parse().unwrap());
    let lost = put(&fixture.space(), b"lost");
    let kept = put(&fixture.space(), b"kept");
    other.ingest("ref", Expected { digest: Some(lost), size: None }).unwrap_err();
    drop(other);
    let file = fixture.blob_file(&lost);
    let fixture = fixture.reopened(|_| std::fs::remove_file(file).unwrap());
    let found = &fixture.store.recovery().quarantined;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].digest, found[0].expected_bytes, found[0].found_bytes), (lost, 4, None));
    assert_eq!(found[0].namespaces.len(), 2);
    assert_eq!(digests(&fixture.space()), [kept]);
    assert_eq!(put(&fixture.space(), b"lost"), lost);
    let fixture = fixture.reopened(|_| ());
    assert!(fixture.store.recovery().is_clean());
}

#[test]
fn a_blob_whose_file_has_another_size_is_quarantined_and_its_file_taken_away() {
    let fixture = Fixture::new();
    let digest = put(&fixture.space(), b"whole");
    let file = fixture.blob_file(&digest);
    let fixture = fixture.reopened(|_| std::fs::write(&file, b"who").unwrap());
    assert_eq!(fixture.store.recovery().quarantined[0].found_bytes, Some(3));
    assert_eq!(fixture.space().open_blob(&digest).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!fixture.blob_file(&digest).exists());
}

#[test]
fn vuln_b2_a_blob_that_was_renamed_but_not_recorded_goes_back_to_its_ingest_and_is_hashed_again() {
    let fixture = Fixture::new();
    let digest = Digest::of(b"finished");
    let mut ingest = fixture.space().ingest("ref", Expected::exactly(digest, 8)).unwrap();
    ingest.write(b"finished").unwrap();
    drop(ingest);
    let target = fixture.blob_file(&digest);
    let fixture = fixture.reopened(|root| {
        let directory = root.join("ingests").read_dir().unwrap().next().unwrap().unwrap().path();
        std::fs::rename(directory.join("data"), &target).unwrap();
    });
    assert_eq!(fixture.store.recovery().resumed_blobs, 1);
    assert!(digests(&fixture.space()).is_empty(), "it is no blob until it was hashed");
    let ingest = fixture.space().ingest("ref", Expected::exactly(digest, 8)).unwrap();
    assert_eq!(ingest.offset(), 8);
    ingest.commit(Expected::default(), Labels::new()).unwrap();
}

#[test]
fn files_that_belong_to_nobody_are_taken_away() {
    let fixture = Fixture::new();
    let kept = put(&fixture.space(), b"kept");
    let fixture = fixture.reopened(|root| {
        let orphan = Digest::of(b"orphan").hex();
        std::fs::write(root.join("blobs/sha256").join(orphan), b"orphan").unwrap();
        std::fs::write(root.join("blobs/sha256/README"), b"?").unwrap();
        std::fs::create_dir(root.join("ingests/half-made")).unwrap();
        std::fs::create_dir(root.join("trash/1-0")).unwrap();
        std::fs::write(root.join("trash/1-0/rest"), b"?").unwrap();
    });
    let recovery = fixture.store.recovery();
    assert_eq!((recovery.discarded_blobs, recovery.discarded_ingests), (2, 1));
    assert_eq!(names(&fixture.root().join("blobs/sha256")), [kept.hex()]);
    assert!(names(&fixture.root().join("ingests")).is_empty());
    fixture.store.collect(&mut |_| ()).unwrap();
    assert!(names(&fixture.root().join("trash")).is_empty());
}

#[test]
fn after_a_loss_of_records_a_file_without_one_is_there_to_be_fetched_until_the_next_collection() {
    let fixture = Fixture::new();
    let kept = put(&fixture.space(), b"kept");
    fixture.space().create_image(ImageRecord::new("a", descriptor(kept), Labels::new())).unwrap();
    let [again, interrupted, stray] = [&b"again"[..], b"interrupted", b"stray"].map(Digest::of);
    let mut ingest = fixture.space().ingest("ref", Expected::exactly(interrupted, 11)).unwrap();
    ingest.write(b"interrupted").unwrap();
    drop(ingest);
    let fixture = fixture.reopened(|root| {
        let blobs = root.join("blobs/sha256");
        std::fs::write(blobs.join(again.hex()), b"again").unwrap();
        std::fs::write(blobs.join(stray.hex()), b"stray").unwrap();
        let directory = root.join("ingests").read_dir().unwrap().next().unwrap().unwrap().path();
        std::fs::rename(directory.join("data"), blobs.join(interrupted.hex())).unwrap();
        std::fs::write(root.join("metadata.rebuild"), b"").unwrap();
    });
    let recovery = fixture.store.recovery();
    assert_eq!((recovery.rebuilt, recovery.resumed_blobs, recovery.discarded_blobs), (true, 1, 0));
    let ingest = fixture.space().ingest("again", Expected::exactly(again, 5)).unwrap();
    assert_eq!(ingest.offset(), 5, "it need not be fetched");
    drop(ingest);
    assert_eq!(fixture.space().ingest_status("ref").unwrap().offset, 11);
    fixture.store.collect(&mut |_| ()).unwrap();
    assert_eq!(names(&fixture.root().join("blobs/sha256")), [kept.hex()]);
    assert_eq!(fixture.space().ingests().unwrap().len(), 2);
}

#[test]
fn an_ingest_whose_facts_are_torn_is_dropped_and_its_reference_is_free() {
    let fixture = Fixture::new();
    fixture.space().ingest("ref", Expected::default()).unwrap().write(b"abc").unwrap();
    let fixture = fixture.reopened(|root| {
        let directory = root.join("ingests").read_dir().unwrap().next().unwrap().unwrap().path();
        std::fs::write(directory.join("info"), b"{\"namesp").unwrap();
    });
    assert_eq!(fixture.store.recovery().discarded_ingests, 1);
    assert_eq!(fixture.space().ingest("ref", Expected::default()).unwrap().offset(), 0);
}

#[test]
fn an_ingest_directory_that_says_it_is_another_one_is_dropped() {
    let fixture = Fixture::new();
    fixture.space().ingest("ref", Expected::default()).unwrap();
    let fixture = fixture.reopened(|root| {
        let directory = root.join("ingests").read_dir().unwrap().next().unwrap().unwrap().path();
        std::fs::rename(&directory, directory.with_file_name(Digest::of(b"x").hex())).unwrap();
    });
    assert_eq!(fixture.store.recovery().discarded_ingests, 1);
}

#[test]
fn vuln_b2_a_blob_that_is_lost_while_the_store_is_open_is_said_to_be_and_can_be_fetched_again() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let digest = put(&space, b"here today");
    for damage in [None, Some(&b"gone"[..])] {
        let file = fixture.blob_file(&digest);
        match damage {
            None => std::fs::remove_file(&file).unwrap(),
            Some(bytes) => std::fs::write(&file, bytes).unwrap(),
        }
        assert_eq!(space.open_blob(&digest).unwrap_err().kind(), ErrorKind::DataLoss);
        let mut ingest = space.ingest("again", Expected::exactly(digest, 10)).unwrap();
        assert_eq!(ingest.offset(), 0);
        ingest.write(b"here today").unwrap();
        ingest.commit(Expected::default(), Labels::new()).unwrap();
        space.open_blob(&digest).unwrap();
    }
}
