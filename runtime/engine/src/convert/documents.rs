//! Manifests and indexes written anew: what changed is replaced, everything else stays, fields we do not know included.
//!
//! Pure: bytes in, bytes out, the same for the same. A document in which nothing changed keeps its very bytes.

use std::collections::HashMap;

use serde_json::{Map, Value};
use storage_model::{Compression, Descriptor, DiffId, Digest, Platform, media};

/// Beginnings of annotations that describe a layer's bytes as they were: tables of contents of lazy formats.
const STALE: [&str; 5] = [
    "containerd.io/snapshot/stargz/",
    "io.github.containers.zstd-chunked.",
    "io.containers.estargz.",
    "io.containers.zstd-chunked.",
    "com.amazon.soci.",
];

/// Docker's types and OCI's for the same.
const OCI_TYPES: [(&str, &str); 7] = [
    (media::DOCKER_INDEX, media::OCI_INDEX),
    (media::DOCKER_MANIFEST, media::OCI_MANIFEST),
    (media::DOCKER_CONFIG, media::OCI_CONFIG),
    (media::DOCKER_LAYER, media::OCI_LAYER),
    (media::DOCKER_LAYER_GZIP, media::OCI_LAYER_GZIP),
    (media::DOCKER_LAYER_ZSTD, media::OCI_LAYER_ZSTD),
    (
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ),
];

/// OCI's type for `media_type`, if it is one of docker's and `oci` asks for it.
pub(super) fn typed(media_type: &str, oci: bool) -> &str {
    let found = OCI_TYPES.iter().find(|(docker, _)| oci && *docker == media_type);
    found.map_or(media_type, |(_, oci)| oci)
}

/// The type of a layer of a lazy form: OCI's, since docker's have no annotations.
pub(super) fn lazy_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => media::OCI_LAYER,
        Compression::Gzip => media::OCI_LAYER_GZIP,
        Compression::Zstd => media::OCI_LAYER_ZSTD,
    }
}

/// What of a manifest changes besides its types.
#[derive(Default)]
pub(super) struct Changes<'a> {
    /// The layers as they were.
    pub(super) before: &'a [Descriptor],
    /// The layers as they are now, as many.
    pub(super) after: &'a [Descriptor],
    /// The config as it is now, if it changed.
    pub(super) config: Option<&'a Descriptor>,
    /// What the manifest it is about is now, if that changed.
    pub(super) subject: Option<&'a Descriptor>,
    /// Annotations of the manifest, besides those it has.
    pub(super) annotations: &'a [(&'a str, String)],
}

/// A manifest after `changes`; its type and its bytes.
pub(super) fn manifest(
    media_type: &str,
    bytes: &[u8],
    changes: &Changes<'_>,
    oci: bool,
) -> (String, Vec<u8>) {
    let Changes { before, after, config, subject, annotations } = changes;
    edited(media_type, bytes, oci, |document| {
        for (key, value) in *annotations {
            let all = document.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
            if let Some(all) = all.as_object_mut() {
                all.insert((*key).to_owned(), Value::String(value.clone()));
            }
        }
        for (key, after) in [("config", config), ("subject", subject)] {
            if let Some(before) = document.get_mut(key).and_then(Value::as_object_mut) {
                if let Some(after) = after {
                    replace(before, after);
                }
                retype(before, oci);
            }
        }
        let layers = document.get_mut("layers").and_then(Value::as_array_mut);
        for ((layer, before), after) in layers.into_iter().flatten().zip(*before).zip(*after) {
            let Some(layer) = layer.as_object_mut() else { continue };
            if before.digest != after.digest || before.annotations != after.annotations {
                replace(layer, after);
                without_stale(layer);
                annotate(layer, after);
            }
            retype(layer, oci);
        }
    })
}

/// A config whose layers have other diff IDs now; its bytes. Everything else stays.
pub(super) fn config(bytes: &[u8], diff_ids: &[DiffId]) -> Vec<u8> {
    edited(media::OCI_CONFIG, bytes, false, |document| {
        if let Some(rootfs) = document.get_mut("rootfs").and_then(Value::as_object_mut) {
            let diff_ids = diff_ids.iter().map(|diff_id| Value::String(diff_id.to_string())).collect();
            rootfs.insert("diff_ids".to_owned(), Value::Array(diff_ids));
        }
    })
    .1
}

/// An index with what `renewed` says of its entries; those it does not know are left out.
pub(super) fn index(
    media_type: &str,
    bytes: &[u8],
    renewed: &HashMap<Digest, Descriptor>,
    oci: bool,
) -> (String, Vec<u8>) {
    edited(media_type, bytes, oci, |document| {
        if let Some(entries) = document.get_mut("manifests").and_then(Value::as_array_mut) {
            entries.retain_mut(|entry| {
                let Some(entry) = entry.as_object_mut() else { return false };
                let digest = entry.get("digest").and_then(Value::as_str).and_then(|text| text.parse().ok());
                match digest.and_then(|digest: Digest| renewed.get(&digest)) {
                    Some(after) => {
                        replace(entry, after);
                        follow(entry, renewed);
                        true
                    }
                    None => false,
                }
            });
        }
    })
}

/// An index with further `entries` at its end; its own bytes if there are none.
pub(super) fn with_entries(bytes: Vec<u8>, entries: &[Value]) -> Vec<u8> {
    if entries.is_empty() {
        return bytes;
    }
    edited(media::OCI_INDEX, &bytes, false, |document| {
        if let Some(all) = document.get_mut("manifests").and_then(Value::as_array_mut) {
            all.extend_from_slice(entries);
        }
    })
    .1
}

/// An index of one manifest and what is beside it.
pub(super) fn index_of(manifest: &Descriptor, platform: &Platform, beside: &Value) -> Vec<u8> {
    let document = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media::OCI_INDEX,
        "manifests": [
            {
                "mediaType": manifest.media_type, "digest": manifest.digest.to_string(), "size": manifest.size,
                "platform": platform,
            },
            beside,
        ],
    });
    serde_json::to_vec(&document).expect("strings and numbers, into memory")
}

/// BuildKit's link from an attestation to its image goes on to what that image is now.
fn follow(entry: &mut Map<String, Value>, renewed: &HashMap<Digest, Descriptor>) {
    let annotations = entry.get_mut("annotations").and_then(Value::as_object_mut);
    let Some(link) = annotations.and_then(|all| all.get_mut("vnd.docker.reference.digest")) else { return };
    let before = link.as_str().and_then(|text| text.parse::<Digest>().ok());
    if let Some(after) = before.and_then(|before| renewed.get(&before)) {
        *link = Value::String(after.digest.to_string());
    }
}

/// A document after `edit`; its own bytes if that changed nothing.
fn edited(
    media_type: &str,
    bytes: &[u8],
    oci: bool,
    edit: impl FnOnce(&mut Map<String, Value>),
) -> (String, Vec<u8>) {
    let after_type = typed(media_type, oci).to_owned();
    let Ok(Value::Object(before)) = serde_json::from_slice(bytes) else {
        return (media_type.to_owned(), bytes.to_vec());
    };
    let mut after = before.clone();
    if after.contains_key("mediaType") {
        after.insert("mediaType".to_owned(), Value::String(after_type.clone()));
    }
    edit(&mut after);
    if after == before {
        return (after_type, bytes.to_vec());
    }
    (after_type, serde_json::to_vec(&after).expect("what was JSON is JSON"))
}

fn retype(descriptor: &mut Map<String, Value>, oci: bool) {
    if let Some(media_type) = descriptor.get("mediaType").and_then(Value::as_str) {
        let after = typed(media_type, oci).to_owned();
        descriptor.insert("mediaType".to_owned(), Value::String(after));
    }
}

fn replace(descriptor: &mut Map<String, Value>, after: &Descriptor) {
    descriptor.insert("mediaType".to_owned(), Value::String(after.media_type.clone()));
    descriptor.insert("digest".to_owned(), Value::String(after.digest.to_string()));
    descriptor.insert("size".to_owned(), Value::from(after.size));
}

/// What the layer's bytes say of themselves, besides what its maker said.
fn annotate(descriptor: &mut Map<String, Value>, after: &Descriptor) {
    if after.annotations.is_empty() {
        return;
    }
    let all = descriptor.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
    if let Some(all) = all.as_object_mut() {
        all.extend(after.annotations.iter().map(|(key, value)| (key.clone(), Value::String(value.clone()))));
    }
}

fn without_stale(descriptor: &mut Map<String, Value>) {
    if let Some(annotations) = descriptor.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.retain(|key, _| !STALE.iter().any(|stale| key.starts_with(stale)));
        if annotations.is_empty() {
            descriptor.remove("annotations");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, media_type: &str) -> Descriptor {
        Descriptor::of(media_type, name.as_bytes())
    }

    fn changes<'a>(before: &'a [Descriptor], after: &'a [Descriptor]) -> Changes<'a> {
        Changes { before, after, ..Changes::default() }
    }

    #[test]
    fn what_a_layer_says_of_its_bytes_is_added_and_its_config_and_diff_ids_follow() {
        let before = [layer("a", media::DOCKER_LAYER_GZIP)];
        let mut after = before.clone();
        after[0].digest = Digest::of(b"lazy");
        after[0].annotations.insert("containerd.io/snapshot/stargz/toc.digest".to_owned(), "new".to_owned());
        let text = serde_json::json!({
            "config": {"mediaType": media::DOCKER_CONFIG, "digest": Digest::of(b"c").to_string(), "size": 1},
            "layers": [{"mediaType": before[0].media_type, "digest": before[0].digest.to_string(), "size": 1,
                "annotations": {"mine": "stays", "containerd.io/snapshot/stargz/toc.digest": "old"}}],
        });
        let config = Descriptor::of(media::OCI_CONFIG, b"another");
        let annotations = [("a", "b".to_owned())];
        let changes =
            Changes { config: Some(&config), annotations: &annotations, ..changes(&before, &after) };
        let (_, bytes) = manifest(media::DOCKER_MANIFEST, text.to_string().as_bytes(), &changes, true);
        let written: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(written["config"]["digest"], config.digest.to_string());
        assert_eq!(written["layers"][0]["annotations"]["mine"], "stays");
        assert_eq!(written["layers"][0]["annotations"]["containerd.io/snapshot/stargz/toc.digest"], "new");
        assert_eq!(written["annotations"]["a"], "b");
        let diff_ids = [DiffId(Digest::of(b"one")), DiffId(Digest::of(b"two"))];
        let bytes =
            super::config(br#"{"os":"linux","rootfs":{"type":"layers","diff_ids":[]},"x":1}"#, &diff_ids);
        let written: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((&written["x"], &written["rootfs"]["type"]), (&Value::from(1), &Value::from("layers")));
        assert_eq!(written["rootfs"]["diff_ids"][1], diff_ids[1].to_string());
    }

    #[test]
    fn an_attestation_goes_on_to_what_its_image_is_now() {
        let (image, attestation) = (Digest::of(b"image"), Digest::of(b"attestation"));
        let text = serde_json::json!({"manifests": [
            {"digest": image.to_string(), "size": 1, "mediaType": media::OCI_MANIFEST},
            {"digest": attestation.to_string(), "size": 1, "mediaType": media::OCI_MANIFEST,
             "annotations": {"vnd.docker.reference.digest": image.to_string()}},
        ]});
        let after = Descriptor::of(media::OCI_MANIFEST, b"renewed");
        let same = Descriptor::new(media::OCI_MANIFEST, attestation, 1);
        let renewed = HashMap::from([(image, after.clone()), (attestation, same)]);
        let (_, bytes) = index(media::OCI_INDEX, text.to_string().as_bytes(), &renewed, false);
        let written: Value = serde_json::from_slice(&bytes).unwrap();
        let link = &written["manifests"][1]["annotations"]["vnd.docker.reference.digest"];
        assert_eq!(*link, after.digest.to_string());
    }

    #[test]
    fn what_changed_is_replaced_and_everything_else_stays() {
        let before = [layer("a", media::DOCKER_LAYER_GZIP), layer("b", media::DOCKER_LAYER_GZIP)];
        let after = [before[0].clone(), layer("new b", media::OCI_LAYER_ZSTD)];
        let text = serde_json::json!({
            "schemaVersion": 2, "mediaType": media::DOCKER_MANIFEST, "unknown": {"stays": [1, 2]},
            "config": {"mediaType": media::DOCKER_CONFIG, "digest": Digest::of(b"c").to_string(), "size": 1},
            "layers": [
                {"mediaType": before[0].media_type, "digest": before[0].digest.to_string(), "size": 1},
                {"mediaType": before[1].media_type, "digest": before[1].digest.to_string(), "size": 1,
                 "annotations": {"mine": "stays", "containerd.io/snapshot/stargz/toc.digest": "goes"}},
            ],
            "annotations": {"a": "b"},
        });
        let (media_type, bytes) =
            manifest(media::DOCKER_MANIFEST, text.to_string().as_bytes(), &changes(&before, &after), true);
        assert_eq!(media_type, media::OCI_MANIFEST);
        let written: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(written["mediaType"], media::OCI_MANIFEST);
        assert_eq!(written["config"]["mediaType"], media::OCI_CONFIG);
        assert_eq!(written["unknown"]["stays"][1], 2);
        assert_eq!(written["annotations"]["a"], "b");
        assert_eq!(written["layers"][0]["mediaType"], media::OCI_LAYER_GZIP);
        assert_eq!(written["layers"][1]["digest"], after[1].digest.to_string());
        assert_eq!(written["layers"][1]["annotations"], serde_json::json!({"mine": "stays"}));
    }

    #[test]
    fn a_document_in_which_nothing_changed_keeps_its_bytes() {
        let before = [layer("a", media::OCI_LAYER_GZIP)];
        let text = format!(
            "{{ \"layers\": [{{\"size\": 1, \"digest\": \"{}\", \"mediaType\": \"{}\"}}],\n \"z\": 1 }}",
            before[0].digest,
            media::OCI_LAYER_GZIP
        );
        let (_, bytes) = manifest(media::OCI_MANIFEST, text.as_bytes(), &changes(&before, &before), true);
        assert_eq!(bytes, text.as_bytes());
    }

    #[test]
    fn an_index_keeps_only_what_was_renewed_and_the_platforms_of_it() {
        let (kept, gone) = (Digest::of(b"kept"), Digest::of(b"gone"));
        let text = serde_json::json!({"manifests": [
            {"digest": gone.to_string(), "size": 1, "mediaType": media::OCI_MANIFEST},
            {"digest": kept.to_string(), "size": 1, "mediaType": media::OCI_MANIFEST,
             "platform": {"os": "linux", "architecture": "arm64"}},
        ]});
        let renewed = HashMap::from([(kept, Descriptor::of(media::OCI_MANIFEST, b"renewed"))]);
        let (_, bytes) = index(media::OCI_INDEX, text.to_string().as_bytes(), &renewed, false);
        let written: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(written["manifests"].as_array().unwrap().len(), 1);
        assert_eq!(written["manifests"][0]["digest"], Digest::of(b"renewed").to_string());
        assert_eq!(written["manifests"][0]["platform"]["architecture"], "arm64");
    }
}
