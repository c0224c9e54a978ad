//! What the targets for tables of contents share: small limits, and everything a table is used for.

use lazy_index::{Digest, ImageIndex, LayerPart, Limits, NodeId, Toc};

/// Size of the blob all tables are about.
pub const BLOB_BYTES: u64 = 1000;

/// Limits that a fuzzer reaches.
pub fn limits() -> Limits {
    Limits { entries_max: 1000, chunks_max: 1000, nodes_max: 5000, chunk_bytes_max: 1 << 20, ..Limits::default() }
}

/// Validates a table, and if it passes merges it with itself and reads all of the result.
pub fn use_it(toc: &Toc) {
    let limits = limits();
    if toc.validate(BLOB_BYTES, &limits).is_err() {
        return;
    }
    assert_eq!(Toc::decode(&toc.encode()).as_ref().ok(), Some(toc));
    let part = LayerPart { blob: Digest::of(b""), blob_bytes: BLOB_BYTES, toc };
    let Ok(bytes) = ImageIndex::build(&[part], &limits) else { panic!("what passed the validation cannot be merged") };
    let index = ImageIndex::from_bytes(bytes).expect("we made it");
    for node in (1..=index.nodes()).map(NodeId) {
        let attr = index.attr(node).expect("a node");
        let path = index.path(node).expect("a path");
        assert_eq!(index.find(&path), Some(node));
        let mut at = 0;
        for chunk in index.chunks(node, 0, u64::MAX) {
            assert!(chunk.file_offset == at && chunk.group.offset + chunk.group.length <= BLOB_BYTES);
            assert!(chunk.digest.is_some() || chunk.group.digest.is_some() || chunk.group.length == 0);
            at += chunk.length;
        }
        assert!(index.link_target(node).is_some() || at == attr.size);
    }
    // The same layer twice: what it hides, it hides again.
    if let Ok(twice) = ImageIndex::build(&[part, part], &limits) {
        let _ = ImageIndex::from_bytes(twice).expect("we made it").nodes();
    }
}
