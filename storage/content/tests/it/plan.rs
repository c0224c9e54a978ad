//! Plans: what a collection would remove, with bytes and reasons, and when one is due.

use std::time::{Duration, SystemTime};

use storage_content::{DoomReason, Doomed, Expected, ImageRecord, NewSnapshot, Thing, Usage};
use storage_model::{Labels, Namespace};

use crate::support::{Fixture, descriptor, labels, put, put_labelled};

fn default() -> Namespace {
    "default".parse().unwrap()
}

#[test]
fn a_plan_names_what_goes_with_its_bytes_and_why_and_removes_nothing() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let stray = put(&space, b"stray");
    let target = put(&space, b"the target");
    let past = labels(&[("containerd.io/gc.expire", "2001-01-01T00:00:00Z")]);
    space.create_image(ImageRecord::new("old", descriptor(target), past)).unwrap();
    let table = space.snapshots("overlayfs");
    table.insert(NewSnapshot::Active, "draft", None, Labels::new()).unwrap();
    table.commit("draft", "base", None, Usage { bytes: 4096, inodes: 2 }, Labels::new()).unwrap();
    let plan = fixture.store.plan().unwrap();
    let doomed = |thing, bytes, reason| Doomed { namespace: default(), thing, bytes, reason };
    for expected in [
        doomed(Thing::Blob(stray), 5, DoomReason::Unreferenced),
        doomed(Thing::Blob(target), 10, DoomReason::Unreferenced),
        doomed(Thing::Image("old".into()), 0, DoomReason::Expired),
        doomed(Thing::snapshot("overlayfs", "base"), 4096, DoomReason::Unreferenced),
    ] {
        assert!(plan.doomed.contains(&expected), "{expected:?} is not in {plan:?}");
    }
    assert_eq!((plan.doomed.len(), plan.totals.freed_bytes, plan.totals.snapshot_bytes), (4, 15, 4096));
    space.open_blob(&stray).unwrap();
    assert_eq!(fixture.store.plan().unwrap(), plan);
    assert_eq!(fixture.store.collect_listed(&mut |_| ()).unwrap(), plan);
}

#[test]
fn a_plan_without_an_image_is_what_a_collection_does_after_it_was_deleted() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let layer = put(&space, b"shared layer");
    let reference = labels(&[("containerd.io/gc.ref.content.l.0", &layer.to_string())]);
    let manifests = [b"one".as_slice(), b"two"].map(|bytes| put_labelled(&space, bytes, reference.clone()));
    for (name, manifest) in ["one", "two"].iter().zip(manifests) {
        space.create_image(ImageRecord::new(*name, descriptor(manifest), Labels::new())).unwrap();
    }
    let without = |names: &[&str]| {
        let images: Vec<_> = names.iter().map(|name| (default(), (*name).to_owned())).collect();
        fixture.store.plan_without(&images).unwrap()
    };
    assert_eq!(without(&["one"]).totals.freed_bytes, 3, "the other image keeps the layer");
    let both = without(&["one", "two", "never there"]);
    assert_eq!((both.totals.freed_bytes, both.totals.images), (18, 2));
    assert_eq!(both.doomed[0].reason, DoomReason::LeastUsed, "the images come first");
    space.delete_image("one").unwrap();
    space.delete_image("two").unwrap();
    assert_eq!(fixture.store.collect(&mut |_| ()).unwrap().freed_bytes, 18);
}

#[test]
fn an_ingest_that_is_being_written_is_in_no_plan() {
    let fixture = Fixture::new();
    fixture.space().ingest("ref", Expected::default()).unwrap().write(b"abc").unwrap();
    let fixture = fixture.reopened(|root| crate::support::age_ingests(root, Duration::from_hours(25)));
    let held = fixture.space().ingest("ref", Expected::default()).unwrap();
    assert!(fixture.store.plan().unwrap().doomed.is_empty());
    drop(held);
    let plan = fixture.store.plan().unwrap();
    assert_eq!((plan.totals.ingests, plan.totals.freed_bytes), (1, 3));
    assert_eq!(fixture.store.collect_listed(&mut |_| ()).unwrap(), plan);
}

#[test]
fn the_next_expiry_is_the_earliest_of_leases_images_and_ingests() {
    let fixture = Fixture::new();
    let space = fixture.space();
    assert_eq!(fixture.store.next_expiry().unwrap(), None);
    let begun = SystemTime::now();
    space.ingest("ref", Expected::default()).unwrap();
    let ingest_end = fixture.store.next_expiry().unwrap().unwrap();
    assert!(ingest_end >= begun + Duration::from_hours(24) && ingest_end < begun + Duration::from_hours(25));
    let at = |time: &str| labels(&[("containerd.io/gc.expire", time)]);
    let target = put(&space, b"t");
    space.create_image(ImageRecord::new("i", descriptor(target), at("2001-02-03T00:00:00Z"))).unwrap();
    space.create_lease(None, at("2002-02-03T00:00:00Z")).unwrap();
    space.create_lease(None, at("no time")).unwrap();
    let past = fixture.store.next_expiry().unwrap().unwrap();
    assert_eq!(past, SystemTime::UNIX_EPOCH + Duration::from_secs(981_158_400));
    fixture.store.collect(&mut |_| ()).unwrap();
    assert_eq!(fixture.store.next_expiry().unwrap(), Some(ingest_end));
}

#[test]
fn what_had_expired_and_is_kept_by_something_else_asks_for_no_collection_again() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let lease = space.create_lease(None, Labels::new()).unwrap();
    let past = labels(&[("containerd.io/gc.expire", "2001-01-01T00:00:00Z")]);
    let image = ImageRecord::new("i", descriptor(put(&space, b"t")), past);
    space.leased(&lease.id).create_image(image).unwrap();
    assert!(fixture.store.next_expiry().unwrap().is_some());
    fixture.store.collect(&mut |_| ()).unwrap();
    space.image("i").unwrap();
    assert_eq!(fixture.store.next_expiry().unwrap(), None);
}
