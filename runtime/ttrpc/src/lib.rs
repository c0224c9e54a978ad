//! ttrpc, the protocol between containerd and its shims: a client and a server, without an event loop.
//!
//! A connection is a unix stream that carries frames ([`frame`]); a request frame names service and method and carries
//! one protobuf message, a response frame of the same stream number carries a status and the answer. Many calls may be
//! open on a connection at a time, and answers come in any order.
//!
//! [`Client`] calls: it blocks, from as many threads as one likes. [`Server`] answers: each call runs on a thread of
//! its own, and a call whose answer comes much later (`Wait`) gives its thread back and keeps only a [`Reply`].
//!
//! Format: `ttrpc`'s `channel.go` and `types.go` (the same in 1.0 to 1.2 for calls with one request and one answer).
//!
//! Not here: streams of ttrpc 1.2 (the shim protocol needs none), what the messages mean (`runtime/api`,
//! `runtime/shim`).
#![forbid(unsafe_code)]

mod address;
mod client;
mod code;
pub mod frame;
mod server;
mod wire;

pub use address::socket_of;
pub use client::{Client, TtrpcError};
pub use code::{Code, Status};
pub use server::{CALLS_MAX, Call, Reply, Server, Service};
pub use wire::Metadata;

/// Metadata key that names the namespace of a call.
pub const NAMESPACE_KEY: &str = "containerd-namespace-ttrpc";
