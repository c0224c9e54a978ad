//! Snapshots as whole trees, each a copy of its parent's: for file systems that overlayfs cannot stand on, and for who
//! wants plain directories. Where the file system shares blocks between files (`FICLONE`: btrfs, XFS) a copy costs inodes
//! only; elsewhere it costs the bytes.
//!
//! - `fs`: the whole tree, bound where it is mounted. A snapshot on a parent begins as a copy of the parent's.
//! - `diff`: instead of `fs` while the snapshot stands on nothing: what was unpacked or written there, deletions in overlay
//!   form, because it may be put on a parent when it is committed. That commit makes `fs`: a copy of the parent's tree
//!   with `diff` put on it by hard links, so that layers are unpacked side by side here too. A committed snapshot's tree
//!   is `fs` if it is there, `diff` otherwise.
//! - `work`, `lower`: only where a client unpacks a layer before its parent is there.
//!
//! `diff` is never changed by a commit, so one that fails or is cut short can be made again. Not here: numbers, records,
//! crashes (`snapshotters-directories`), copying (`storage-sys`), the promises (`snapshotters-contract`).
#![forbid(unsafe_code)]

mod copies;

pub use copies::Copies;

/// Name of this snapshotter, containerd's for the same thing.
pub const NAME: &str = "native";

/// The snapshotter over one store. Cheap to clone; [`bind`](snapshotters_directories::Snapshots::bind) it to a namespace
/// to use it.
pub type Native = snapshotters_directories::Snapshots<Copies>;
