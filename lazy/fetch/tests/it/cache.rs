//! What is kept: through restarts, power cuts, damage, and a disk that is too small. Rows L7 and L11.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lazy_fetch::{FetchError, Fetcher};

use crate::common::image::{Layout, Made, made};
use crate::common::source::{Script, Shared};
use crate::common::{config, fetcher, wait_until, whole};

const FILES: [(&str, usize); 4] = [("a", 10), ("b", 70_000), ("big", 2_500_000), ("c", 300_000)];

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files_below(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

fn check_all(fetcher: &Fetcher, made: &Made) {
    let image = fetcher.image(made.spec("test", &[])).unwrap();
    for (path, bytes) in &made.files {
        assert_eq!(whole(&image, made, path, 50_000), *bytes, "{path}");
    }
}

/// As after a reboot without a clean end.
fn forget_boot(directory: &Path) {
    let path = directory.join("session");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut note: serde_json::Value = serde_json::from_str(&text).unwrap();
    note["boot"] = "another".into();
    std::fs::write(&path, note.to_string()).unwrap();
}

#[test]
fn the_cache_outlives_the_process_and_the_boot() {
    for layout in [Layout::Gzip, Layout::Shared] {
        let folder = tempfile::tempdir().unwrap();
        let made = made(1, &FILES, 64 * 1024, layout);
        let script = Script::good();
        script.add(made.digest, &made.blob);
        let sources = Arc::new(Shared(Arc::clone(&script)));
        check_all(&fetcher(folder.path(), config(), &sources), &made);
        let sent = script.bytes_sent();
        // Without a clean end; then with one; then after a reboot without one.
        check_all(&fetcher(folder.path(), config(), &sources), &made);
        let clean = fetcher(folder.path(), config(), &sources);
        check_all(&clean, &made);
        clean.close().unwrap();
        drop(clean);
        check_all(&fetcher(folder.path(), config(), &sources), &made);
        forget_boot(folder.path());
        check_all(&fetcher(folder.path(), config(), &sources), &made);
        assert_eq!(script.bytes_sent(), sent, "{layout:?}: nothing was fetched again");
    }
}

#[test]
fn l7_every_bit_that_turns_in_the_cache_is_seen_and_the_bytes_are_fetched_again() {
    for layout in [Layout::Gzip, Layout::Shared] {
        let folder = tempfile::tempdir().unwrap();
        let made = made(2, &FILES, 64 * 1024, layout);
        let script = Script::good();
        script.add(made.digest, &made.blob);
        let sources = Arc::new(Shared(Arc::clone(&script)));
        let fetcher = fetcher(folder.path(), config(), &sources);
        check_all(&fetcher, &made);
        let sent = script.bytes_sent();
        for path in files_below(folder.path()) {
            let data = path.extension().is_some_and(|e| e == "pack")
                || path
                    .parent()
                    .is_some_and(|p| p.parent().unwrap().ends_with("objects") && path.extension().is_none());
            if data {
                let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
                let length = file.metadata().unwrap().len();
                for at in (3..length).step_by(20_000) {
                    let mut byte = [0];
                    file.read_exact_at(&mut byte, at).unwrap();
                    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
                }
            }
        }
        check_all(&fetcher, &made);
        assert!(script.bytes_sent() > sent, "it was seen");
    }
}

#[test]
fn l11_a_cache_file_that_is_cut_off_or_gone_is_a_fetch_and_no_death() {
    let folder = tempfile::tempdir().unwrap();
    let made = made(3, &FILES, 64 * 1024, Layout::Gzip);
    let script = Script::good();
    script.add(made.digest, &made.blob);
    let sources = Arc::new(Shared(Arc::clone(&script)));
    let running = fetcher(folder.path(), config(), &sources);
    check_all(&running, &made);
    let kept = ["packs", "objects"].map(|name| files_below(&folder.path().join(name)));
    for path in kept.iter().flatten() {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(length / 2).unwrap();
    }
    check_all(&running, &made);
    drop(running);
    check_all(&fetcher(folder.path(), config(), &sources), &made);
    std::fs::remove_dir_all(folder.path().join("packs")).unwrap();
    check_all(&fetcher(folder.path(), config(), &sources), &made);
}

#[test]
fn crash_a_power_cut_that_kept_records_and_lost_bytes_gives_no_wrong_byte() {
    for lost in 0..6u64 {
        let folder = tempfile::tempdir().unwrap();
        let made = made(4, &FILES, 64 * 1024, if lost % 2 == 0 { Layout::Gzip } else { Layout::Shared });
        let script = Script::good();
        script.add(made.digest, &made.blob);
        let sources = Arc::new(Shared(Arc::clone(&script)));
        check_all(&fetcher(folder.path(), config(), &sources), &made);
        // Some pages of every data file were never written; journals were, or were cut.
        let kept = ["packs", "objects"].map(|name| files_below(&folder.path().join(name)));
        for path in kept.iter().flatten() {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            let length = file.metadata().unwrap().len();
            let journal = path.extension().is_some_and(|e| e == "idx" || e == "map");
            if journal && lost > 3 {
                file.set_len(length * lost / 7).unwrap();
            } else if !journal && length > 4096 {
                for page in (0..length / 4096).filter(|page| page % 6 == lost) {
                    file.write_all_at(&[0; 4096], page * 4096).unwrap();
                }
            }
        }
        forget_boot(folder.path());
        check_all(&fetcher(folder.path(), config(), &sources), &made);
    }
}

#[test]
fn a_cache_is_one_processs_and_of_one_format() {
    let folder = tempfile::tempdir().unwrap();
    let sources = Arc::new(Shared(Script::good()));
    drop(fetcher(folder.path(), config(), &sources));
    std::fs::write(folder.path().join("FORMAT"), "windlass lazy cache 99").unwrap();
    let error = Fetcher::open(folder.path(), config(), sources).err().unwrap();
    assert!(matches!(error, FetchError::CacheFormat { .. }), "{error}");
}

#[test]
fn with_a_quota_what_is_not_mounted_goes_and_what_is_mounted_stays() {
    let folder = tempfile::tempdir().unwrap();
    let script = Script::good();
    let files = [("small", 900_000), ("big", 2_000_000)];
    let made: Vec<Made> = (0..4).map(|n| made(10 + 10 * n, &files, 64 * 1024, Layout::Gzip)).collect();
    made.iter().for_each(|made| script.add(made.digest, &made.blob));
    let mut config = config();
    config.quota_bytes = 7_000_000;
    let fetcher = fetcher(folder.path(), config, &Arc::new(Shared(Arc::clone(&script))));
    let kept = fetcher.image(made[0].spec("kept", &[])).unwrap();
    kept.fill();
    wait_until("the first is here", || kept.status().complete);
    for other in &made[1..] {
        check_all(&fetcher, other);
        assert!(fetcher.cache_bytes() <= 7_000_000, "{}", fetcher.cache_bytes());
        assert!(kept.status().complete, "what is mounted stays");
    }
    let last = fetcher.image(made[3].spec("last", &[])).unwrap();
    assert!(last.status().bytes_present > 0, "what came last was kept");
}

#[test]
fn when_nothing_can_go_bytes_are_served_without_being_kept_and_filling_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let made = made(5, &FILES, 64 * 1024, Layout::Gzip);
    let script = Script::good();
    script.add(made.digest, &made.blob);
    let mut config = config();
    config.quota_bytes = 1_000_000;
    let fetcher = fetcher(folder.path(), config, &Arc::new(Shared(Arc::clone(&script))));
    let image = fetcher.image(made.spec("test", &[])).unwrap();
    for _ in 0..2 {
        for (path, bytes) in &made.files {
            assert_eq!(whole(&image, &made, path, 50_000), *bytes, "{path}");
        }
    }
    assert!(fetcher.cache_bytes() <= 1_000_000);
    image.fill();
    wait_until("the background gives up", || !image.status().filling);
    let status = image.status();
    assert!(!status.complete && status.fill_error.as_ref().unwrap().contains("full"), "{status:?}");
}
