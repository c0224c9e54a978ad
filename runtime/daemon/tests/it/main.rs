//! A real daemon in this process, on a root of its own, spoken to over its socket: by clients made from the same
//! definitions, and by Debian's unmodified `ctr`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has found something")]

mod content;
mod ctr;
mod diff;
mod engine;
mod events;
mod fixture;
mod lifecycle;
mod plugin;
mod records;
mod snapshots;
mod transfer;
