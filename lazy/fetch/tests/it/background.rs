//! The background and who goes before it.

use std::sync::Arc;

use crate::common::image::{Layout, made};
use crate::common::source::{Deed, Script, Shared};
use crate::common::{config, fetcher, wait_until, whole};

#[test]
fn filling_brings_everything_in_long_ranges_and_ends() {
    for layout in [Layout::Gzip, Layout::Shared] {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..500).map(|number| format!("f{number:03}")).collect();
        let mut files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 8_000)).collect();
        files.push(("big", 5_000_000));
        let made = made(1, &files, 64 * 1024, layout);
        let script = Script::good();
        script.add(made.digest, &made.blob);
        let fetcher = fetcher(folder.path(), config(), &Arc::new(Shared(Arc::clone(&script))));
        let image = fetcher.image(made.spec("test", &[])).unwrap();
        image.fill();
        wait_until("all is here", || !image.status().filling);
        let status = image.status();
        assert!(status.complete && status.fill_error.is_none(), "{status:?}");
        assert_eq!(status.faults, 0);
        assert!(script.requests().len() < 10, "{} requests", script.requests().len());
        assert!(script.bytes_sent() <= made.blob.len() as u64);
        assert!(image.whole_file(made.node("big")).is_some());
        assert!(image.whole_file(made.node("f000")).is_none(), "a small file is in a pack");
    }
}

#[test]
fn a_fault_does_not_wait_for_the_background_that_has_it_in_hand() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..100).map(|number| format!("f{number:02}")).collect();
    let files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 60_000)).collect();
    let made = made(2, &files, 64 * 1024, Layout::Gzip);
    // The first request, the background's, sends nothing before it is let; all others are served.
    let script = Script::new(|asked| if asked.number == 0 { Deed::Gate } else { Deed::Serve });
    script.add(made.digest, &made.blob);
    let mut config = config();
    config.background_transfers_max = 1;
    let fetcher = fetcher(folder.path(), config, &Arc::new(Shared(Arc::clone(&script))));
    let image = fetcher.image(made.spec("test", &[])).unwrap();
    image.fill();
    wait_until("the background has asked for all of it", || !script.requests().is_empty());
    assert_eq!(script.requests()[0].range.end, made.groups[99].offset + made.groups[99].length);
    assert_eq!(whole(&image, &made, "f99", 60_000), made.bytes("f99"), "while the background is stuck");
    script.release(100_000);
    wait_until("all is here", || !image.status().filling);
    for (path, bytes) in &made.files {
        assert_eq!(whole(&image, &made, path, 60_000), *bytes);
    }
    let piece = 4096;
    assert!(script.bytes_sent() <= made.blob.len() as u64 + piece, "nothing was fetched twice for it");
}

#[test]
fn a_fill_that_is_stopped_leaves_the_rest_to_faults() {
    let folder = tempfile::tempdir().unwrap();
    let made = made(3, &[("a", 100_000), ("b", 100_000)], 64 * 1024, Layout::Gzip);
    let script = Script::good();
    script.add(made.digest, &made.blob);
    let fetcher = fetcher(folder.path(), config(), &Arc::new(Shared(Arc::clone(&script))));
    let image = fetcher.image(made.spec("test", &[])).unwrap();
    image.fill();
    image.fill_stop();
    assert!(!image.status().filling);
    assert_eq!(whole(&image, &made, "b", 30_000), made.bytes("b"));
}

#[test]
fn filling_goes_on_when_a_registry_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let made = made(4, &[("a", 100_000), ("b", 1_500_000)], 64 * 1024, Layout::Gzip);
    let script = Script::new(|asked| if asked.number < 5 { Deed::Refuse } else { Deed::Serve });
    script.add(made.digest, &made.blob);
    let fetcher = fetcher(folder.path(), config(), &Arc::new(Shared(Arc::clone(&script))));
    let image = fetcher.image(made.spec("test", &[])).unwrap();
    image.fill();
    wait_until("all is here", || !image.status().filling);
    assert!(image.status().complete);
}
