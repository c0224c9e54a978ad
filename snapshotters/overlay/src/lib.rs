//! Snapshots as directories that overlayfs stacks: `snapshots/<number>/{fs,work}` below the store's root.
//!
//! - `fs`: what the snapshot changes; the upper directory while it is active, a lower one for those that stand on it.
//! - `work`: where overlayfs prepares what it writes.
//! - `lower`: empty; only where a client unpacks a layer before its parent is there.
//! - `tree`: the record of what was unpacked.
//!
//! A commit writes nothing: the directory that was filled is the layer. Not here: numbers, records, crashes
//! (`snapshotters-directories`), mounting (`storage-sys`), the promises (`snapshotters-contract`).
#![forbid(unsafe_code)]

mod layers;

pub use layers::{Layers, record_beside};

/// Name of this snapshotter, containerd's for the same thing.
pub const NAME: &str = "overlayfs";

/// The snapshotter over one store. Cheap to clone; [`bind`](snapshotters_directories::Snapshots::bind) it to a namespace
/// to use it.
pub type Overlay = snapshotters_directories::Snapshots<Layers>;
