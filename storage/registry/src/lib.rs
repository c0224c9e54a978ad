//! The distribution client: resolves references and streams blobs from registries and their mirrors.
//!
//! `resolve` reads a tag once and proves what it got; `manifest` and `small_blob` return only bytes that match
//! their descriptor; `blob` streams bytes that the caller hashes, never more of them than the descriptor's size.
//! What can go wrong in between is handled here: logins learned from challenges, tokens that expire half-way,
//! redirects, mirrors, rate limits, resets, stalls and ranges.
//!
//! Promises, each with its tests in `tests/`:
//! - credentials reach no host but theirs: not by redirect, not by mirror, not by a broken helper;
//! - no answer allocates without a limit, and none is believed without its digest;
//! - a transfer that breaks is continued where it stopped; a transfer that crawls is dropped and continued.
//!
//! Not here: storing (`storage-content`), unpacking (`storage-layer`), choosing a platform (the engine).
#![forbid(unsafe_code)]

mod auth;
mod blob;
mod body;
mod call;
pub mod challenge;
mod client;
mod config;
mod credentials;
pub mod docker_config;
mod endpoint;
mod error;
mod fault;
mod helper;
pub mod hosts;
mod location;
mod manifest;
mod payload;
mod proxy;
mod push;
mod range;
mod referrers;
mod refusal;
mod retry;
mod session;
mod tls;
mod token;
mod transport;
mod upload;

pub use blob::BlobStream;
pub use client::{Client, Resolved};
pub use config::{Config, Notice, Notify, RetryPolicy};
pub use credentials::{Credentials, Secret};
pub use error::{Login, RegistryError, Target};
pub use fault::{ChallengeFault, RedirectFault};
pub use payload::Progress;
pub use proxy::Proxies;
pub use push::Pushed;
pub use range::{RangeRules, RangeStream};
pub use referrers::Referrer;
