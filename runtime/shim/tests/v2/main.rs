//! containerd's shim as a daemon drives it: over ttrpc, with the machine's real OCI runtime, as root.
//!
//! Needed on the machine: `runc` and a static `busybox` (Debian: `apt-get install runc busybox-static`).
#![allow(clippy::unwrap_used)] // A helper's failure is the test's finding.

mod ends;
mod life;
mod streams;
mod support;
