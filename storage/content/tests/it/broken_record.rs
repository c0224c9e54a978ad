//! B7: one record that cannot be read. It is missing from its list and named by a check; nothing else notices.
//!
//! RocksDB's checksums were right when these bytes were written, so the damage is made as a fault of ours would make it.

use std::ops::ControlFlow;

use rocksdb::{ColumnFamilyDescriptor, DB, Options};
use storage_content::{
    CheckEvent, CheckOptions, ErrorKind, ImageRecord, NewSnapshot, Problem, RecordRepair, Suspect, Thing,
    Usage,
};
use storage_model::{Digest, Labels};

use crate::support::{Fixture, container, descriptor, digests, labels, put, put_labelled};

/// Changes the value of the first row of a table whose key contains `part`.
fn spoil(fixture: Fixture, table: &str, part: &[u8], value: &[u8]) -> Fixture {
    fixture.reopened(|root| {
        let path = root.join("metadata");
        let names = DB::list_cf(&Options::default(), &path).unwrap();
        let families = names.iter().map(|name| ColumnFamilyDescriptor::new(name, Options::default()));
        let db = DB::open_cf_descriptors(&Options::default(), &path, families).unwrap();
        let family = db.cf_handle(table).unwrap();
        let rows = db.iterator_cf(family, rocksdb::IteratorMode::Start).map(|row| row.unwrap().0);
        let key = rows
            .into_iter()
            .find(|key| part.is_empty() || key.windows(part.len()).any(|window| window == part))
            .unwrap();
        db.put_cf(family, key, value).unwrap();
    })
}

const GARBAGE: &[u8] = b"\x01{\"labels\": ";

/// An image with a layer, a snapshot, a container, a lease; and one of each that is nobody's.
fn furnished() -> Fixture {
    let fixture = Fixture::new();
    for name in ["default", "other"] {
        let space = fixture.store.space(&name.parse().unwrap());
        let layer = put(&space, b"layer");
        let manifest = put_labelled(
            &space,
            b"manifest",
            labels(&[("containerd.io/gc.ref.content.l.0", &layer.to_string())]),
        );
        put(&space, b"stray");
        space.create_image(ImageRecord::new("a", descriptor(manifest), Labels::new())).unwrap();
        space.create_image(ImageRecord::new("b", descriptor(manifest), Labels::new())).unwrap();
        let table = space.snapshots("overlayfs");
        table.insert(NewSnapshot::Active, "draft", None, Labels::new()).unwrap();
        table.commit("draft", "base", None, Usage::default(), Labels::new()).unwrap();
        table.insert(NewSnapshot::Active, "rw", Some("base"), Labels::new()).unwrap();
        space.put_container(container("c", "rw")).unwrap();
        space.put_container(container("d", "rw")).unwrap();
        space.create_lease(Some("l".parse().unwrap()), Labels::new()).unwrap();
        space.create_lease(Some("m".parse().unwrap()), Labels::new()).unwrap();
    }
    fixture
}

/// Number of images, blobs, snapshots, containers, leases that the lists show.
fn counts(fixture: &Fixture) -> [usize; 5] {
    let space = fixture.space();
    let mut snapshots = 0;
    space
        .snapshots("overlayfs")
        .walk(&mut |_| {
            snapshots += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    let (images, leases) = (space.images().unwrap().len(), space.leases().unwrap().len());
    [images, digests(&space).len(), snapshots, space.containers().unwrap().len(), leases]
}

fn suspects(fixture: &Fixture) -> Vec<Suspect> {
    let mut found = Vec::new();
    fixture
        .store
        .check(&CheckOptions::default(), &mut |event| {
            if let CheckEvent::Found(finding) = event {
                assert!(!matches!(finding.problem, Problem::Unreadable(_)), "{finding:?}");
                found.push(finding.suspect);
            }
        })
        .unwrap();
    found
}

#[test]
fn vuln_b7_one_broken_record_hides_nothing_else_and_stops_no_command() {
    let cases = [
        ("images", &b"default\0a"[..], [1, 3, 2, 2, 2]),
        ("blobs", b"default\0", [2, 2, 2, 2, 2]),
        ("snapshots", b"default\0overlayfs\0p\0rw", [2, 3, 1, 2, 2]),
        ("containers", b"default\0c", [2, 3, 2, 1, 2]),
        ("leases", b"default\0l", [2, 3, 2, 2, 1]),
    ];
    for (table, row, expected) in cases {
        let fixture = spoil(furnished(), table, row, GARBAGE);
        assert_eq!(counts(&fixture), expected, "{table}");
        assert_eq!(fixture.store.namespaces().unwrap().len(), 2);
        fixture.store.disk_usage().unwrap();
        let named = suspects(&fixture);
        let is_named = |one: &Suspect| matches!(one, Suspect::Record { table: found, .. } if *found == table);
        assert!(named.iter().any(is_named), "{table}: {named:?}");
        // What the record kept is unknown: nothing of its namespace goes, what nobody keeps elsewhere does.
        let plan = fixture.store.plan().unwrap();
        let other = fixture.store.space(&"other".parse().unwrap());
        assert!(plan.doomed.iter().all(|one| one.namespace == *other.namespace()), "{table}: {plan:?}");
        assert_eq!(fixture.store.collect(&mut |_| ()).unwrap().blobs, 1, "{table}");
        assert_eq!(counts(&fixture), expected, "{table}");
        put(&fixture.space(), b"goes on");
        // After the repair everything is as always.
        let repair = fixture.store.repair_records().unwrap();
        assert_eq!(repair.dropped, 1, "{table}: {repair:?}");
        let left = suspects(&fixture);
        assert!(left.iter().all(|one| matches!(one, Suspect::Thing(_))), "{table}: {left:?}");
        assert!(fixture.store.collect(&mut |_| ()).unwrap().blobs > 0, "{table}");
    }
}

#[test]
fn a_broken_record_that_opening_needs_is_dropped_and_made_good() {
    for (table, row) in [("content", &b""[..]), ("meta", b"snapshot-numbers"), ("namespaces", b"default")] {
        let fixture = spoil(furnished(), table, row, GARBAGE);
        let expected = [2, 3, 2, 2, 2];
        assert_eq!(counts(&fixture), expected, "{table}");
        if table != "namespaces" {
            assert!(fixture.store.recovery().rebuilt, "{table}");
            // The images' manifests are no manifests here; nothing else is wrong.
            let found = suspects(&fixture);
            assert!(
                found.iter().all(|one| matches!(one, Suspect::Thing(Thing::Image(_)))),
                "{table}: {found:?}"
            );
        }
        let fresh = fixture.space().snapshots("overlayfs");
        let fresh = fresh.insert(NewSnapshot::Active, "fresh", None, Labels::new()).unwrap();
        assert!(fresh.number > 4, "{table}: number {} was given before", fresh.number);
    }
}

#[test]
fn a_record_of_a_later_version_is_not_dropped() {
    let later = b"\x02{}";
    let fixture = spoil(furnished(), "images", b"default\0a", later);
    let error = fixture.store.repair_records().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss);
    assert_eq!(fixture.space().images().unwrap().len(), 1);
    assert!(fixture.space().why(&Thing::Image("b".into())).unwrap().len() == 1);
}

#[test]
fn counts_and_edges_that_are_wrong_are_found_and_made_right() {
    let layer = Digest::of(b"layer");
    let wrong = b"\x01{\"size\":5,\"holders\":1}";
    let fixture = spoil(furnished(), "content", &layer.as_bytes()[..], wrong);
    let blobs = |fixture: &Fixture| -> Vec<Suspect> {
        suspects(fixture).into_iter().filter(|one| matches!(one, Suspect::Thing(Thing::Blob(_)))).collect()
    };
    assert_eq!(blobs(&fixture), [Suspect::Thing(Thing::Blob(layer))], "two namespaces have it");
    let repair = RecordRepair { dropped: 0, recounted: 1, redrawn: 0 };
    assert_eq!(fixture.store.repair_records().unwrap(), repair);
    assert!(blobs(&fixture).is_empty());
}
