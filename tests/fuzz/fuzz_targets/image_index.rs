//! No bytes make the reader of image indexes panic, whatever is asked of it.
//!
//! The bytes get a right start and a right checksum, or the fuzzer would never come past these.
#![no_main]

use lazy_index::{Digest, ImageIndex, NodeId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let _ = ImageIndex::from_bytes(body.to_vec());
    let checksum = Digest::of(body);
    let bytes = [&b"windlass image 1"[..], checksum.as_bytes(), body].concat();
    let Ok(index) = ImageIndex::from_bytes(bytes) else { return };
    for node in (0..index.nodes().saturating_add(2)).map(NodeId) {
        let _ = (index.attr(node), index.link_target(node), index.path(node), index.file_digest(node));
        let _ = (index.parent(node), index.xattrs(node).count(), index.lookup(node, b"a"));
        let _ = (index.children(node, 0).count(), index.chunks(node, 1, 100).count());
    }
    for group in index.groups().take(100) {
        let _ = (index.group_chunks(group.number).count(), index.blob(group.blob));
    }
});
