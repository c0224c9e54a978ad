//! The client against servers: a real registry, and ones that misbehave by script.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a failure is the finding, and nobody uses a test crate"
)]

mod common;
mod credentials;
mod faults;
mod peers;
mod proxy;
mod push;
mod real_registry;
mod throughput;
