//! Opening: who may, and how fast.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use storage_content::{ErrorKind, Store, StoreError};

use crate::support::Fixture;

#[test]
fn a_second_open_fails_at_once_and_names_the_process_that_holds_the_root() {
    let fixture = Fixture::new();
    let begun = Instant::now();
    let error = Store::open(fixture.root()).unwrap_err();
    assert!(begun.elapsed() < Duration::from_millis(500));
    assert!(matches!(error, StoreError::InUse { holder: Some(pid), .. } if pid == std::process::id()));
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[test]
fn the_root_is_free_again_when_the_last_handle_is_dropped() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let fixture_root = fixture.root().to_path_buf();
    drop(fixture.store.clone());
    assert!(Store::open(&fixture_root).is_err(), "a space and the first handle still hold it");
    drop(space);
    let fixture = fixture.reopened(|_| ());
    assert!(fixture.store.recovery().is_clean());
}

#[test]
fn the_root_is_closed_to_others() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("a/b");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).unwrap();
    drop(Store::open(&root).unwrap());
    assert_eq!(root.metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_directory_with_other_files_in_it_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("thesis.txt"), "mine").unwrap();
    let mode = directory.path().metadata().unwrap().permissions().mode();
    let error = Store::open(directory.path()).unwrap_err();
    assert!(matches!(&error, StoreError::NotAStore { found, .. } if found == "thesis.txt"), "{error}");
    assert_eq!(directory.path().metadata().unwrap().permissions().mode(), mode);
    assert_eq!(crate::support::names(directory.path()), ["thesis.txt"]);
}

#[test]
fn the_daemons_log_may_be_there_before_the_store() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("daemon.log"), "starting").unwrap();
    Store::open(directory.path()).unwrap();
}

#[test]
fn a_root_that_belongs_to_someone_else_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    if std::os::unix::fs::chown(directory.path(), Some(12345), None).is_err() {
        return; // only root can give a directory away
    }
    let error = Store::open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::NotOwned { owner: 12345, .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

#[test]
fn a_store_with_a_feature_that_must_be_understood_is_refused_by_its_name() {
    let fixture = Fixture::new();
    let directory = tempfile::tempdir().unwrap();
    drop(Store::open(directory.path()).unwrap());
    std::fs::write(directory.path().join("VERSION"), "windlass-store 1\nincompat packs\n").unwrap();
    let error = Store::open(directory.path()).unwrap_err();
    assert!(error.to_string().contains("another version"), "{error}");
    assert!(matches!(&error, StoreError::Format { problem, .. } if problem.to_string().contains("packs")));
    drop(fixture);
}
