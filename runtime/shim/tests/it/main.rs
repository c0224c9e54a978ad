//! The shim with the machine's real OCI runtime, as root: one container per test.
//!
//! Needed on the machine: `runc` and a static `busybox` (Debian: `apt-get install runc busybox-static`).
#![allow(clippy::unwrap_used)] // A helper's failure is the test's finding.

mod run;
mod support;
mod survive;
mod terminal;
