//! What the engine does with whole images: archives, other compressions, pushes, platforms, names.
//!
//! The engine is opened in this process ([`bench`]), so that a test can drop a future half-way or collect in the middle.
//! Everything else is real: `docker-registry`, `skopeo`, `umoci`, containerd with `ctr`, overlay mounts.

mod archive;
mod bench;
mod collect;
mod convert;
mod exchange;
#[path = "../it/fixtures.rs"]
#[expect(dead_code, reason = "the fixtures of another test binary, of which this one uses a part")]
mod fixtures;
mod hostile;
mod names;
mod platforms;
mod push;
