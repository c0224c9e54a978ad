//! Why something is kept: chains from a root, the shortest one each.

use storage_content::{ErrorKind, Expected, ImageRecord, NewSnapshot, Resource, Thing, Usage};
use storage_model::{Digest, Labels};

use crate::support::{Fixture, container, descriptor, labels, put, put_labelled};

#[test]
fn a_layer_is_kept_by_each_image_through_its_manifest_and_by_a_lease() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let layer = put(&space, b"layer");
    let reference = labels(&[("containerd.io/gc.ref.content.l.0", &layer.to_string())]);
    let manifest = put_labelled(&space, b"manifest", reference);
    for name in ["a:1", "b:1"] {
        space.create_image(ImageRecord::new(name, descriptor(manifest), Labels::new())).unwrap();
    }
    let until = labels(&[("containerd.io/gc.expire", "2101-01-01T00:00:00Z")]);
    let lease = space.create_lease(Some("l".parse().unwrap()), until).unwrap();
    space.add_resource(&lease.id, &Resource::content(&layer)).unwrap();
    let chains = space.why(&Thing::Blob(layer)).unwrap();
    let words: Vec<String> = chains.iter().map(|chain| chain.words().join(" > ")).collect();
    assert_eq!(
        words[0],
        format!("lease l (until 2101-01-01T00:00:00Z) > blob {layer}"),
        "the shortest first"
    );
    for name in ["a:1", "b:1"] {
        assert!(words.contains(&format!("image {name} > blob {manifest} > blob {layer}")), "{words:?}");
    }
    assert_eq!(words.len(), 3);
}

#[test]
fn what_nothing_keeps_has_no_chain_and_what_is_not_there_is_not_found() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let stray = put(&space, b"stray");
    assert!(space.why(&Thing::Blob(stray)).unwrap().is_empty());
    let error = space.why(&Thing::Blob(Digest::of(b"never"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let other = fixture.store.space(&"other".parse().unwrap());
    assert!(other.why(&Thing::Blob(stray)).unwrap_err().is_not_found(), "another namespace's is not seen");
}

#[test]
fn a_flat_lease_is_a_reason_for_what_it_lists_and_for_nothing_below() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let leaf = put(&space, b"leaf");
    let top = put_labelled(&space, b"top", labels(&[("containerd.io/gc.ref.content", &leaf.to_string())]));
    let flat = labels(&[("containerd.io/gc.flat", "")]);
    let lease = space.create_lease(None, flat).unwrap();
    space.add_resource(&lease.id, &Resource::content(&top)).unwrap();
    assert_eq!(space.why(&Thing::Blob(top)).unwrap().len(), 1);
    assert!(space.why(&Thing::Blob(leaf)).unwrap().is_empty());
}

#[test]
fn roots_containers_ingests_and_parents_are_named() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let table = space.snapshots("overlayfs");
    table.insert(NewSnapshot::Active, "draft", None, Labels::new()).unwrap();
    let root = labels(&[("containerd.io/gc.root", "1")]);
    table.commit("draft", "base", None, Usage::default(), root).unwrap();
    table.insert(NewSnapshot::Active, "rw", Some("base"), Labels::new()).unwrap();
    space.put_container(container("c", "rw")).unwrap();
    let words = |thing: &Thing| -> Vec<String> {
        space.why(thing).unwrap().iter().map(|chain| chain.words().join(" > ")).collect()
    };
    assert_eq!(
        words(&Thing::snapshot("overlayfs", "base")),
        [
            "snapshot overlayfs/base (labelled gc.root)",
            "container c > snapshot overlayfs/rw > snapshot overlayfs/base"
        ]
    );
    let _held = space.ingest("ref", Expected::default()).unwrap();
    assert!(words(&Thing::Ingest("ref".into()))[0].starts_with("ingest ref (until "));
}

#[test]
fn a_thousand_reasons_are_cut_to_a_hundred() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let target = put(&space, b"target");
    for at in 0..150 {
        space.create_image(ImageRecord::new(format!("i{at}"), descriptor(target), Labels::new())).unwrap();
    }
    assert_eq!(space.why(&Thing::Blob(target)).unwrap().len(), 100);
}
