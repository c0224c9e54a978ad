//! Layers: from compressed bytes to a directory and back, each in one pass.
//!
//! [`unpack`] reads a layer to its last byte and leaves a directory and the layer's diff ID:
//!
//! ```text
//! calling thread          thread "layer-hash"      thread "layer-write"
//! read -> inflate  ---->  SHA-256           ---->  tar -> confined tree [-> record]
//!        ^----------------------- empty buffers ------------------'
//! ```
//!
//! A buffer is filled once, read twice where it lies, and returned; nothing is copied on the way to `write(2)`. On two
//! cores inflate has one and the rest the other, which is the balance measured in `examples/unpack_speed.rs`.
//!
//! The way back: [`pack_overlay`] and [`pack_difference`] write what a directory changes as a layer, [`recompress`]
//! gives a layer another compression, [`tar::Writer`] writes any archive; all of them deterministic. What an unpacked
//! tree has to look like stands in its [`record`]; [`check_tree`] compares and [`repair_tree`] mends.
//!
//! Promises: no byte of a layer leads outside the target ([`storage_sys::tree`]); every number of a layer is checked
//! before use and every allocation has a limit ([`Limits`]); two readers of one tar could not disagree on what we
//! accepted or wrote ([`tar`]); unpacking what was packed gives the same tree; no other program is started. An error of
//! unpacking leaves the target half-written: whoever made it removes it.
//!
//! Not here: fetching, digests of the compressed bytes that come in, durability (one `syncfs` by the engine), the order
//! of layers.
#![forbid(unsafe_code)]

mod apply;
mod check;
mod compress;
mod compressed;
mod error;
mod escape;
mod limits;
mod pack;
mod pipeline;
mod recompress;
pub mod record;
mod repair;
mod settle;
pub mod tar;
mod unpack;

pub use check::{TreeError, TreeFault, TreeProblem, TreeSummary, check_tree};
pub use compress::Packed;
pub use compressed::Decompressor;
pub use error::{EntryName, EntryRefused, LayerError};
pub use limits::Limits;
pub use pack::{PackError, PackOptions, Unpackable, pack_difference, pack_overlay};
pub use recompress::recompress;
pub use repair::repair_tree;
pub use settle::settle;
pub use unpack::{PartTimes, UnpackOptions, Unpacked, Whiteouts, unpack};
