//! Manifests and indexes: parsed once, in limits, and never ambiguous.
//!
//! A document is read from its raw bytes and never written back: its digest stands for those bytes.

use serde::{Deserialize, Serialize};

use crate::descriptor::null_as_default;
use crate::{Descriptor, limits, media};

/// An image manifest (OCI image-spec, `manifest.md`; Docker schema 2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The image config.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// What an artifact is, when the manifest is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifest this one refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free annotations.
    #[serde(default, deserialize_with = "null_as_default")]
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// An index: one image for several platforms (OCI image-spec, `image-index.md`; Docker manifest list).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// The manifests, in the order of preference.
    pub manifests: Vec<Descriptor>,
    /// Free annotations.
    #[serde(default, deserialize_with = "null_as_default")]
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// A manifest or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Box<Manifest>),
    /// Several.
    Index(Index),
}

/// Why bytes are not a manifest or index.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// More bytes than any real manifest has.
    #[error("the manifest is {size} bytes: at most {max} are read", max = limits::MANIFEST_BYTES_MAX)]
    TooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// Not JSON, or not the JSON the media type promises.
    #[error("the manifest is not a valid {media_type}")]
    Syntax {
        /// The media type it was read as.
        media_type: String,
        /// What the JSON reader found.
        source: serde_json::Error,
    },
    /// The media type in the document is not the one it was announced with.
    #[error("the manifest calls itself {inside} but was served as {announced}")]
    MediaTypeMismatch {
        /// What the registry or the parent descriptor said.
        announced: String,
        /// What the document says.
        inside: String,
    },
    /// It has the fields of a manifest and of an index: two readers could see two images (CVE-2021-41190).
    #[error(
        "the document has the fields of both a manifest and an index, so its meaning depends on the reader"
    )]
    Ambiguous,
    /// A media type we do not read.
    #[error("manifests of type {0} are not supported{hint}", hint = v1_hint(.0))]
    Unsupported(String),
    /// More layers than a kernel can stack, or more manifests than an index can sensibly hold.
    #[error("the document lists {count} {what}, at most {max} are supported")]
    TooMany {
        /// `layers` or `manifests`.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
}

fn v1_hint(media_type: &str) -> &'static str {
    if media_type.starts_with("application/vnd.docker.distribution.manifest.v1") {
        ": Docker schema 1 was retired in 2019; push the image again with a current tool"
    } else {
        ""
    }
}

/// The fields that decide what a document is, read before anything else.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Reads a document announced as `media_type` (from the `Content-Type` or the parent descriptor).
    ///
    /// # Errors
    /// [`DocumentError`]: too large, not JSON, ambiguous, of another type than announced, or of one we do not read.
    pub fn parse(media_type: &str, bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() as u64 > limits::MANIFEST_BYTES_MAX {
            return Err(DocumentError::TooLarge { size: bytes.len() as u64 });
        }
        let syntax = |source| DocumentError::Syntax { media_type: media_type.to_owned(), source };
        let shape: Shape = serde_json::from_slice(bytes).map_err(syntax)?;
        if shape.fs_layers.is_some() || shape.schema_version == Some(1) {
            return Err(DocumentError::Unsupported(media::DOCKER_MANIFEST_V1.to_owned()));
        }
        if let Some(inside) = &shape.media_type
            && inside != media_type
        {
            return Err(DocumentError::MediaTypeMismatch {
                announced: media_type.to_owned(),
                inside: inside.chars().take(128).collect(),
            });
        }
        if shape.manifests.is_some() && (shape.layers.is_some() || shape.config.is_some()) {
            return Err(DocumentError::Ambiguous);
        }
        if media::is_index(media_type) {
            let index: Index = serde_json::from_slice(bytes).map_err(syntax)?;
            limit("manifests", index.manifests.len(), limits::INDEX_ENTRIES_MAX)?;
            Ok(Self::Index(index))
        } else if media::is_manifest(media_type) {
            let manifest: Box<Manifest> = serde_json::from_slice(bytes).map_err(syntax)?;
            limit("layers", manifest.layers.len(), limits::LAYERS_MAX)?;
            Ok(Self::Manifest(manifest))
        } else {
            Err(DocumentError::Unsupported(media_type.chars().take(128).collect()))
        }
    }

    /// The content this document points to, in its order.
    pub fn children(&self) -> Vec<&Descriptor> {
        match self {
            Self::Manifest(manifest) => std::iter::once(&manifest.config).chain(&manifest.layers).collect(),
            Self::Index(index) => index.manifests.iter().collect(),
        }
    }
}

fn limit(what: &'static str, count: usize, max: usize) -> Result<(), DocumentError> {
    if count > max { Err(DocumentError::TooMany { what, count, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;
    use proptest::prelude::*;

    fn manifest_json(extra: &str) -> Vec<u8> {
        let digest = Digest::of(b"x");
        format!(
            r#"{{"schemaVersion":2,{extra}"config":{{"mediaType":"{}","digest":"{digest}","size":1}},"layers":[]}}"#,
            media::OCI_CONFIG
        )
        .into_bytes()
    }

    #[test]
    fn vuln_c1_a_document_with_two_meanings_is_refused() {
        let both = manifest_json(r#""manifests":[],"#);
        for media_type in [media::OCI_MANIFEST, media::OCI_INDEX] {
            assert!(matches!(Document::parse(media_type, &both), Err(DocumentError::Ambiguous)));
        }
        let lying = manifest_json(&format!(r#""mediaType":"{}","#, media::OCI_INDEX));
        assert!(matches!(
            Document::parse(media::OCI_MANIFEST, &lying),
            Err(DocumentError::MediaTypeMismatch { .. })
        ));
    }

    #[test]
    fn vuln_c10_a_size_that_is_negative_or_beyond_64_bits_is_refused() {
        for size in ["-1", "18446744073709551616", "1.5", "\"7\""] {
            let text = String::from_utf8(manifest_json(""))
                .unwrap()
                .replace("\"size\":1", &format!("\"size\":{size}"));
            assert!(matches!(
                Document::parse(media::OCI_MANIFEST, text.as_bytes()),
                Err(DocumentError::Syntax { .. })
            ));
        }
    }

    #[test]
    fn vuln_c11_a_manifest_over_the_limit_or_nested_without_end_is_refused() {
        let huge = vec![b' '; limits::MANIFEST_BYTES_MAX as usize + 1];
        assert!(matches!(Document::parse(media::OCI_MANIFEST, &huge), Err(DocumentError::TooLarge { .. })));
        let deep = format!(r#"{{"layers":{}"#, "[".repeat(100_000));
        assert!(Document::parse(media::OCI_MANIFEST, deep.as_bytes()).is_err());
    }

    #[test]
    fn docker_schema_1_is_refused_by_name() {
        let text = br#"{"schemaVersion":1,"name":"x","fsLayers":[]}"#;
        let error = Document::parse(media::DOCKER_MANIFEST_V1_SIGNED, text).unwrap_err();
        assert!(error.to_string().contains("schema 1"), "{error}");
    }

    #[test]
    fn a_manifest_without_an_inner_media_type_is_accepted() {
        assert!(matches!(
            Document::parse(media::OCI_MANIFEST, &manifest_json("")),
            Ok(Document::Manifest(_))
        ));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for media_type in media::MANIFEST_TYPES {
                let _ = Document::parse(media_type, &bytes);
            }
        }
    }
}
