//! SOCI: tables of contents of ordinary gzip and tar layers, kept beside the image.
//!
//! ```text
//! SOCI index (an OCI manifest) --layers--> zTOC (FlatBuffer): entries, checkpoints, digest of each span
//! ```
//! Source: soci-snapshotter `ztoc/fbs/ztoc.fbs`, `ztoc/compression/gzip_zinfo.c`, `docs/`. A span is what lies between two
//! checkpoints; its digest is of the compressed bytes, so spans become our groups, and a file's bytes are cut where spans
//! meet.
//!
//! Trust: an index of version 2 is named by an annotation of the image manifest, so its zTOCs, and their spans, are as
//! good as the manifest. One of version 1 names the image and not the other way round: it is the word of whoever may push
//! to the repository ([`Index::version`] lets the caller decide).

mod flat;
mod index;
mod spans;
mod ztoc;

pub use index::{Index, Version, Ztoc};
pub use ztoc::ztoc;

/// Annotation of an image manifest: digest of its SOCI index (version 2).
pub const INDEX_DIGEST: &str = "com.amazon.soci.index-digest";
/// Annotation, in an image index, of the descriptor of a SOCI index: digest of the image manifest (version 2).
pub const IMAGE_MANIFEST_DIGEST: &str = "com.amazon.soci.image-manifest-digest";
/// Annotation of a zTOC: digest of its layer.
pub const LAYER_DIGEST: &str = "com.amazon.soci.image-layer-digest";
/// Artifact type of an index of version 1.
pub const INDEX_V1: &str = "application/vnd.amazon.soci.index.v1+json";
/// Artifact type of an index of version 2.
pub const INDEX_V2: &str = "application/vnd.amazon.soci.index.v2+json";

#[cfg(test)]
mod tests;
