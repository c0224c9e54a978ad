//! What must hold when the machine does not: kill -9, power cuts, full disks, errors of the disk, flipped bits.
//!
//! Each proof does one thing to the engine thousands of times and asks one question every time: *is everything that was
//! acknowledged there and right, is nothing half-made to be seen, is nothing leaked, and does the same step succeed
//! now?* ([`judge`] asks it). What is done to it:
//! - [`kill`]: SIGKILL before and after each system call that changes the disk, one by one ([`trace`]).
//! - [`power`]: the states a power cut can leave on ext4 ([`disk`] records every write): any prefix of the writes, any
//!   subset of those after the last flush, sectors torn in the middle. With syncs left out it must find losses.
//! - [`full`]: disks with room for a few KiB more than nothing, level by level.
//! - [`errors`]: EIO from each of those system calls, and from the disk itself.
//! - [`daemon_kill`]: SIGKILL of the daemon under containers that count.
//! - [`lazy_server`]: SIGKILL of the processes behind lazy mounts, under readers who must not notice.
//! - [`flip`]: single bits of blobs and unpacked files; a check must find each one and bring the right bytes back.
//!
//! The engine works in a process of its own ([`worker`]), so that it can be killed; the steps it takes ([`step`]) are
//! those of users. Each proof has a short form, which `cargo test` runs, and a full one: `scripts/proofs.sh`. Both print
//! one line of figures ([`figures`]) and are repeated exactly, but for the scheduling of threads, by the same seed.
//!
//! Not here: random kills of the whole daemon (`it/crash.rs`), crashes of the store alone (`storage/content/tests`).
// Every function here is part of a test; clippy knows only those with the attribute.
#![allow(clippy::unwrap_used)]

mod daemon_kill;
mod disk;
mod errors;
mod figures;
mod flip;
mod full;
mod judge;
mod kill;
mod lazy_server;
mod power;
mod seen;
mod step;
mod trace;
mod worker;
mod world;
