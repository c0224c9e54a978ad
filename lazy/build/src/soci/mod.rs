//! SOCI: tables of contents beside an image, whose layers stay as they are.
//!
//! ```text
//! layer blob --index, hash spans--> zTOC (FlatBuffer) --\
//! layer blob --------------------->  zTOC --------------+--> SOCI index (an OCI manifest), named by the image or naming it
//! ```
//! Formats: soci-snapshotter, `ztoc/fbs/ztoc.fbs`, `ztoc/compression/gzip_zinfo.c`, `ztoc/compression/fbs/zinfo.fbs` and
//! `soci/soci_index.go`. gzip and plain tars can have a zTOC; zstd has no place in the format.

mod flat;
mod manifest;
mod ztoc;

pub use manifest::{EMPTY, Version, index};
pub use ztoc::{SPAN_BYTES, Ztoc, ztoc};

/// What zTOCs and indexes say of who made them. No version: the same layer gives the same zTOC.
const TOOL: &str = "windlass";

/// The media type of a zTOC.
pub const ZTOC_TYPE: &str = "application/octet-stream";
