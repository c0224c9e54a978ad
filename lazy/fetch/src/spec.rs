//! What an image is to the fetcher: an index, where its blobs may be had, and how a caller names parts of it.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use lazy_index::{Checkpoint, ImageIndex, NodeId};
use serde::{Deserialize, Serialize};
use storage_model::Digest;

/// An image to be read. See [`Fetcher::image`](crate::Fetcher::image).
#[derive(Clone)]
pub struct ImageSpec {
    /// Name for people, metrics and traces: a reference or a chain ID.
    pub name: String,
    /// Its merged tree and chunk table. Trusted: whoever built it followed the chain of digests from the manifest.
    pub index: Arc<ImageIndex>,
    /// Where its deflate streams can be entered.
    pub checkpoints: Arc<dyn Checkpoints>,
    /// For each blob of the index, in its order: where it may be had, the best first. May be empty if the blob is in the
    /// local store.
    pub origins: Vec<Vec<Origin>>,
}

/// Gives the points at which deflate streams can be entered ([`lazy_index::Coding::Deflate`]).
///
/// They are 32 KiB each, so they stay on disk until a group needs one. Called from the threads that decode, for the same
/// one again and again; it must not ask the network.
pub trait Checkpoints: Send + Sync {
    /// Checkpoint `number` of the table of contents of `blob`, `None` if there is none.
    fn checkpoint(&self, blob: &Digest, number: u32) -> Option<Checkpoint>;
}

/// No checkpoints: for images whose layers need none (eStargz, zstd:chunked, plain tar).
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCheckpoints;

impl Checkpoints for NoCheckpoints {
    fn checkpoint(&self, _: &Digest, _: u32) -> Option<Checkpoint> {
        None
    }
}

/// A repository that has a blob.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// A reference in the repository: `registry.example/team/app:1.2`. Its tag or digest is not looked at.
    pub reference: String,
    /// How its registry is spoken to.
    #[serde(default)]
    pub access: Access,
}

/// How a registry is spoken to, by reference: files are named, secrets are not in here.
///
/// A login that is in no file is given to [`RegistrySources::set_login`](crate::RegistrySources::set_login) and lives in
/// memory only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Access {
    /// Roots of host directories (`hosts.toml`, mirrors), in order.
    pub hosts_dir: Vec<PathBuf>,
    /// Docker's `config.json`, for credentials and helpers. Read anew when it is needed.
    pub docker_config: Option<PathBuf>,
    /// Speak plain http where `hosts.toml` says nothing else.
    pub plain_http: bool,
    /// Accept any certificate.
    pub skip_verify: bool,
    /// Certificate authorities beside the system's.
    pub ca_files: Vec<PathBuf>,
}

/// Part of a file that will be read, for [`Image::prefetch`](crate::Image::prefetch).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The file.
    pub node: NodeId,
    /// Bytes of it; what is past its end is ignored, so `0..u64::MAX` is the whole file.
    pub range: Range<u64>,
}
