//! The words of the field as types: digests, descriptors, manifests, references, platforms, names.
//!
//! Everything foreign is parsed here once, within stated limits, into a type that cannot hold a bad value; the
//! crates above never look at a raw string again. No I/O and no `unsafe` in this crate.
//!
//! Not here: bytes on disk (`storage-content`), bytes on the wire (`storage-registry`).
#![forbid(unsafe_code)]

mod chain;
mod config;
mod descriptor;
mod digest;
mod document;
mod domain;
mod labels;
pub mod media;
mod names;
mod platform;
mod reference;

pub use chain::{ChainId, DiffId, chain_ids};
pub use config::{ConfigError, History, ImageConfig, ProcessDefaults, RootFs};
pub use descriptor::Descriptor;
pub use digest::{Digest, DigestError, Hasher};
pub use document::{Document, DocumentError, Index, Manifest};
pub use domain::ProtectionDomain;
pub use labels::{Labels, LabelsError, validate as validate_labels};
pub use media::{Compression, LayerKind};
pub use names::{Identifier, NameError, Namespace};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError};

/// Limits on foreign documents, with their reasons.
pub mod limits {
    /// Largest manifest or index that is read, in bytes (the size registries themselves accept; distribution-spec
    /// asks for at least 4 MiB).
    pub const MANIFEST_BYTES_MAX: u64 = 4 * 1024 * 1024;
    /// Largest image config that is read, in bytes.
    pub const CONFIG_BYTES_MAX: u64 = 8 * 1024 * 1024;
    /// Most layers an image may have: overlayfs stacks at most 500 (`OVL_MAX_STACK` in the kernel's overlayfs).
    pub const LAYERS_MAX: usize = 500;
    /// Most manifests an index may list.
    pub const INDEX_ENTRIES_MAX: usize = 4096;
}
