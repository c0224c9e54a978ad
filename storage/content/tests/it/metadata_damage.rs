//! F16: damage to the metadata itself. A page that is zeroed, flipped or cut off, a file that is gone: the store opens all
//! the same, what it then says is true, and little is lost.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use storage_content::{
    CheckEvent, CheckOptions, Expected, ImageRecord, MetadataState, NewSnapshot, Problem, Space, Usage,
};
use storage_model::{Descriptor, Digest, Labels, media};

use crate::support::{Fixture, labels, names, open_again, put, put_labelled};

const IMAGES: usize = 24;

/// An image whose config keeps a snapshot, as a pull leaves it.
fn image(space: &Space, at: usize) {
    let diff_id = Digest::of(format!("diff {at}").as_bytes());
    let table = space.snapshots("overlayfs");
    table.insert(NewSnapshot::Active, "draft", None, Labels::new()).unwrap();
    table.commit("draft", &diff_id.to_string(), None, Usage::default(), Labels::new()).unwrap();
    std::fs::create_dir_all(
        space.store().root().join(format!("snapshots/{}", table.get(&diff_id.to_string()).unwrap().number)),
    )
    .unwrap();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [diff_id.to_string()] },
    })
    .to_string();
    let keeps = labels(&[("containerd.io/gc.ref.snapshot.overlayfs", &diff_id.to_string())]);
    let config_digest = put_labelled(space, config.as_bytes(), keeps);
    let layer = put(space, format!("layer {at}").as_bytes());
    let of = |media_type: &str, digest: &Digest, size: usize| serde_json::json!({ "mediaType": media_type, "digest": digest.to_string(), "size": size });
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media::OCI_MANIFEST,
        "config": of(media::OCI_CONFIG, &config_digest, config.len()),
        "layers": [of(media::OCI_LAYER_GZIP, &layer, 7)],
    })
    .to_string();
    let keeps = labels(&[
        ("containerd.io/gc.ref.content.config", &config_digest.to_string()),
        ("containerd.io/gc.ref.content.l.0", &layer.to_string()),
    ]);
    let digest = put_labelled(space, manifest.as_bytes(), keeps);
    let target = Descriptor::new(media::OCI_MANIFEST, digest, manifest.len() as u64);
    space.create_image(ImageRecord::new(format!("image-{at}"), target, Labels::new())).unwrap();
}

/// A store whose records lie half in tables, half in the log.
fn build() -> Fixture {
    let fixture = Fixture::new();
    (0..IMAGES / 2).for_each(|at| image(&fixture.space(), at));
    let fixture = fixture.reopened(|_| ());
    (IMAGES / 2..IMAGES).for_each(|at| image(&fixture.space(), at));
    fixture
}

/// Copies a closed store; blobs, which nobody writes to, by link.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in from.read_dir().unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if from.ends_with("sha256") {
            std::fs::hard_link(entry.path(), target).unwrap();
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What can happen to a page of a file.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Zeroed,
    Flipped,
    CutOff,
    FileGone,
}

const PAGE: usize = 4096;

fn inflict(path: &Path, page: usize, damage: Damage) {
    let mut bytes = std::fs::read(path).unwrap();
    let end = bytes.len().min((page + 1) * PAGE);
    match damage {
        Damage::Zeroed => bytes[page * PAGE..end].fill(0),
        Damage::Flipped => bytes[(page * PAGE + end) / 2] ^= 0x10,
        Damage::CutOff => bytes.truncate(page * PAGE),
        Damage::FileGone => return std::fs::remove_file(path).unwrap(),
    }
    std::fs::write(path, bytes).unwrap();
}

/// Opens a damaged store and proves that what it says is true; answers with how many images are whole.
fn judge(root: &Path, what: &str) -> (usize, MetadataState) {
    let highest = numbers(root).last().copied().unwrap_or(0);
    let store = open_again(root);
    let state = store.recovery().metadata.clone();
    let space = store.space(&"default".parse().unwrap());
    // Records agree with each other and with the files.
    let mut broken = BTreeSet::new();
    let options = CheckOptions { read_data: true, ..CheckOptions::default() };
    store
        .check(&options, &mut |event| {
            if let CheckEvent::Found(finding) = event {
                // A name whose content is lost is said to be broken; everything else would be a lie.
                let honest =
                    matches!(finding.problem, Problem::ContentGone { .. } | Problem::NoManifest { .. });
                assert!(honest, "{what}: {finding:?}");
                broken.extend(finding.images.into_iter().map(|(_, name)| name));
            }
        })
        .unwrap();
    let images = space.images().unwrap();
    let whole = images.iter().filter(|image| !broken.contains(&image.name)).count();
    // A whole image survives a collection, with the snapshot that its config keeps.
    store.collect(&mut |_| ()).unwrap();
    for image in images.iter().filter(|image| !broken.contains(&image.name)) {
        let mut bytes = Vec::new();
        space.open_blob(&image.target.digest).unwrap().read_to_end(&mut bytes).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        space.open_blob(&manifest["config"]["digest"].as_str().unwrap().parse().unwrap()).unwrap();
        space.open_blob(&manifest["layers"][0]["digest"].as_str().unwrap().parse().unwrap()).unwrap();
    }
    // A number is never given twice.
    let fresh =
        space.snapshots("overlayfs").insert(NewSnapshot::Active, "fresh", None, Labels::new()).unwrap();
    assert!(fresh.number > highest, "{what}: number {} was given before", fresh.number);
    // Everything can come again.
    put_again(&space, b"layer 3");
    put_again(&space, b"something new");
    drop((space, store));
    let store = open_again(root);
    assert_eq!(store.recovery().metadata, MetadataState::Whole, "{what}: damage outlives a start");
    (whole, state)
}

fn put_again(space: &Space, bytes: &[u8]) {
    let expected = Expected::exactly(Digest::of(bytes), bytes.len() as u64);
    if let Ok(mut ingest) = space.ingest("again", expected) {
        let from = usize::try_from(ingest.offset()).unwrap();
        ingest.write(&bytes[from..]).unwrap();
        ingest.commit(expected, Labels::new()).unwrap();
    }
    space.open_blob(&Digest::of(bytes)).unwrap();
}

fn numbers(root: &Path) -> BTreeSet<u64> {
    names(&root.join("snapshots")).iter().map(|name| name.parse().unwrap()).collect()
}

#[test]
fn fault_f16_a_damaged_page_or_a_lost_file_of_the_metadata_never_keeps_the_store_from_opening() {
    let built = build();
    let root = built.root().to_path_buf();
    let parent = tempfile::tempdir().unwrap();
    // Closed while it is copied.
    let pristine = parent.path().join("pristine");
    let _directory = built.closed();
    copy(&root, &pristine);
    let mut cases = Vec::new();
    for name in names(&pristine.join("metadata")) {
        let bytes = std::fs::metadata(pristine.join("metadata").join(&name)).unwrap().len();
        // Of files that opening does not need, one page tells all.
        let idle = ["LOG", "OPTIONS", "IDENTITY"].iter().any(|word| name.starts_with(word));
        let pages = if idle { 1 } else { usize::try_from(bytes).unwrap().div_ceil(PAGE) };
        cases.extend((0..pages).flat_map(|page| {
            [Damage::Zeroed, Damage::Flipped, Damage::CutOff].map(|damage| (name.clone(), page, damage))
        }));
        cases.push((name, 0, Damage::FileGone));
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (next, cases, pristine) = (&next, &cases, &pristine);
            let damaged = parent.path().join(format!("damaged-{worker}"));
            scope.spawn(move || {
                while let Some((name, page, damage)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    copy(pristine, &damaged);
                    inflict(&damaged.join("metadata").join(name), *page, *damage);
                    one_case(&damaged, name, *page, *damage);
                    std::fs::remove_dir_all(&damaged).unwrap();
                }
            });
        }
    });
}

fn one_case(damaged: &Path, name: &str, page: usize, damage: Damage) {
    let what = format!("{damage:?} page {page} of {name}");
    let (whole, state) = judge(damaged, &what);
    if name.ends_with(".log") {
        // What the log alone knew may be lost; that something is missing is seen, unless it is the end.
        let end = matches!(damage, Damage::CutOff | Damage::FileGone);
        let seen = end || state != MetadataState::Whole;
        assert!(seen && whole >= IMAGES / 2, "{what}: {whole} images whole, {state:?}");
    } else {
        assert_eq!(whole, IMAGES, "{what}: {state:?}");
    }
}
