//! The promises of the store, one module per subject. Each test's name is the sentence it proves.
// Every function here is part of a test; clippy knows only those with the attribute.
#![allow(clippy::unwrap_used)]

mod blob;
mod broken_record;
mod change;
mod check;
mod collect;
mod concurrent;
mod crash;
mod full_disk;
mod image;
mod image_use;
mod ingest;
mod lease;
mod metadata_damage;
mod model;
mod namespace;
mod open;
mod plan;
mod recovery;
mod repair;
mod snapshot;
mod support;
mod usage;
mod why;
