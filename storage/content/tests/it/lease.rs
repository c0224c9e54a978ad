//! Leases: what is created through one joins it in the same step.

use storage_content::{EPHEMERAL_LABEL, ErrorKind, Expected, LeaseId, NewSnapshot, Resource, Usage};
use storage_model::{Digest, Labels};

use crate::support::{Fixture, labels, put};

#[test]
fn what_is_created_through_a_lease_joins_it() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let lease = space.create_lease(None, Labels::new()).unwrap();
    let leased = space.leased(&lease.id);
    let ingest = leased.ingest("ref", Expected::default()).unwrap();
    assert_eq!(space.resources(&lease.id).unwrap(), [Resource::ingest("ref")]);
    let digest = ingest.commit(Expected::default(), Labels::new()).unwrap();
    let table = leased.snapshots("overlayfs");
    table.insert(NewSnapshot::Active, "active", None, Labels::new()).unwrap();
    table.commit("active", "done", None, Usage::default(), Labels::new()).unwrap();
    let expected = [Resource::content(&digest), Resource::snapshot("overlayfs", "done")];
    assert_eq!(space.resources(&lease.id).unwrap(), expected);
}

#[test]
fn what_was_there_already_joins_the_lease_of_who_asks_for_it() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let digest = put(&space, b"here");
    let lease = space.create_lease(None, Labels::new()).unwrap();
    let leased = space.leased(&lease.id);
    leased.ingest("ref", Expected { digest: Some(digest), size: None }).unwrap_err();
    assert_eq!(space.resources(&lease.id).unwrap(), [Resource::content(&digest)]);
    space.snapshots("s").insert(NewSnapshot::View, "v", None, Labels::new()).unwrap();
    leased.snapshots("s").pin("v").unwrap();
    assert!(space.resources(&lease.id).unwrap().contains(&Resource::snapshot("s", "v")));
    assert_eq!(leased.pin_blob(&Digest::of(b"absent")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn nothing_is_created_through_a_lease_that_is_gone() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let gone = space.leased(&"gone".parse().unwrap());
    assert_eq!(gone.ingest("ref", Expected::default()).unwrap_err().kind(), ErrorKind::NotFound);
    let error = gone.snapshots("s").insert(NewSnapshot::Active, "k", None, Labels::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(space.snapshots("s").get("k").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_lease_is_made_listed_and_ended_by_name() {
    let fixture = Fixture::new();
    let space = fixture.space();
    // containerd's clients make such names of random bytes.
    let id: LeaseId = "570632564--gp_".parse().unwrap();
    let lease = space.create_lease(Some(id.clone()), labels(&[("a", "b")])).unwrap();
    let error = space.create_lease(Some(id.clone()), Labels::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(space.leases().unwrap(), [lease]);
    for resource in [Resource::image("i"), Resource::parse("snapshots/overlayfs", "a b/c").unwrap()] {
        space.add_resource(&id, &resource).unwrap();
        space.add_resource(&id, &resource).unwrap();
    }
    space.delete_resource(&id, &Resource::image("i")).unwrap();
    assert_eq!(space.resources(&id).unwrap(), [Resource::snapshot("overlayfs", "a b/c")]);
    space.delete_lease(&id).unwrap();
    assert_eq!(space.resources(&id).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(space.delete_lease(&id).unwrap_err().kind(), ErrorKind::NotFound);
    space.create_lease(Some(id.clone()), Labels::new()).unwrap();
    assert!(space.resources(&id).unwrap().is_empty(), "a new lease of that name keeps nothing");
}

#[test]
fn kinds_of_resources_that_are_unknown_are_refused() {
    let digest = Digest::of(b"x").to_string();
    for (kind, id) in
        [("content", "x"), ("snapshots/", "a"), ("snapshots", "a"), ("mounts", "a"), ("images", "")]
    {
        assert_eq!(Resource::parse(kind, id).unwrap_err().kind(), ErrorKind::InvalidArgument, "{kind} {id}");
    }
    for (kind, id) in [("content", digest.as_str()), ("ingests", "a"), ("images", "a"), ("snapshots/x", "a")]
    {
        assert_eq!(Resource::parse(kind, id).unwrap().kind.to_string(), kind);
    }
}

#[test]
fn an_ephemeral_lease_ends_with_the_process_and_others_do_not() {
    let fixture = Fixture::new();
    let space = fixture.space();
    space.create_lease(Some("mine".parse().unwrap()), labels(&[(EPHEMERAL_LABEL, "1")])).unwrap();
    space.create_lease(Some("theirs".parse().unwrap()), Labels::new()).unwrap();
    drop(space);
    let fixture = fixture.reopened(|_| ());
    assert_eq!(fixture.store.recovery().ended_leases, 1);
    let left: Vec<_> =
        fixture.space().leases().unwrap().into_iter().map(|lease| lease.id.to_string()).collect();
    assert_eq!(left, ["theirs"]);
}
