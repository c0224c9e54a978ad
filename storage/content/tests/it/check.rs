//! Checks: what is damaged is found and named, what is whole or was let go on purpose is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use storage_content::{
    CheckEvent, CheckOptions, CheckSummary, ErrorKind, Finding, ImageRecord, NewSnapshot, Problem, Space,
    Suspect, Thing, Usage,
};
use storage_model::{Descriptor, Digest, Labels, media};

use crate::support::{Fixture, container, labels, put, put_labelled};

fn check(fixture: &Fixture, options: &CheckOptions) -> (CheckSummary, Vec<Finding>) {
    let mut findings = Vec::new();
    let summary = fixture
        .store
        .check(options, &mut |event| {
            if let CheckEvent::Found(finding) = event {
                findings.push(finding);
            }
        })
        .unwrap();
    assert_eq!(summary.damaged, findings.len() as u64);
    (summary, findings)
}

fn quick(fixture: &Fixture) -> Vec<Finding> {
    check(fixture, &CheckOptions::default()).1
}

fn thorough() -> CheckOptions {
    CheckOptions { read_data: true, ..CheckOptions::default() }
}

/// An image of two layers: digests of manifest, config, layers.
struct Image {
    manifest: Digest,
    config: Digest,
    layers: [Digest; 2],
}

fn image(space: &Space, name: &str) -> Image {
    let config = put(space, format!("{{\"config of\": \"{name}\"}}").as_bytes());
    let layers = [0, 1].map(|at| put(space, format!("layer {at} of {name}").repeat(100).as_bytes()));
    let of = |media_type: &str, digest: &Digest| {
        let size = space.blob(digest).unwrap().size;
        serde_json::json!({ "mediaType": media_type, "digest": digest.to_string(), "size": size })
    };
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media::OCI_MANIFEST,
        "config": of(media::OCI_CONFIG, &config),
        "layers": layers.each_ref().map(|layer| of(media::OCI_LAYER, layer)),
    });
    let references = labels(&[
        ("containerd.io/gc.ref.content.config", &config.to_string()),
        ("containerd.io/gc.ref.content.l.0", &layers[0].to_string()),
        ("containerd.io/gc.ref.content.l.1", &layers[1].to_string()),
    ]);
    let bytes = manifest.to_string();
    let manifest = put_labelled(space, bytes.as_bytes(), references);
    let target = Descriptor::new(media::OCI_MANIFEST, manifest, bytes.len() as u64);
    space.create_image(ImageRecord::new(name, target, Labels::new())).unwrap();
    Image { manifest, config, layers }
}

#[test]
fn a_whole_store_has_no_findings() {
    let fixture = Fixture::new();
    image(&fixture.space(), "i");
    let (summary, findings) = check(&fixture, &thorough());
    assert!(findings.is_empty(), "{findings:?}");
    assert!(summary.objects > 8 && summary.bytes_read > 2000 && !summary.stopped, "{summary:?}");
}

#[test]
fn a_lost_a_short_and_a_flipped_blob_are_each_found_with_the_images_that_need_them() {
    let fixture = Fixture::new();
    let found = image(&fixture.space(), "i");
    image(&fixture.space(), "whole");
    std::fs::remove_file(fixture.blob_file(&found.config)).unwrap();
    std::fs::write(fixture.blob_file(&found.layers[0]), b"short").unwrap();
    let mut bytes = std::fs::read(fixture.blob_file(&found.layers[1])).unwrap();
    bytes[777] ^= 4;
    std::fs::write(fixture.blob_file(&found.layers[1]), &bytes).unwrap();
    let findings = check(&fixture, &thorough()).1;
    let problem = |digest: &Digest| {
        let one = findings.iter().find(|one| one.suspect == Suspect::Thing(Thing::Blob(*digest))).unwrap();
        assert_eq!(one.images, [("default".parse().unwrap(), "i".to_owned())]);
        assert_eq!(one.namespaces.len(), 1);
        &one.problem
    };
    assert!(matches!(problem(&found.config), Problem::FileGone));
    assert!(matches!(problem(&found.layers[0]), Problem::Size { found: 5, .. }));
    let expected = Digest::of(&bytes);
    assert!(matches!(problem(&found.layers[1]), Problem::Digest { found } if *found == expected));
    assert_eq!(findings.len(), 3);
    assert_eq!(quick(&fixture).len(), 2, "without reading, a flipped bit is not seen");
}

#[test]
fn a_flipped_bit_in_a_manifest_is_found_without_reading_everything() {
    let fixture = Fixture::new();
    let found = image(&fixture.space(), "i");
    let mut bytes = std::fs::read(fixture.blob_file(&found.manifest)).unwrap();
    bytes[20] ^= 1;
    std::fs::write(fixture.blob_file(&found.manifest), bytes).unwrap();
    let findings = quick(&fixture);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(matches!(findings[0].problem, Problem::Digest { .. }));
}

#[test]
fn parts_are_disjoint_and_together_everything() {
    let fixture = Fixture::new();
    for at in 0..40 {
        let digest = put(&fixture.space(), format!("blob {at}").as_bytes());
        std::fs::write(fixture.blob_file(&digest), format!("BLOB {at}")).unwrap();
    }
    let mut found = Vec::new();
    for index in 1..=3 {
        let part = CheckOptions { subset: Some((index, 3)), ..thorough() };
        found.extend(check(&fixture, &part).1.into_iter().map(|one| one.suspect.to_string()));
    }
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 40);
    for subset in [(0, 3), (4, 3), (1, 0)] {
        let options = CheckOptions { subset: Some(subset), ..thorough() };
        let error = fixture.store.check(&options, &mut |_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
}

#[test]
fn what_an_image_had_and_has_no_more_is_found_and_what_it_never_had_is_not() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let found = image(&space, "i");
    let pruned = image(&space, "pruned");
    let unlabel = storage_content::LabelChange::set("containerd.io/gc.ref.content.l.1", "");
    space.set_blob_labels(&pruned.manifest, unlabel).unwrap();
    space.delete_blob(&pruned.layers[1]).unwrap();
    assert!(quick(&fixture).is_empty(), "let go on purpose");
    space.delete_blob(&found.layers[0]).unwrap();
    let findings = quick(&fixture);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(
        matches!(findings[0].problem, Problem::ContentGone { missing, parent } if missing == found.layers[0] && parent == found.manifest)
    );
    space.delete_blob(&found.manifest).unwrap();
    let findings = quick(&fixture);
    assert_eq!(findings[0].suspect, Suspect::Thing(Thing::Image("i".into())));
    assert!(matches!(findings[0].problem, Problem::ContentGone { missing, .. } if missing == found.manifest));
}

#[test]
fn an_index_needs_one_of_its_manifests() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let here = image(&space, "i");
    let of = |digest: &Digest| serde_json::json!({ "mediaType": media::OCI_MANIFEST, "digest": digest.to_string(), "size": 2 });
    let absent = Digest::of(b"another platform");
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [of(&here.manifest), of(&absent)],
    });
    let digest = put(&space, index.to_string().as_bytes());
    let target = Descriptor::new(media::OCI_INDEX, digest, 1);
    space.create_image(ImageRecord::new("index", target, Labels::new())).unwrap();
    assert!(quick(&fixture).is_empty());
    space.delete_image("i").unwrap();
    space.delete_blob(&here.manifest).unwrap();
    let findings = quick(&fixture);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(matches!(findings[0].problem, Problem::NoManifest { count: 2, .. }));
}

#[test]
fn a_container_without_its_root_is_found() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let table = space.snapshots("overlayfs");
    table.insert(NewSnapshot::Active, "draft", None, Labels::new()).unwrap();
    table.commit("draft", "base", None, Usage::default(), Labels::new()).unwrap();
    space.put_container(container("whole", "base")).unwrap();
    space.put_container(container("rootless", "")).unwrap();
    space.put_container(container("broken", "never there")).unwrap();
    let findings = quick(&fixture);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].suspect, Suspect::Thing(Thing::Container("broken".into())));
    assert!(matches!(&findings[0].problem, Problem::RootGone { key, .. } if key == "never there"));
}

#[test]
fn a_check_can_be_called_off() {
    let fixture = Fixture::new();
    image(&fixture.space(), "i");
    let options = CheckOptions { stop: Arc::new(AtomicBool::new(true)), ..thorough() };
    let (summary, findings) = check(&fixture, &options);
    assert!(summary.stopped && findings.is_empty() && summary.bytes_read == 0);
}

#[test]
fn what_comes_and_goes_during_a_check_is_no_finding() {
    let fixture = Fixture::new();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let space = fixture.space();
            for round in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let name = format!("i{round}");
                let found = image(&space, &name);
                space.delete_image(&name).unwrap();
                for digest in [found.manifest, found.config, found.layers[0], found.layers[1]] {
                    space.delete_blob(&digest).unwrap();
                }
            }
        });
        let findings: Vec<Finding> = (0..50).flat_map(|_| check(&fixture, &thorough()).1).collect();
        done.store(true, Ordering::Relaxed);
        assert!(findings.is_empty(), "{findings:?}");
    });
}
