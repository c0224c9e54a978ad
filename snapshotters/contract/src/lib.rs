//! What a snapshotter is: the contract between those who keep trees of files and those who mount them.
//!
//! [`Snapshotter`] states it, one sentence at a time; [`conformance`] (feature `conformance`) turns each sentence into a
//! test that every implementation runs. The model is containerd's, so that its clients can use ours and the other way
//! round, with two names where it has one: an [`ActiveKey`] can be written to, a [`CommittedName`] can be a parent.
//!
//! Not here: how trees are kept (`overlay`), what a layer's bytes mean (`storage-layer`), mounting (`storage-sys`).
#![forbid(unsafe_code)]

#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod info;
mod key;
mod mount;
mod snapshotter;

pub use error::SnapshotError;
pub use info::{Info, LayerTarget, Tree, WhiteoutForm};
pub use key::{ActiveKey, CommittedName, KEY_BYTES_MAX};
pub use mount::Mount;
pub use snapshotter::PARENT_CHAIN_ID_LABEL;
pub use snapshotter::Snapshotter;
pub use storage_content::{ErrorKind, LabelChange, SnapshotKind as Kind, Usage};
