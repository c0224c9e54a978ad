//! Brings in the bytes of an image that a reader asks for: verified, once, in the right order, and keeps them.
//!
//! ```text
//! Image::read --> cache? --yes--> pread
//!                   |no
//!                 flight (one per group, joined by every reader of every image)
//!                   |
//!                 queue: fault > trace > same file > background --> range request --> decode --> verify --> cache --> readers
//! ```
//! Promises:
//! - no byte is given out, or put into the cache as present, whose digest does not follow from the index;
//! - one download of a group whatever the number of readers; nothing in the background delays a fault by more than what is
//!   on the wire already;
//! - a read ends: with bytes, or with an error at its deadline;
//! - what is in the cache survives kill -9 and power cuts, or is found damaged and fetched again.
//!
//! The core is synchronous: threads, one mutex for the queue, `pread` and `pwrite`. tokio is in `sources/registry.rs` only.
//!
//! Not here: the tree and its attributes (`lazy-index`), FUSE (`lazy-mount`), which images there are (`lazy-snapshotter`).
#![forbid(unsafe_code)]

mod cache;
mod config;
pub mod decode;
pub mod describe;
mod engine;
mod error;
mod fetcher;
mod image;
mod metrics;
mod sources;
mod spec;
mod status;

pub use config::Config;
pub use error::{FetchError, SourceError, WrongBytes};
pub use fetcher::Fetcher;
pub use image::Image;
pub use sources::{Ask, BlobAt, RangeBody, RegistrySources, Sources};
pub use spec::{Access, Checkpoints, ImageSpec, NoCheckpoints, Origin, Wanted};
pub use status::{
    FaultNote, ImageStatus, RECENT_FAULTS_MAX, TRACE_EVENTS_MAX, TRACE_VERSION, Trace, TraceEvent,
    decode_path, encode_path,
};
