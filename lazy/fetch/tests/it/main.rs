//! The fetcher as its users see it: real threads, a real cache, sources that misbehave by script.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a failure is the finding, and nobody uses a test crate"
)]

mod background;
mod cache;
mod common;
mod crash;
mod describe;
mod reads;
mod registry;
mod trouble;
