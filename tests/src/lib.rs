//! What the end-to-end tests and the bench stand on: a real registry, the real engine, images made on the spot.
//!
//! Nothing here is a double. [`Registry`] is Debian's `docker-registry` on a free loopback port, [`Engine`] is the
//! `windlass` binary that was built beside the test with a root and a state directory of its own, [`Image`] is an OCI
//! image written byte by byte, so that a test decides what is wrong with it. All of them clean up when dropped.
//!
//! Not here: the tests themselves (`tests/it`), fuzz targets (`tests/fuzz`).

mod containerd;
mod engine;
mod image;
mod process;
mod registry;
mod stargz;
mod tar;
mod tree;

pub use containerd::Containerd;
pub use engine::{Engine, windlass};
pub use image::{Image, ImageBuilder, index_of};
pub use process::{Finished, finish, has_command, require_root, signal, wait_until};
pub use registry::Registry;
pub use stargz::Stargz;
pub use tar::{Entry, Kind, Tar};
pub use tree::{Node, difference, read_tree};
