//! A full disk: a clear error, nothing half-made, and everything works again when there is room.

use std::path::Path;
use std::process::Command;

use storage_content::{ErrorKind, Expected, ImageRecord, NewSnapshot, Space, Store, StoreError};
use storage_model::{Digest, Labels};

/// A small file system in memory, unmounted when dropped. Nothing if this user may not mount.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(bytes: u64) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=700"), "tmpfs"])
            .arg(directory.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(Self(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(self.path()).status();
        assert!(done.is_ok_and(|status| status.success()));
    }
}

#[test]
fn vuln_b6_fault_f5_a_full_disk_is_named_and_what_was_written_before_stays_and_goes_on_when_there_is_room() {
    let Some(disk) = Small::mount(24 << 20) else {
        eprintln!("not run: this user may not mount");
        return;
    };
    let store = Store::open(disk.path()).unwrap();
    let space = store.space(&"default".parse().unwrap());
    let mut ingest = space.ingest("ref", Expected::default()).unwrap();
    let piece = vec![7_u8; 100_000];
    let error = loop {
        if let Err(error) = ingest.write(&piece) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
    assert!(matches!(&error, StoreError::Full { path, .. } if path.starts_with(disk.path())), "{error}");
    assert!(error.to_string().contains("free some space"), "{error}");
    let kept = ingest.offset();
    assert_eq!(kept % 100_000, 0, "nothing of the refused write counts");
    let refused = fill_metadata(&space);
    assert_eq!(refused.kind(), ErrorKind::ResourceExhausted, "{refused:?}");
    let table = space.snapshots("overlayfs");
    // Room again.
    ingest.truncate(1_000_000).unwrap();
    table.insert(NewSnapshot::Active, "after", None, Labels::new()).unwrap();
    let digest = ingest.commit(Expected::default(), Labels::new()).unwrap();
    assert_eq!(digest, Digest::of(&piece.repeat(10)));
    drop((space, table, store));
    let store = Store::open(disk.path()).unwrap();
    assert!(store.recovery().is_clean(), "{:?}", store.recovery());
    store.space(&"default".parse().unwrap()).blob(&digest).unwrap();
}

/// Makes snapshots until the disk is full, and answers with the error.
fn fill_metadata(space: &Space) -> StoreError {
    let table = space.snapshots("overlayfs");
    (0..40_000)
        .find_map(|at| {
            let labels = [("l".to_owned(), "x".repeat(4000))].into();
            table.insert(NewSnapshot::Active, &format!("k{at}"), None, labels).err()
        })
        .expect("a full disk takes no metadata")
}

#[test]
fn vuln_b6_fault_f5_what_takes_the_room_can_be_deleted_on_a_disk_that_is_full_to_the_last_block() {
    let Some(disk) = Small::mount(96 << 20) else {
        eprintln!("not run: this user may not mount");
        return;
    };
    let store = Store::open(disk.path()).unwrap();
    let space = store.space(&"default".parse().unwrap());
    let digest = crate::support::put(&space, &vec![1; 8 << 20]);
    let image = ImageRecord::new("large", crate::support::descriptor(digest), Labels::new());
    space.create_image(image).unwrap();
    let mut ingest = space.ingest("ref", Expected::default()).unwrap();
    for size in [1 << 20, 1 << 12, 1] {
        while ingest.write(&vec![7; size]).is_ok() {}
    }
    assert_eq!(fill_metadata(&space).kind(), ErrorKind::ResourceExhausted);
    space.image("large").unwrap();
    space.delete_image("large").unwrap();
    let collected = store.collect(&mut |_| ()).unwrap();
    assert!(collected.freed_bytes >= 8 << 20, "{collected:?}");
    space.snapshots("overlayfs").insert(NewSnapshot::Active, "after", None, Labels::new()).unwrap();
}
