//! Sources that lie, stall, break and come back. Rows L7, L9 and C12 of the catalogue, at the level of the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lazy_fetch::{FetchError, SourceError};

use crate::common::image::{Layout, made};
use crate::common::source::{Deed, Script, Shared};
use crate::common::{config, fetcher, wait_until, whole};

#[test]
fn l7_a_turned_bit_from_one_source_is_fetched_from_another_and_never_read() {
    for layout in [Layout::Plain, Layout::Gzip, Layout::Shared] {
        let folder = tempfile::tempdir().unwrap();
        let made = made(1, &[("a", 30_000), ("big", 1_500_000)], 64 * 1024, layout);
        let script = Script::of(&["mirror", "origin"], |asked| match asked.place.as_str() {
            "mirror" => Deed::Flip,
            _ => Deed::Serve,
        });
        script.add(made.digest, &made.blob);
        let fetcher = fetcher(folder.path(), config(), &Arc::new(Shared(Arc::clone(&script))));
        let image = fetcher.image(made.spec("test", &[])).unwrap();
        for (path, bytes) in &made.files {
            assert_eq!(whole(&image, &made, path, 70_000), *bytes, "{layout:?}");
        }
        assert!(fetcher.metrics().contains("windlass_lazy_read_failures_total 0"));
    }
}

#[test]
fn l7_bytes_that_are_wrong_everywhere_are_an_error_after_three_attempts_and_stay_out_of_the_cache() {
    for layout in [Layout::Plain, Layout::Gzip, Layout::Shared] {
        let folder = tempfile::tempdir().unwrap();
        let made = made(2, &[("a", 5_000)], 64 * 1024, layout);
        let right = Arc::new(AtomicBool::new(false));
        let decided = Arc::clone(&right);
        let script = Script::of(&["one", "two", "three", "four"], move |_| {
            if decided.load(Ordering::SeqCst) { Deed::Serve } else { Deed::Flip }
        });
        script.add(made.digest, &made.blob);
        let fetcher = fetcher(folder.path(), config(), &Arc::new(Shared(Arc::clone(&script))));
        let image = fetcher.image(made.spec("test", &[])).unwrap();
        let mut out = [0; 5_000];
        let error = image.read(made.node("a"), 0, &mut out).unwrap_err();
        assert!(matches!(error, FetchError::WrongBytes { .. }), "{layout:?}: {error}");
        assert_eq!(script.requests().len(), 3, "{layout:?}");
        assert!(!image.is_local(made.node("a")));
        let status = image.status();
        assert_eq!((status.failures, status.bytes_present), (1, 0));
        assert!(status.recent[0].error.as_ref().unwrap().contains("wrong at every source"));
        // Nothing of it lasts: the source is mended, the next read is right.
        right.store(true, Ordering::SeqCst);
        assert_eq!(whole(&image, &made, "a", 5_000), made.bytes("a"));
    }
}

#[test]
fn l9_a_source_that_stalls_ends_in_an_error_at_the_deadline_and_not_in_a_hang() {
    let folder = tempfile::tempdir().unwrap();
    let made = made(3, &[("a", 5_000)], 64 * 1024, Layout::Gzip);
    let script = Script::new(|_| Deed::Stall);
    script.add(made.digest, &made.blob);
    let mut config = config();
    config.fault_deadline = Duration::from_millis(400);
    config.stall = Duration::from_millis(50);
    let fetcher = fetcher(folder.path(), config, &Arc::new(Shared(Arc::clone(&script))));
    let image = fetcher.image(made.spec("test", &[])).unwrap();
    let error = image.read(made.node("a"), 0, &mut [0; 100]).unwrap_err();
    let FetchError::Deadline { last: Some(last), .. } = &error else { panic!("{error}") };
    assert!(matches!(**last, SourceError::Deadline { .. }), "{last}");
    assert!(script.requests().len() > 1, "it was tried again in between");
}

#[test]
fn l9_a_stalled_source_is_left_for_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let made = made(4, &[("a", 50_000)], 64 * 1024, Layout::Gzip);
    let script =
        Script::of(&["slow", "quick"], |asked| if asked.place == "slow" { Deed::Stall } else { Deed::Serve });
    script.add(made.digest, &made.blob);
    let mut config = config();
    config.stall = Duration::from_millis(50);
    let fetcher = fetcher(folder.path(), config, &Arc::new(Shared(Arc::clone(&script))));
    let image = fetcher.image(made.spec("test", &[])).unwrap();
    assert_eq!(whole(&image, &made, "a", 5_000), made.bytes("a"));
}

#[test]
fn c12_a_transfer_that_breaks_every_few_bytes_goes_on_where_it_broke() {
    let folder = tempfile::tempdir().unwrap();
    let made = made(5, &[("a", 30_000), ("b", 30_000)], 64 * 1024, Layout::Plain);
    let script = Script::new(|_| Deed::Break(7_000));
    script.add(made.digest, &made.blob);
    let fetcher = fetcher(folder.path(), config(), &Arc::new(Shared(Arc::clone(&script))));
    let image = fetcher.image(made.spec("test", &[])).unwrap();
    for path in ["a", "b"] {
        assert_eq!(whole(&image, &made, path, 30_000), made.bytes(path));
    }
    assert!(script.bytes_sent() <= made.blob.len() as u64, "no byte comes twice");
}

#[test]
fn c12_a_source_that_refuses_for_a_while_and_comes_back_costs_time_and_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let made = made(6, &[("a", 30_000)], 64 * 1024, Layout::Gzip);
    let script = Script::new(|asked| if asked.number < 4 { Deed::Refuse } else { Deed::Serve });
    script.add(made.digest, &made.blob);
    let fetcher = fetcher(folder.path(), config(), &Arc::new(Shared(Arc::clone(&script))));
    let image = fetcher.image(made.spec("test", &[])).unwrap();
    assert_eq!(whole(&image, &made, "a", 30_000), made.bytes("a"));
    assert_eq!(script.requests().len(), 5);
}

#[test]
fn c12_what_no_source_will_ever_have_is_an_error_at_once_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let made = made(7, &[("a", 300)], 64 * 1024, Layout::Gzip);
    let script = Script::new(|_| Deed::Never);
    script.add(made.digest, &made.blob);
    let fetcher = fetcher(folder.path(), config(), &Arc::new(Shared(Arc::clone(&script))));
    let image = fetcher.image(made.spec("test", &[])).unwrap();
    let error = image.read(made.node("a"), 0, &mut [0; 100]).unwrap_err();
    assert!(matches!(error, FetchError::Unavailable { .. }), "{error}");
}

#[test]
fn c12_a_host_that_sends_the_whole_blob_is_asked_once_for_all_readers() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..50).map(|number| format!("f{number:02}")).collect();
    let files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 20_000)).collect();
    let made = made(8, &files, 64 * 1024, Layout::Gzip);
    let script = Script::new(|_| Deed::Whole);
    script.add(made.digest, &made.blob);
    let fetcher = fetcher(folder.path(), config(), &Arc::new(Shared(Arc::clone(&script))));
    let image = fetcher.image(made.spec("test", &[])).unwrap();
    // The first reader makes the stream; what it passes is kept, whoever wants it.
    assert_eq!(whole(&image, &made, "f25", 20_000), made.bytes("f25"));
    std::thread::scope(|scope| {
        for name in &names {
            let (image, made) = (&image, &made);
            scope.spawn(move || assert_eq!(whole(image, made, name, 20_000), made.bytes(name)));
        }
    });
    wait_until("the stream has ended", || image.status().complete);
    assert_eq!(script.requests().len(), 1);
}

#[test]
fn c12_a_whole_stream_that_breaks_is_begun_again_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let made = made(9, &[("a", 60_000), ("b", 60_000), ("c", 60_000)], 64 * 1024, Layout::Plain);
    let script = Script::new(|asked| if asked.number == 0 { Deed::Break(70_000) } else { Deed::Whole });
    script.add(made.digest, &made.blob);
    let fetcher = fetcher(folder.path(), config(), &Arc::new(Shared(Arc::clone(&script))));
    let image = fetcher.image(made.spec("test", &[])).unwrap();
    image.fill();
    for path in ["c", "a", "b"] {
        assert_eq!(whole(&image, &made, path, 60_000), made.bytes(path));
    }
}

#[test]
fn a_fetcher_that_is_closed_leaves_nobody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let made = made(10, &[("a", 30_000)], 64 * 1024, Layout::Gzip);
    let script = Script::new(|_| Deed::Gate);
    script.add(made.digest, &made.blob);
    let fetcher = fetcher(folder.path(), config(), &Arc::new(Shared(Arc::clone(&script))));
    let image = fetcher.image(made.spec("test", &[])).unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| image.read(made.node("a"), 0, &mut [0; 100]));
        wait_until("the reader waits", || !script.requests().is_empty());
        fetcher.close().unwrap();
        assert!(matches!(reader.join().unwrap(), Err(FetchError::Closed)));
    });
    assert!(matches!(image.read(made.node("a"), 0, &mut [0; 100]), Err(FetchError::Closed)));
}
