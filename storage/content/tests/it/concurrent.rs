//! Many at once: nothing that is kept is ever lost to a collection, or to each other.

use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};

use storage_content::{ErrorKind, Expected, ImageRecord, NewSnapshot, Space, Usage};
use storage_model::{Digest, Labels};

use crate::support::{Fixture, descriptor, labels, names};

/// One pull: a leased layer, snapshot and manifest, an image, and the lease let go.
fn pull(space: &Space, name: &str, layer: &[u8]) {
    let lease = space.create_lease(None, Labels::new()).unwrap();
    let leased = space.leased(&lease.id);
    let layer_digest = bring(&leased, &format!("{name}-layer"), layer, Labels::new());
    let table = leased.snapshots("overlayfs");
    let chain = format!("chain-{name}");
    let draft = format!("draft-{name}");
    table.insert(NewSnapshot::Active, &draft, None, Labels::new()).unwrap();
    table.commit(&draft, &chain, None, Usage::default(), Labels::new()).unwrap();
    let references = labels(&[
        ("containerd.io/gc.ref.content.l.0", &layer_digest.to_string()),
        ("containerd.io/gc.ref.snapshot.overlayfs", &chain),
    ]);
    let manifest = bring(&leased, &format!("{name}-manifest"), name.as_bytes(), references);
    space.put_image(ImageRecord::new(name, descriptor(manifest), Labels::new())).unwrap();
    space.delete_lease(&lease.id).unwrap();
}

fn bring(space: &Space, reference: &str, bytes: &[u8], labels: Labels) -> Digest {
    let digest = Digest::of(bytes);
    match space.ingest(reference, Expected::exactly(digest, bytes.len() as u64)) {
        Ok(mut ingest) => {
            ingest.write(bytes).unwrap();
            match ingest.commit(Expected::default(), labels) {
                Ok(found) => assert_eq!(found, digest),
                Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}"),
            }
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}"),
    }
    digest
}

#[test]
fn vuln_b3_fault_f18_images_pulled_during_collections_are_whole() {
    let fixture = Fixture::new();
    let done = AtomicBool::new(false);
    let rounds = 40;
    std::thread::scope(|scope| {
        let pullers: Vec<_> = (0..3)
            .map(|puller| {
                let space = fixture.space();
                scope.spawn(move || {
                    for round in 0..rounds {
                        // The layer is shared by all three, and by turns there and collected.
                        pull(&space, &format!("{puller}-{round}"), format!("layer {}", round % 5).as_bytes());
                        if round % 3 != 0 {
                            space.delete_image(&format!("{puller}-{round}")).unwrap();
                        }
                    }
                })
            })
            .collect();
        let collector = scope.spawn(|| {
            let mut collections = 0;
            while !done.load(Ordering::Relaxed) {
                fixture.store.collect(&mut |_| ()).unwrap();
                collections += 1;
            }
            collections
        });
        // Joined before anything is asserted: a puller that fails must not leave the collector running.
        let outcomes: Vec<_> = pullers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        assert!(collector.join().unwrap() > 0);
        assert!(outcomes.iter().all(Result::is_ok), "a pull failed");
    });
    let space = fixture.space();
    for image in space.images().unwrap() {
        let manifest = space.blob(&image.target.digest).unwrap();
        let layer: Digest = manifest.labels["containerd.io/gc.ref.content.l.0"].parse().unwrap();
        let mut bytes = Vec::new();
        space.open_blob(&layer).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(Digest::of(&bytes), layer);
        space
            .snapshots("overlayfs")
            .get(&manifest.labels["containerd.io/gc.ref.snapshot.overlayfs"])
            .unwrap();
    }
    assert_eq!(space.images().unwrap().len(), 3 * rounds_kept(rounds));
    fixture.store.collect(&mut |_| ()).unwrap();
    let expected = 3 * rounds_kept(rounds) + 5;
    assert_eq!(names(&fixture.root().join("blobs/sha256")).len(), expected);
}

#[test]
fn fault_f18_what_a_sweep_has_left_never_refers_to_what_it_took() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let content = |at: usize| format!("link {at}").into_bytes();
    let links = 1200; // more than one batch
    for at in 0..links {
        let next = Digest::of(&content(at + 1)).to_string();
        let refers = if at + 1 < links {
            labels(&[("containerd.io/gc.ref.content.next", &next)])
        } else {
            Labels::new()
        };
        bring(&space, &format!("ref-{at}"), &content(at), refers);
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let mut here = std::collections::BTreeMap::new();
                // As of one moment.
                space
                    .blobs(&mut |blob| {
                        here.insert(blob.digest, blob.labels);
                        std::ops::ControlFlow::Continue(())
                    })
                    .unwrap();
                let next = here.values().filter_map(|labels| labels.get("containerd.io/gc.ref.content.next"));
                assert!(next.map(|text| text.parse().unwrap()).all(|next: Digest| here.contains_key(&next)));
            }
        });
        let outcome = fixture.store.collect_listed(&mut |_| ());
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        let order: Vec<_> = outcome.unwrap().doomed.into_iter().map(|one| one.thing).collect();
        let chain: Vec<_> =
            (0..links).map(|at| storage_content::Thing::Blob(Digest::of(&content(at)))).collect();
        assert_eq!(order, chain, "each before the one it refers to");
    });
}

fn rounds_kept(rounds: usize) -> usize {
    (0..rounds).filter(|round| round % 3 == 0).count()
}

#[test]
fn two_writers_of_the_same_content_end_with_one_blob_and_no_harm() {
    let fixture = Fixture::new();
    for round in 0..30_u8 {
        std::thread::scope(|scope| {
            for writer in 0..3 {
                let space = fixture.store.space(&format!("n{}", writer % 2).parse().unwrap());
                scope.spawn(move || bring_blind(&space, &format!("ref-{writer}"), &[round; 100]));
            }
        });
        let digest = Digest::of(&[round; 100]);
        for namespace in ["n0", "n1"] {
            let space = fixture.store.space(&namespace.parse().unwrap());
            assert_eq!(space.blob(&digest).unwrap().size, 100);
            space.delete_blob(&digest).unwrap();
        }
        assert!(!fixture.blob_file(&digest).exists());
    }
    assert!(names(&fixture.root().join("ingests")).is_empty());
}

fn bring_blind(space: &Space, reference: &str, bytes: &[u8]) {
    let mut ingest = space.ingest(reference, Expected::default()).unwrap();
    ingest.write(bytes).unwrap();
    if let Err(error) = ingest.commit(Expected::default(), Labels::new()) {
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    }
}

#[test]
fn a_thousand_snapshot_operations_at_once_all_succeed() {
    let fixture = Fixture::new();
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let table = fixture.space().snapshots("overlayfs");
            scope.spawn(move || {
                for round in 0..32 {
                    let (draft, name) = (format!("d{worker}-{round}"), format!("c{worker}-{round}"));
                    table.insert(NewSnapshot::Active, &draft, None, Labels::new()).unwrap();
                    table.commit(&draft, &name, None, Usage::default(), Labels::new()).unwrap();
                    table.insert(NewSnapshot::View, &draft, Some(&name), Labels::new()).unwrap();
                    table.remove(&draft).unwrap();
                }
            });
        }
    });
    assert_eq!(fixture.store.snapshot_numbers().unwrap().len(), 8 * 32);
}

#[test]
fn one_key_that_many_want_goes_to_one() {
    let fixture = Fixture::new();
    let won = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let table = fixture.space().snapshots("overlayfs");
                match table.insert(NewSnapshot::Active, "key", None, Labels::new()) {
                    Ok(_) => {
                        won.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}"),
                }
            });
        }
    });
    assert_eq!(won.into_inner(), 1);
}
