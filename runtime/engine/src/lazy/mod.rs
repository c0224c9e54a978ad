//! Images that are shown before they have arrived.
//!
//! ```text
//! pull:  Ways::choose (plan: who can be read in pieces; policy: is it worth it) -> publish: snapshots that stand for layers
//!        -> the image exists -> complete: blobs, proofs, in the background
//! use:   home_of: which snapshotter has the image -> its mounts (lazy-snapshotter, lazy-mount)
//! ```
//! What was chosen and why is a label of the manifest ([`choice`]); how fast registries are is learned ([`pace`]); what was
//! read is recorded for the next start ([`trace`]). For a containerd the same is done layer by layer ([`remote`]).
//!
//! Not here: formats (`lazy-index`), bytes (`lazy-fetch`), the mount (`lazy-mount`), its snapshots (`lazy-snapshotter`).

mod choice;
mod complete;
mod error;
mod index;
mod mode;
mod pace;
mod plan;
mod policy;
mod prove;
mod publish;
mod remote;
mod stack;
mod status;
mod trace;
mod ways;

pub use error::LazyError;
pub use mode::LazyMode;
pub use remote::SNAPSHOT_REF;
pub use status::{LazyImage, LazyLayer};

pub(crate) use complete::{Completions, Gate};
pub(crate) use pace::Paces;
pub(crate) use remote::Remotes;
pub(crate) use ways::Ways;
