//! What a snapshot takes.

use std::fs;
use std::path::Path;

use storage_model::Labels;

use super::{Bench, active, committed, refused};
use crate::{ErrorKind, Usage};

/// Written as data, so that no file system keeps it as a hole.
fn write(path: &Path, bytes: usize) {
    fs::write(path, vec![b'x'; bytes]).unwrap();
}

const MIB: usize = 1024 * 1024;

pub(super) fn usage_counts_the_snapshot_without_its_parents(bench: &mut Bench<'_>) {
    bench.layer("big", None, |root| write(&root.join("big"), 4 * MIB));
    bench.layer("small", Some("big"), |root| write(&root.join("small"), MIB));
    bench.layer("empty", Some("small"), |_| {});
    let usage = |key: &str| bench.snapshotter().usage(key).unwrap();
    let (big, small, empty) = (usage("big"), usage("small"), usage("empty"));
    let range = |mib: usize| (mib * MIB) as u64..(mib * MIB + MIB / 2) as u64;
    // A copy has the files of all below it.
    let (small_mib, empty_mib, inodes) =
        if bench.implementation.copies_parents() { (5, 5, (2, 3, 3)) } else { (1, 0, (2, 2, 1)) };
    assert!(range(4).contains(&big.bytes), "{big:?}");
    assert!(range(small_mib).contains(&small.bytes), "{small:?}");
    assert!(range(empty_mib).contains(&empty.bytes), "{empty:?}");
    assert_eq!((big.inodes, small.inodes, empty.inodes), inodes, "files and the top directory");
    refused(bench.snapshotter().usage("nobody"), ErrorKind::NotFound);
}

pub(super) fn usage_of_an_active_snapshot_follows_what_is_written(bench: &mut Bench<'_>) {
    let s = bench.snapshotter();
    let mounts = s.prepare(&active("a"), None, &Labels::new()).unwrap();
    let before = s.usage("a").unwrap();
    bench.mounted(&mounts, |root| {
        write(&root.join("file"), MIB);
        fs::hard_link(root.join("file"), root.join("again")).unwrap();
        std::os::unix::fs::symlink("/nowhere", root.join("link")).unwrap();
    });
    let after = s.usage("a").unwrap();
    assert_eq!(after.inodes, before.inodes + 2, "a file of two names counts once");
    assert!(after.bytes >= before.bytes + MIB as u64 && after.bytes < before.bytes + 2 * MIB as u64);
    s.commit(&active("a"), &committed("c"), None, &Labels::new()).unwrap();
    assert_eq!(s.usage("c").unwrap(), after);
}

pub(super) fn usage_that_the_caller_counted_is_kept(bench: &mut Bench<'_>) {
    let s = bench.snapshotter();
    s.prepare(&active("a"), None, &Labels::new()).unwrap();
    let counted = Usage { bytes: 123_456, inodes: 7 };
    s.commit_with_usage(&active("a"), &committed("c"), None, &Labels::new(), Some(counted)).unwrap();
    assert_eq!(s.usage("c").unwrap(), counted);
}

pub(super) fn a_view_takes_nothing_of_its_parents(bench: &mut Bench<'_>) {
    bench.layer("big", None, |root| write(&root.join("big"), MIB));
    let s = bench.snapshotter();
    s.view(&active("view"), Some(&committed("big")), &Labels::new()).unwrap();
    let usage = s.usage("view").unwrap();
    assert!(usage.bytes < MIB as u64 / 2 && usage.inodes <= 1, "{usage:?}");
}
