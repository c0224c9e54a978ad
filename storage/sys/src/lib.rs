//! Every kernel call beyond the standard library, as safe functions: the only crate where `unsafe` is allowed.
//!
//! One safe function per call, each `unsafe` with the proof beside it. Nothing here decides anything.
#![allow(unsafe_code)]

pub mod child;
pub mod clone;
pub mod confine;
pub mod durable;
pub mod fifo;
pub mod fuse;
pub mod inflate;
pub mod map;
pub mod memory;
pub mod mount;
pub mod network;
pub mod oom;
mod place;
pub mod process;
pub mod prompt;
pub mod rootfs;
pub mod scratch;
pub mod sealed;
pub mod socket;
pub mod terminal;
pub mod tree;
pub mod usage;
