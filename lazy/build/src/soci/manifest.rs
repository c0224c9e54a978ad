//! [`index`]: the SOCI index of one image, an OCI manifest whose layers are zTOCs.

use lazy_index::soci::{INDEX_V1, INDEX_V2, LAYER_DIGEST};
use serde_json::{Value, json};
use storage_model::{Descriptor, Digest, media};

use super::{SPAN_BYTES, TOOL, ZTOC_TYPE};

/// Annotation of a zTOC: the media type of its layer.
const LAYER_TYPE: &str = "com.amazon.soci.image-layer-mediaType";
/// Annotation of a zTOC: bytes of the tar between its checkpoints.
const SPAN_SIZE: &str = "com.amazon.soci.span-size";
/// Annotation of an index: who made it.
const BUILD_TOOL: &str = "com.amazon.soci.build-tool-identifier";

/// Which version of SOCI an index is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// It names the image it is about (found as a referrer); nothing of the image changes, and nothing of it is bound to it.
    One,
    /// The image's manifest names it: an image of its own, as trustworthy as its digest.
    Two,
}

/// The config of an index: the empty document, which has to be stored as well.
pub const EMPTY: &[u8] = b"{}";

/// The bytes of an index of `ztocs`, each with the layer it is about, of the image whose manifest is `image`.
pub fn index(version: Version, image: &Descriptor, ztocs: &[(Descriptor, Descriptor)]) -> Vec<u8> {
    let kind = match version {
        Version::One => INDEX_V1,
        Version::Two => INDEX_V2,
    };
    let layers: Vec<Value> = ztocs.iter().map(|(layer, ztoc)| ztoc_of(layer, ztoc)).collect();
    let mut document = json!({
        "schemaVersion": 2,
        "mediaType": media::OCI_MANIFEST,
        "artifactType": kind,
        "config": {"mediaType": kind, "digest": Digest::of(EMPTY).to_string(), "size": EMPTY.len()},
        "layers": layers,
        "annotations": {BUILD_TOOL: TOOL},
    });
    if version == Version::One {
        document["subject"] = json!({
            "mediaType": image.media_type, "digest": image.digest.to_string(), "size": image.size,
        });
    }
    serde_json::to_vec(&document).expect("strings and numbers, into memory")
}

fn ztoc_of(layer: &Descriptor, ztoc: &Descriptor) -> Value {
    json!({
        "mediaType": ZTOC_TYPE,
        "digest": ztoc.digest.to_string(),
        "size": ztoc.size,
        "annotations": {
            LAYER_TYPE: layer.media_type,
            LAYER_DIGEST: layer.digest.to_string(),
            SPAN_SIZE: SPAN_BYTES.to_string(),
        },
    })
}
