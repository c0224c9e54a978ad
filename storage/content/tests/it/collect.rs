//! Collections: what is reachable stays, and the rest goes, files and all.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use proptest::prelude::*;
use storage_content::{
    Collected, ErrorKind, Expected, ImageRecord, NewSnapshot, RemovedSnapshot, Resource, Space, Thing, Usage,
};
use storage_model::{Digest, Labels};

use crate::model::World;
use crate::support::{Fixture, container, descriptor, digests, labels, names, put, put_labelled};

const PAST: (&str, &str) = ("containerd.io/gc.expire", "2001-01-01T00:00:00Z");
const FUTURE: (&str, &str) = ("containerd.io/gc.expire", "2101-01-01T00:00:00Z");

fn collect(fixture: &Fixture) -> (Collected, Vec<String>) {
    let mut removed = Vec::new();
    let collected =
        fixture.store.collect(&mut |RemovedSnapshot { record, .. }| removed.push(record.key)).unwrap();
    (collected, removed)
}

fn committed(space: &Space, name: &str, parent: Option<&str>, labels: Labels) {
    let table = space.snapshots("overlayfs");
    table.insert(NewSnapshot::Active, "draft", parent, Labels::new()).unwrap();
    table.commit("draft", name, None, Usage::default(), labels).unwrap();
}

#[test]
fn an_image_keeps_everything_its_manifest_refers_to_and_nothing_else_stays() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let layer = put(&space, b"layer");
    let config =
        put_labelled(&space, b"config", labels(&[("containerd.io/gc.ref.snapshot.overlayfs", "chain")]));
    let manifest = put_labelled(
        &space,
        b"manifest",
        labels(&[
            ("containerd.io/gc.ref.content.config", &config.to_string()),
            ("containerd.io/gc.ref.content.l.0", &layer.to_string()),
        ]),
    );
    committed(&space, "base", None, Labels::new());
    committed(&space, "chain", Some("base"), Labels::new());
    committed(&space, "stray", Some("base"), Labels::new());
    let stray = put(&space, b"stray bytes");
    space.create_image(ImageRecord::new("i", descriptor(manifest), Labels::new())).unwrap();
    let (collected, removed) = collect(&fixture);
    assert_eq!((collected.blobs, collected.snapshots, collected.freed_bytes), (1, 1, 11));
    assert_eq!(removed, ["stray"]);
    assert!(!fixture.blob_file(&stray).exists());
    assert!(names(&fixture.root().join("trash")).is_empty(), "unlinked when the collection returns");
    space.delete_image("i").unwrap();
    let (collected, removed) = collect(&fixture);
    assert_eq!((collected.blobs, removed), (3, vec!["chain".to_owned(), "base".to_owned()]));
    assert!(names(&fixture.root().join("blobs/sha256")).is_empty());
    assert_eq!(collect(&fixture).0, Collected::default());
}

#[test]
fn children_are_handed_out_before_parents_even_when_they_were_made_first() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let table = space.snapshots("overlayfs");
    for key in ["top", "middle", "low"] {
        table.insert(NewSnapshot::Active, key, None, Labels::new()).unwrap();
    }
    // A parallel unpack: committed in order, on parents that have higher numbers.
    table.commit("low", "1", None, Usage::default(), Labels::new()).unwrap();
    table.commit("middle", "2", Some("1"), Usage::default(), Labels::new()).unwrap();
    table.commit("top", "3", Some("2"), Usage::default(), Labels::new()).unwrap();
    assert_eq!(collect(&fixture).1, ["3", "2", "1"]);
}

#[test]
fn a_lease_keeps_until_it_ends_and_a_flat_one_only_what_it_lists() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let leaf = put(&space, b"leaf");
    let top = put_labelled(&space, b"top", labels(&[("containerd.io/gc.ref.content", &leaf.to_string())]));
    let lease = space.create_lease(None, labels(&[FUTURE])).unwrap();
    space.add_resource(&lease.id, &Resource::content(&top)).unwrap();
    assert_eq!(collect(&fixture).0, Collected::default());
    space.delete_lease(&lease.id).unwrap();
    let flat = space.create_lease(None, labels(&[("containerd.io/gc.flat", "")])).unwrap();
    space.add_resource(&flat.id, &Resource::content(&top)).unwrap();
    collect(&fixture);
    assert_eq!(digests(&space), [top]);
    space.delete_lease(&flat.id).unwrap();
    let ended = space.create_lease(None, labels(&[PAST])).unwrap();
    space.add_resource(&ended.id, &Resource::content(&top)).unwrap();
    let (collected, _) = collect(&fixture);
    assert_eq!((collected.blobs, collected.leases), (1, 1));
    assert!(space.leases().unwrap().is_empty());
}

#[test]
fn a_container_keeps_its_root_and_what_that_stands_on() {
    let fixture = Fixture::new();
    let space = fixture.space();
    committed(&space, "base", None, Labels::new());
    let table = space.snapshots("overlayfs");
    table.insert(NewSnapshot::Active, "root", Some("base"), Labels::new()).unwrap();
    table.insert(NewSnapshot::Active, "stray", Some("base"), Labels::new()).unwrap();
    space.put_container(container("c", "root")).unwrap();
    assert_eq!(collect(&fixture).1, ["stray"]);
    space.delete_container(&"c".parse().unwrap()).unwrap();
    assert_eq!(collect(&fixture).1, ["root", "base"]);
}

#[test]
fn an_expired_image_goes_unless_a_lease_keeps_it() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let target = put(&space, b"target");
    let lease = space.create_lease(None, Labels::new()).unwrap();
    space.leased(&lease.id).create_image(ImageRecord::new("i", descriptor(target), labels(&[PAST]))).unwrap();
    collect(&fixture);
    space.image("i").unwrap();
    space.blob(&target).unwrap();
    space.delete_lease(&lease.id).unwrap();
    assert_eq!(collect(&fixture).0.images, 1);
    assert_eq!(space.image("i").unwrap_err().kind(), ErrorKind::NotFound);
    assert!(digests(&space).is_empty());
}

#[test]
fn roots_and_back_references_keep() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let root = put_labelled(&space, b"root", labels(&[("containerd.io/gc.root", "1")]));
    let back = put_labelled(&space, b"back", labels(&[("containerd.io/gc.bref.content", &root.to_string())]));
    let lost = Digest::of(b"lost");
    put_labelled(&space, b"orphan", labels(&[("containerd.io/gc.bref.content", &lost.to_string())]));
    collect(&fixture);
    let mut expected = [root, back];
    expected.sort();
    assert_eq!(digests(&space), expected);
}

#[test]
fn a_young_ingest_stays_with_what_it_expects_and_one_of_yesterday_goes() {
    let fixture = Fixture::new();
    let space = fixture.space();
    for reference in ["young", "old", "leased"] {
        space.ingest(reference, Expected::default()).unwrap().write(b"abc").unwrap();
    }
    let lease = space.create_lease(None, Labels::new()).unwrap();
    space.add_resource(&lease.id, &Resource::ingest("leased")).unwrap();
    drop(space);
    let fixture = fixture.reopened(|root| {
        for directory in names(&root.join("ingests")) {
            let path = root.join("ingests").join(directory).join("info");
            let mut info: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            if info["reference"] != "young" {
                let started = info["started"].as_i64().unwrap();
                info["started"] = (started - 25 * 3600 * 1_000_000_000).into();
                std::fs::write(&path, info.to_string()).unwrap();
            }
        }
    });
    let held = fixture.space().ingest("old", Expected::default()).unwrap();
    assert_eq!(collect(&fixture).0.ingests, 0, "one that is being written is not touched");
    drop(held);
    let (collected, _) = collect(&fixture);
    assert_eq!((collected.ingests, collected.freed_bytes), (1, 3));
    let mut left: Vec<String> =
        fixture.space().ingests().unwrap().into_iter().map(|one| one.reference).collect();
    left.sort();
    assert_eq!(left, ["leased", "young"]);
}

#[test]
fn bytes_that_another_namespace_keeps_stay() {
    let fixture = Fixture::new();
    let other = fixture.store.space(&"other".parse().unwrap());
    let digest = put(&fixture.space(), b"shared");
    other.ingest("ref", Expected { digest: Some(digest), size: None }).unwrap_err();
    other.create_image(ImageRecord::new("i", descriptor(digest), Labels::new())).unwrap();
    let (collected, _) = collect(&fixture);
    assert_eq!((collected.blobs, collected.freed_bytes), (1, 0));
    other.open_blob(&digest).unwrap();
    assert!(fixture.space().blob(&digest).is_err());
}

/// A random world: which blob refers to which, which snapshot stands on which, and what the leases list.
#[derive(Debug, Clone)]
struct Plan {
    blobs: Vec<BlobPlan>,
    /// For each snapshot: its parent, below it in the list.
    snapshots: Vec<Option<usize>>,
    /// Targets of images, and whether they have expired.
    images: Vec<(usize, bool)>,
    /// Roots of containers.
    containers: Vec<usize>,
    leases: Vec<LeasePlan>,
}

/// Blobs and snapshots its labels name, whether it is a root, a blob that keeps it from behind.
type BlobPlan = (Vec<usize>, Vec<usize>, bool, Option<usize>);
/// Blobs, snapshots and images it lists; flat; ended.
type LeasePlan = (Vec<usize>, Vec<usize>, Vec<usize>, bool, bool);

const BLOBS: usize = 8;
const SNAPSHOTS: usize = 6;
const IMAGES: usize = 3;

fn plan() -> impl Strategy<Value = Plan> {
    let some = |range: usize, most: usize| proptest::collection::vec(0..range, 0..=most);
    let rarely = || proptest::bool::weighted(0.15);
    let blob = (some(BLOBS, 2), some(SNAPSHOTS, 1), rarely(), proptest::option::weighted(0.2, 0..BLOBS));
    let lease = (some(BLOBS, 2), some(SNAPSHOTS, 1), some(IMAGES, 1), any::<bool>(), any::<bool>());
    (
        proptest::collection::vec(blob, BLOBS),
        proptest::collection::vec(proptest::option::weighted(0.7, 0..SNAPSHOTS), SNAPSHOTS),
        proptest::collection::vec((0..BLOBS, any::<bool>()), IMAGES),
        some(SNAPSHOTS, 1),
        proptest::collection::vec(lease, 0..3),
    )
        .prop_map(|(blobs, parents, images, containers, leases)| {
            let below = |(at, parent): (usize, Option<usize>)| parent.filter(|parent| *parent < at);
            let snapshots = parents.into_iter().enumerate().map(below).collect();
            Plan { blobs, snapshots, images, containers, leases }
        })
}

fn digest(at: usize) -> Digest {
    Digest::of(format!("b{at}").as_bytes())
}

impl Plan {
    /// Builds the world in the store.
    fn build(&self, space: &Space) {
        for (at, parent) in self.snapshots.iter().enumerate() {
            let parent = parent.map(|parent| format!("s{parent}"));
            committed(space, &format!("s{at}"), parent.as_deref(), Labels::new());
        }
        for (at, (blobs, snapshots, root, back)) in self.blobs.iter().enumerate() {
            let mut labels = Labels::new();
            for blob in blobs {
                labels.insert(format!("containerd.io/gc.ref.content.{blob}"), digest(*blob).to_string());
            }
            for snapshot in snapshots {
                labels.insert("containerd.io/gc.ref.snapshot.overlayfs".into(), format!("s{snapshot}"));
            }
            if *root {
                labels.insert("containerd.io/gc.root".into(), "yes".into());
            }
            if let Some(back) = back {
                labels.insert("containerd.io/gc.bref.content".into(), digest(*back).to_string());
            }
            put_labelled(space, format!("b{at}").as_bytes(), labels);
        }
        for (at, (target, expired)) in self.images.iter().enumerate() {
            let labels = labels(&[if *expired { PAST } else { FUTURE }]);
            space
                .create_image(ImageRecord::new(format!("i{at}"), descriptor(digest(*target)), labels))
                .unwrap();
        }
        for snapshot in &self.containers {
            space.put_container(container(&format!("c{snapshot}"), &format!("s{snapshot}"))).unwrap();
        }
        for (at, (blobs, snapshots, images, flat, ended)) in self.leases.iter().enumerate() {
            let mut labels = labels(&[if *ended { PAST } else { FUTURE }]);
            if *flat {
                labels.insert("containerd.io/gc.flat".into(), String::new());
            }
            let id = format!("l{at}").parse().unwrap();
            space.create_lease(Some(id), labels).unwrap();
            let id = format!("l{at}").parse().unwrap();
            let blobs = blobs.iter().map(|blob| Resource::content(&digest(*blob)));
            let snapshots = snapshots.iter().map(|one| Resource::snapshot("overlayfs", &format!("s{one}")));
            let images = images.iter().map(|image| Resource::image(&format!("i{image}")));
            for resource in blobs.chain(snapshots).chain(images) {
                space.add_resource(&id, &resource).unwrap();
            }
        }
    }

    /// The same world for the model.
    fn world(&self) -> World {
        let mut world = World::default();
        let mut edge = |soft: bool, from: String, to: String| {
            let edges = if soft { &mut world.soft } else { &mut world.firm };
            edges.entry(from).or_default().insert(to);
        };
        for (at, (blobs, snapshots, _, back)) in self.blobs.iter().enumerate() {
            blobs.iter().for_each(|to| edge(true, format!("b{at}"), format!("b{to}")));
            // One label names one snapshot: the last one written.
            snapshots.last().into_iter().for_each(|to| edge(true, format!("b{at}"), format!("s{to}")));
            back.iter().for_each(|from| edge(true, format!("b{from}"), format!("b{at}")));
        }
        for (at, parent) in self.snapshots.iter().enumerate() {
            parent.iter().for_each(|to| edge(false, format!("s{at}"), format!("s{to}")));
        }
        for (at, (target, _)) in self.images.iter().enumerate() {
            edge(false, format!("i{at}"), format!("b{target}"));
        }
        self.containers.iter().for_each(|to| edge(false, format!("c{to}"), format!("s{to}")));
        for (at, (blobs, snapshots, images, _, _)) in self.leases.iter().enumerate() {
            blobs.iter().for_each(|to| edge(false, format!("l{at}"), format!("b{to}")));
            snapshots.iter().for_each(|to| edge(false, format!("l{at}"), format!("s{to}")));
            images.iter().for_each(|to| edge(false, format!("l{at}"), format!("i{to}")));
        }
        let name = |letter: &str, at: usize| format!("{letter}{at}");
        let roots = self.blobs.iter().enumerate().filter(|(_, blob)| blob.2).map(|(at, _)| name("b", at));
        world.roots.extend(roots);
        let images = self.images.iter().enumerate().filter(|(_, image)| !image.1);
        world.roots.extend(images.map(|(at, _)| name("i", at)));
        world.roots.extend(self.containers.iter().map(|at| name("c", *at)));
        let leases = self.leases.iter().enumerate().filter(|(_, lease)| !lease.4);
        world.roots.extend(leases.map(|(at, _)| name("l", at)));
        let flat = self.leases.iter().enumerate().filter(|(_, lease)| lease.3);
        world.flat.extend(flat.map(|(at, _)| name("l", at)));
        world
    }
}

/// The thing of the store that a name of the model stands for.
fn thing(name: &str) -> Thing {
    match (&name[..1], name[1..].parse()) {
        ("b", Ok(at)) => Thing::Blob(digest(at)),
        ("s", _) => Thing::snapshot("overlayfs", name),
        ("i", _) => Thing::Image(name.to_owned()),
        _ => panic!("{name} is no name of the model"),
    }
}

/// What is in the store, in the model's names.
fn present(space: &Space) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let here = digests(space);
    found.extend((0..BLOBS).filter(|at| here.contains(&digest(*at))).map(|at| format!("b{at}")));
    space
        .snapshots("overlayfs")
        .walk(&mut |record| {
            found.insert(record.key);
            ControlFlow::Continue(())
        })
        .unwrap();
    found.extend(space.images().unwrap().into_iter().map(|image| image.name));
    found.extend(space.containers().unwrap().into_iter().map(|one| one.id.to_string()));
    found.extend(space.leases().unwrap().into_iter().map(|lease| lease.id.to_string()));
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn exactly_what_is_reachable_survives(plan in plan()) {
        let fixture = Fixture::new();
        let space = fixture.space();
        plan.build(&space);
        let before = present(&space);
        let kept: BTreeSet<String> = plan.world().kept().intersection(&before).cloned().collect();
        for name in before.iter().filter(|name| !name.starts_with('c') && !name.starts_with('l')) {
            let chains = space.why(&thing(name)).unwrap();
            prop_assert_eq!(chains.is_empty(), !kept.contains(name), "{} is kept by {:?}", name, chains);
            prop_assert!(chains.iter().all(|chain| chain.links.last() == Some(&thing(name))));
        }
        let foreseen = fixture.store.plan().unwrap();
        let mut removed = Vec::new();
        let done =
            fixture.store.collect_listed(&mut |RemovedSnapshot { record, .. }| removed.push(record.key)).unwrap();
        let collected = done.totals;
        prop_assert_eq!(foreseen, done, "a plan is what a collection does");
        prop_assert_eq!(present(&space), kept);
        let order: Vec<usize> = removed.iter().map(|key| key[1..].parse().unwrap()).collect();
        for (at, key) in order.iter().enumerate() {
            if let Some(parent) = plan.snapshots[*key] {
                prop_assert!(!order[..at].contains(&parent), "parent s{} went before its child s{}", parent, key);
            }
        }
        prop_assert_eq!(collected.snapshots, removed.len() as u64);
        prop_assert_eq!(collect(&fixture).0, Collected::default(), "a second collection finds nothing");
        let files = names(&fixture.root().join("blobs/sha256"));
        prop_assert_eq!(files.len(), digests(&space).len());
    }
}
