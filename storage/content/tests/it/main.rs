//! The promises of the store, one module per subject. Each test's name is the sentence it proves.

mod blob;
mod collect;
mod concurrent;
mod crash;
mod full_disk;
mod image;
mod ingest;
mod lease;
mod model;
mod namespace;
mod open;
mod recovery;
mod snapshot;
mod support;
