//! The mirror over an engine in memory, so that a test decides what is damaged, slow or gone; asked over real sockets.
//!
//! With the real engine and real clients: `tests/it/serve.rs` of the workspace.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a failure is the finding, and nobody uses a test crate"
)]

mod blobs;
mod client;
mod limits;
mod lists;
mod manifests;
mod memory;
mod through;
