//! Every kernel call beyond the standard library, as safe functions: the only crate where `unsafe` is allowed.
//!
//! One safe function per call, each `unsafe` with the proof beside it. Nothing here decides anything.
#![allow(unsafe_code)]

pub mod process;
pub mod socket;
pub mod terminal;
