//! What a reader gets, and what it costs.

use std::sync::Arc;

use lazy_fetch::FetchError;
use lazy_index::ImageIndex;
use proptest::prelude::*;

use crate::common::image::{Layout, content, made, of_files};
use crate::common::source::{Deed, Script, Shared};
use crate::common::{config, fetcher, wait_until, whole};

const FILES: [(&str, usize); 6] =
    [("a", 10), ("b", 70_000), ("big", 2_500_000), ("c", 1), ("empty", 0), ("edge", 1_048_576)];

#[test]
fn every_file_reads_as_it_was_made_whatever_the_layout_and_again_from_the_cache() {
    for layout in [Layout::Plain, Layout::Gzip, Layout::Shared] {
        let folder = tempfile::tempdir().unwrap();
        let made = made(1, &FILES, 64 * 1024, layout);
        let script = Script::good();
        script.add(made.digest, &made.blob);
        let fetcher = fetcher(folder.path(), config(), &Arc::new(Shared(Arc::clone(&script))));
        let image = fetcher.image(made.spec("test", &[])).unwrap();
        for pass in 0..2 {
            for (path, bytes) in &made.files {
                assert_eq!(whole(&image, &made, path, 100_000), *bytes, "{layout:?} {path} pass {pass}");
                assert!(image.is_local(made.node(path)));
            }
        }
        let sent = script.bytes_sent();
        assert!(sent <= made.blob.len() as u64, "{layout:?}: {sent} bytes for a blob of {}", made.blob.len());
        let status = image.status();
        assert!(status.complete && status.bytes_present == status.bytes_total, "{status:?}");
        assert_eq!(status.bytes_fetched, sent);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_part_of_any_file_is_what_a_slice_of_it_is(
        layout in prop_oneof![Just(Layout::Plain), Just(Layout::Gzip), Just(Layout::Shared)],
        chunk in 1_000usize..400_000,
        parts in proptest::collection::vec((0usize..6, 0usize..2_600_000, 0usize..300_000), 1..30),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let made = made(2, &FILES, chunk, layout);
        let script = Script::good();
        script.add(made.digest, &made.blob);
        let fetcher = fetcher(folder.path(), config(), &Arc::new(Shared(Arc::clone(&script))));
        let image = fetcher.image(made.spec("test", &[])).unwrap();
        for (file, offset, length) in parts {
            let (path, bytes) = &made.files[file];
            let mut out = vec![0xee; length];
            let count = image.read(made.node(path), offset as u64, &mut out).unwrap();
            let start = offset.min(bytes.len());
            prop_assert_eq!(&out[..count], &bytes[start..(start + length).min(bytes.len())]);
        }
    }
}

#[test]
fn a_hundred_readers_of_one_chunk_cost_one_download() {
    let folder = tempfile::tempdir().unwrap();
    let made = made(3, &[("one", 50_000)], 64 * 1024, Layout::Gzip);
    let script = Script::new(|_| Deed::Gate);
    script.add(made.digest, &made.blob);
    let fetcher = fetcher(folder.path(), config(), &Arc::new(Shared(Arc::clone(&script))));
    // Two images with the same layer count as one.
    let images = [fetcher.image(made.spec("a", &[])).unwrap(), fetcher.image(made.spec("b", &[])).unwrap()];
    std::thread::scope(|scope| {
        for reader in 0..100 {
            let (image, made) = (&images[reader % 2], &made);
            scope.spawn(move || assert_eq!(whole(image, made, "one", 60_000), made.bytes("one")));
        }
        wait_until("somebody has asked", || !script.requests().is_empty());
        script.release(1_000);
    });
    assert_eq!(script.requests().len(), 1);
    assert_eq!(script.bytes_sent(), made.groups[0].length);
}

#[test]
fn a_fault_brings_the_next_bytes_of_its_file_in_the_same_request() {
    let folder = tempfile::tempdir().unwrap();
    let made = made(4, &[("file", 600_000), ("other", 600_000)], 64 * 1024, Layout::Gzip);
    let script = Script::good();
    script.add(made.digest, &made.blob);
    let fetcher = fetcher(folder.path(), config(), &Arc::new(Shared(Arc::clone(&script))));
    let image = fetcher.image(made.spec("test", &[])).unwrap();
    let mut page = [0; 4096];
    image.read(made.node("file"), 0, &mut page).unwrap();
    wait_until("the rest of the file is here", || image.is_local(made.node("file")));
    assert_eq!(script.requests().len(), 1, "{:?}", script.requests());
    assert!(!image.is_local(made.node("other")));
}

#[test]
fn small_files_behind_the_one_that_is_read_come_along_as_far_as_configured() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..40).map(|number| format!("f{number:02}")).collect();
    let files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 3_000)).collect();
    let made = made(7, &files, 64 * 1024, Layout::Gzip);
    let script = Script::good();
    script.add(made.digest, &made.blob);
    let mut config = config();
    (config.along_bytes_min, config.along_bytes_max) = (32 * 1024, 32 * 1024);
    let fetcher = fetcher(folder.path(), config, &Arc::new(Shared(Arc::clone(&script))));
    let image = fetcher.image(made.spec("test", &[])).unwrap();
    assert_eq!(whole(&image, &made, "f10", 4096), made.bytes("f10"));
    wait_until("the next ones are here", || image.is_local(made.node("f19")));
    assert_eq!(script.requests().len(), 1);
    assert!(!image.is_local(made.node("f09")) && !image.is_local(made.node("f25")));
    assert_eq!(image.trace().events.len(), 1, "nobody has read them");
}

#[test]
fn files_that_a_trace_lists_share_requests_and_come_before_anybody_asks() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..200).map(|number| format!("f{number:03}")).collect();
    let files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 3_000)).collect();
    let made = made(5, &files, 64 * 1024, Layout::Gzip);
    let script = Script::good();
    script.add(made.digest, &made.blob);
    let sources = Arc::new(Shared(Arc::clone(&script)));
    let trace = {
        let first = fetcher(folder.path(), config(), &sources);
        let image = first.image(made.spec("test", &[])).unwrap();
        for name in names.iter().step_by(3) {
            whole(&image, &made, name, 4096);
        }
        image.trace()
    };
    assert_eq!(trace.events.len(), 67);
    let requests = script.requests().len();
    let other = tempfile::tempdir().unwrap();
    let second = fetcher(other.path(), config(), &sources);
    let image = second.image(made.spec("test", &[])).unwrap();
    assert_eq!(image.prefetch_trace(&trace), 67);
    let here = || names.iter().step_by(3).all(|name| image.is_local(made.node(name)));
    wait_until("all that the trace lists is here", here);
    let more = script.requests().len() - requests;
    assert!(more <= 4, "{more} requests for files that lie together");
    assert_eq!(image.status().faults, 0);
}

#[test]
fn what_one_image_brought_another_one_does_not_fetch_and_an_index_that_lies_gets_nothing_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let shared = content(99, 2_000_000);
    let first = of_files(
        vec![("lib".to_owned(), shared.clone()), ("a".to_owned(), content(1, 500))],
        1 << 18,
        Layout::Gzip,
    );
    let second = of_files(
        vec![("b".to_owned(), content(2, 500)), ("lib2".to_owned(), shared.clone())],
        1 << 18,
        Layout::Plain,
    );
    let script = Script::good();
    script.add(first.digest, &first.blob);
    script.add(second.digest, &second.blob);
    let fetcher = fetcher(folder.path(), config(), &Arc::new(Shared(Arc::clone(&script))));
    let image = fetcher.image(first.spec("first", &[])).unwrap();
    assert_eq!(whole(&image, &first, "lib", 1 << 20), shared);
    let sent = script.bytes_sent();
    let image = fetcher.image(second.spec("second", &[])).unwrap();
    assert_eq!(whole(&image, &second, "lib2", 1 << 20), shared);
    assert_eq!(
        script.bytes_sent(),
        sent,
        "the same file in another image, another format, under another name"
    );
}

#[test]
fn what_is_no_file_or_not_of_this_image_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let made = made(6, &[("a", 10)], 64 * 1024, Layout::Plain);
    let script = Script::good();
    let fetcher = fetcher(folder.path(), config(), &Arc::new(Shared(Arc::clone(&script))));
    let image = fetcher.image(made.spec("test", &[])).unwrap();
    let mut out = [0; 10];
    assert!(matches!(image.read(ImageIndex::ROOT, 0, &mut out), Err(FetchError::NotAFile { .. })));
    assert!(matches!(image.read(lazy_index::NodeId(99), 0, &mut out), Err(FetchError::NotAFile { .. })));
    assert_eq!(image.read(made.node("a"), 10, &mut out).unwrap(), 0);
    assert_eq!(image.read(made.node("a"), u64::MAX, &mut out).unwrap(), 0);
    let mut spec = made.spec("test", &[]);
    spec.origins.clear();
    assert!(matches!(fetcher.image(spec), Err(FetchError::Origins { blobs: 1, given: 0, .. })));
}
