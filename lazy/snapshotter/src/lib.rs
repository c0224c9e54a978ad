//! The lazy snapshotter: committed snapshots that are an index and a mount instead of files.
#![forbid(unsafe_code)]
