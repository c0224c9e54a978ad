//! The contract as tests: each case is one sentence of [`Snapshotter`]'s documentation, run against a fresh root with
//! real mounts.
//!
//! An implementation calls [`conformance_tests!`](crate::conformance_tests) in its own tests; each case becomes one test
//! named by its sentence. Cases need permission to mount and say so where they lack it. A case fails by panicking, which
//! is why this module may `unwrap`. The behaviours are those of containerd's suite and of the traps found beside it.
#![allow(clippy::unwrap_used)]

mod layers;
mod life;
mod many;
mod names;
mod tree;
mod unpack;
mod usage;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use storage_model::Labels;
use storage_sys::mount::{self, Attributes, Depth, MountError};

use crate::{ActiveKey, CommittedName, ErrorKind, Mount, SnapshotError, Snapshotter};

pub use tree::{Entry, describe};

/// A snapshotter to be tested.
pub trait Implementation: Sync {
    /// Opens it over `root`: an empty directory the first time, the same one again after the value was dropped.
    fn open(&self, root: &Path) -> Box<dyn Opened>;

    /// Whether a directory of a lower layer can be renamed. Overlayfs without redirects answers `EXDEV`, as containerd's
    /// suite knows.
    fn renames_lower_directories(&self) -> bool;

    /// Whether a snapshot is a copy of its parent, and so takes what that takes.
    fn copies_parents(&self) -> bool {
        false
    }
}

/// An open snapshotter. Dropping it and all that was bound closes it.
pub trait Opened {
    /// The snapshotter as `namespace` sees it.
    fn bind(&self, namespace: &str) -> Arc<dyn Snapshotter>;
}

/// One sentence of the contract.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The sentence, as an identifier.
    pub name: &'static str,
    run: fn(&mut Bench<'_>),
}

macro_rules! cases {
    // `$d` is a dollar sign: the macro made here has an argument of its own.
    ($d:tt $($module:ident::{$($case:ident),+ $(,)?}),+ $(,)?) => {
        /// Every case.
        pub const CASES: &[Case] = &[$($(Case { name: stringify!($case), run: $module::$case }),+),+];

        /// Makes one `#[test]` of each case of the suite: `conformance_tests!(value)`, where the value is an
        /// [`Implementation`](crate::conformance::Implementation).
        #[macro_export]
        macro_rules! conformance_tests {
            ($d implementation:expr) => {
                $($(
                    #[test]
                    fn $case() {
                        $d crate::conformance::run(&$d implementation, stringify!($case));
                    }
                )+)+
            };
        }
    };
}

cases! {
    $
    life::{
        a_snapshot_is_prepared_written_committed_and_stacked,
        an_active_snapshot_shows_what_it_is,
        each_snapshot_names_its_own_parent_only,
        only_a_committed_snapshot_may_be_a_parent,
        only_an_active_snapshot_can_be_committed,
        a_committed_snapshot_is_not_mounted_itself,
        mounts_are_found_again,
        what_was_acknowledged_is_there_after_opening_again,
        a_snapshot_that_others_stand_on_cannot_be_removed,
        writing_to_one_snapshot_changes_no_other,
        cleanup_touches_nothing_that_exists,
    },
    names::{
        a_key_is_taken_whatever_its_kind,
        keys_and_names_can_be_used_again,
        keys_of_any_text_are_told_apart,
        a_walk_tells_what_stat_tells,
        a_visitor_may_call_the_snapshotter,
        an_update_changes_labels_and_their_time_only,
        labels_are_those_given_last,
        a_label_that_is_too_long_is_refused,
        a_namespace_sees_its_own_snapshots_only,
    },
    layers::{
        an_empty_snapshot_is_a_directory_of_mode_755,
        a_changed_file_shows_its_last_content_and_mode,
        a_directory_that_was_made_anew_hides_what_it_held,
        owners_and_modes_survive_commits,
        the_top_directory_keeps_its_owner_and_mode,
        deleted_files_stay_deleted,
        a_link_to_a_lower_file_outlives_its_first_name,
        times_links_and_sockets_survive,
        extended_attributes_survive,
        files_can_be_renamed_over_others,
        lower_directories_are_renamed_or_refused,
        a_view_refuses_every_write,
        a_view_of_nothing_is_empty_and_read_only,
        the_layers_of_a_committed_snapshot_are_listed_highest_first,
    },
    unpack::{
        a_layer_unpacked_without_a_mount_looks_the_same,
        layers_unpacked_side_by_side_are_stacked_at_commit,
        a_snapshot_is_put_on_another_parent_only_if_it_has_none,
        what_waits_for_its_parent_is_an_overlay_with_an_upper_directory,
        what_is_neither_waiting_nor_on_a_parent_is_no_overlay,
        a_layer_unpacked_before_its_parent_deletes_from_it,
        a_failed_commit_on_a_parent_changes_nothing,
        links_within_a_layer_survive_its_commit_on_a_parent,
        the_trees_of_a_committed_snapshot_are_told_highest_first,
    },
    usage::{
        usage_counts_the_snapshot_without_its_parents,
        usage_of_an_active_snapshot_follows_what_is_written,
        usage_that_the_caller_counted_is_kept,
        a_view_takes_nothing_of_its_parents,
    },
    many::{
        a_hundred_and_twenty_eight_layers_are_mounted,
        of_many_that_make_one_key_exactly_one_succeeds,
        many_threads_make_commit_and_remove_at_once,
        a_thousand_lives_at_once_meet_no_error,
    },
}

/// Runs one case against a fresh root.
///
/// # Panics
/// If the implementation breaks the sentence, or if there is no case called `name`.
pub fn run(implementation: &dyn Implementation, name: &str) {
    let case = CASES.iter().find(|case| case.name == name).expect("a case of CASES");
    if let Some(mut bench) = Bench::new(implementation) {
        (case.run)(&mut bench);
    }
}

/// A fresh root with an open snapshotter, and places to mount at.
pub struct Bench<'a> {
    implementation: &'a dyn Implementation,
    scratch: tempfile::TempDir,
    opened: Option<Box<dyn Opened>>,
    snapshotter: Option<Arc<dyn Snapshotter>>,
    mounts: AtomicU32,
}

impl<'a> Bench<'a> {
    /// `None` where mounting is not permitted.
    fn new(implementation: &'a dyn Implementation) -> Option<Self> {
        let scratch = tempfile::tempdir().unwrap();
        match mount::bind(scratch.path(), Depth::One, Attributes::default()) {
            Ok(_) => {}
            Err(MountError::NotPermitted { .. }) => {
                eprintln!("skipped: mounting is not permitted here (run as root)");
                return None;
            }
            Err(error) => panic!("cannot mount in {:?}: {error}", scratch.path()),
        }
        std::fs::create_dir(scratch.path().join("root")).unwrap();
        let mut bench =
            Self { implementation, scratch, opened: None, snapshotter: None, mounts: AtomicU32::new(0) };
        bench.reopen();
        Some(bench)
    }

    /// Closes the snapshotter and opens it over the same root.
    fn reopen(&mut self) {
        self.snapshotter = None;
        self.opened = None;
        let opened = self.implementation.open(&self.root());
        self.snapshotter = Some(opened.bind("conformance"));
        self.opened = Some(opened);
    }

    /// Directory of the files under test; for looks at what is left in it.
    fn root(&self) -> PathBuf {
        self.scratch.path().canonicalize().unwrap().join("root")
    }

    fn snapshotter(&self) -> &dyn Snapshotter {
        self.snapshotter.as_deref().expect("open between reopen calls")
    }

    fn shared(&self) -> Arc<dyn Snapshotter> {
        self.snapshotter.clone().expect("open between reopen calls")
    }

    fn bind(&self, namespace: &str) -> Arc<dyn Snapshotter> {
        self.opened.as_ref().expect("open between reopen calls").bind(namespace)
    }

    /// Mounts, looks, unmounts.
    fn mounted<T>(&self, mounts: &[Mount], look: impl FnOnce(&Path) -> T) -> T {
        assert!(!mounts.is_empty() && mounts.iter().all(|mount| mount.target.is_empty()), "{mounts:?}");
        let number = self.mounts.fetch_add(1, Ordering::Relaxed);
        let target = self.scratch.path().canonicalize().unwrap().join(format!("mount-{number}"));
        std::fs::create_dir(&target).unwrap();
        let mounts: Vec<_> = mounts.iter().map(mount::Mount::from).collect();
        if let Err(error) = mount::mount_all(&mounts, &target) {
            panic!("{error}: {:?}", std::error::Error::source(&error));
        }
        let guard = Mounted(&target);
        let seen = look(&target);
        drop(guard);
        seen
    }

    /// Makes a committed snapshot whose files `write` changes.
    fn layer(&self, name: &str, parent: Option<&str>, write: impl FnOnce(&Path)) -> CommittedName {
        let key = active(&format!("making {name}"));
        let parent = parent.map(committed);
        let mounts = self.snapshotter().prepare(&key, parent.as_ref(), &Labels::new()).unwrap();
        self.mounted(&mounts, write);
        let name = committed(name);
        self.snapshotter().commit(&key, &name, None, &Labels::new()).unwrap();
        name
    }

    /// Looks at a committed snapshot through a view that is removed again.
    fn look<T>(&self, name: &str, look: impl FnOnce(&Path) -> T) -> T {
        let key = active(&format!("looking at {name}"));
        let mounts = self.snapshotter().view(&key, Some(&committed(name)), &Labels::new()).unwrap();
        let seen = self.mounted(&mounts, look);
        self.snapshotter().remove(key.as_str()).unwrap();
        seen
    }
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        if let Ok(root) = self.scratch.path().canonicalize()
            && let Err(error) = mount::unmount_under(&root)
        {
            eprintln!("mounts are left below {root:?}: {error}");
        }
    }
}

/// Takes a mount away, panic or not.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if mount::unmount(self.0).is_err() {
            let _ = mount::detach(self.0);
        }
    }
}

fn active(key: &str) -> ActiveKey {
    key.parse().unwrap()
}

fn committed(name: &str) -> CommittedName {
    name.parse().unwrap()
}

/// Asserts that a call was refused with an error of this kind.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, SnapshotError>, kind: ErrorKind) -> SnapshotError {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    error
}
