//! The built-in OCI runtime beside the machine's runc: both run the same bundles and must do the same.
//!
//! Needed on the machine: root, `runc` and a static `busybox` (Debian: `apt-get install runc busybox-static`).
#![allow(clippy::unwrap_used)] // A helper's failure is the test's finding.

mod calls;
mod rows;
mod support;
