//! What the store takes, by kind.

use storage_content::{Expected, ImageRecord, NewSnapshot, Usage};
use storage_model::Labels;

use crate::support::{Fixture, descriptor, put};

#[test]
fn bytes_are_counted_once_by_kind_and_what_a_collection_frees_is_said() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let kept = put(&space, &[1; 1000]);
    put(&space, &[2; 300]);
    let other = fixture.store.space(&"other".parse().unwrap());
    other.ingest("ref", Expected { digest: Some(kept), size: None }).unwrap_err();
    space.create_image(ImageRecord::new("i", descriptor(kept), Labels::new())).unwrap();
    let table = space.snapshots("overlayfs");
    table.insert(NewSnapshot::Active, "draft", None, Labels::new()).unwrap();
    table.commit("draft", "base", None, Usage { bytes: 8192, inodes: 2 }, Labels::new()).unwrap();
    table.insert(NewSnapshot::Active, "rw", Some("base"), Labels::new()).unwrap();
    let mut ingest = space.ingest("ref", Expected::default()).unwrap();
    ingest.write(&[3; 50]).unwrap();
    let usage = fixture.store.disk_usage().unwrap();
    assert_eq!((usage.blobs.count, usage.blobs.bytes, usage.blobs.reclaimable_bytes), (2, 1300, 300));
    assert_eq!((usage.snapshots.count, usage.snapshots.bytes), (2, 8192));
    assert_eq!((usage.snapshots.reclaimable_bytes, usage.unmeasured_snapshots), (8192, 1));
    assert_eq!((usage.ingests.count, usage.ingests.bytes, usage.ingests.reclaimable_bytes), (1, 50, 0));
    assert!(usage.metadata.bytes > 0 && usage.metadata.count > 2);
    assert_eq!((usage.quarantine.count, usage.trash.count), (0, 0));
    assert!(usage.bytes() >= 1300 + 8192 + 50 + usage.metadata.bytes);
    fixture.store.quarantine_blob(&kept).unwrap();
    let usage = fixture.store.disk_usage().unwrap();
    assert_eq!((usage.blobs.count, usage.quarantine.count, usage.quarantine.bytes), (1, 1, 1000));
}
