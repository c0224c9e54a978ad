//! What the tests of this crate stand on: small images made on the spot, and sources that do as they are told.

pub mod http;
pub mod image;
pub mod source;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lazy_fetch::{Config, Fetcher, Image, Sources};

use image::Made;

/// A configuration that tests can wait for.
pub fn config() -> Config {
    let mut config = Config::default();
    config.reserve_bytes = 0;
    config.fault_deadline = Duration::from_secs(20);
    config.stall = Duration::from_secs(2);
    // Tests count bytes: nothing comes along that they did not ask for.
    (config.along_bytes_min, config.along_bytes_max) = (0, 0);
    config
}

/// A fetcher over `directory`.
pub fn fetcher(directory: &Path, config: Config, sources: &Arc<impl Sources + 'static>) -> Fetcher {
    Fetcher::open(directory, config, Arc::clone(sources) as Arc<dyn Sources>).unwrap()
}

/// All of a file, read in pieces of `piece` bytes.
pub fn whole(image: &Image, made: &Made, path: &str, piece: usize) -> Vec<u8> {
    let node = made.node(path);
    let mut all = Vec::new();
    let mut buffer = vec![0xaa; piece];
    loop {
        let count = image.read(node, all.len() as u64, &mut buffer).unwrap();
        if count == 0 {
            return all;
        }
        all.extend_from_slice(&buffer[..count]);
    }
}

/// Waits until `done` says so. The time is there to end a test that hangs, and proves nothing.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        std::thread::yield_now();
    }
}
