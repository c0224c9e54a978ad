//! An ordinary layer is foreign: its index is an error, or says of the stream nothing that is not in it.
#![no_main]
use lazy_build::{IndexOptions, index_layer};
use lazy_index::Coding;
use libfuzzer_sys::fuzz_target;
use storage_model::{Compression, Digest};

fuzz_target!(|data: (u8, &[u8])| {
    let (compression, bytes) = data;
    let compression = match compression % 3 {
        0 => Compression::None,
        1 => Compression::Gzip,
        _ => Compression::Zstd,
    };
    let options = IndexOptions {
        span_bytes: 4096,
        group_bytes: 1024,
        chunk_bytes_max: 2000,
        ..IndexOptions::default()
    };
    let Ok(indexed) = index_layer(bytes, compression, &options) else { return };
    assert_eq!(indexed.digest, Digest::of(bytes));
    for chunk in &indexed.toc.chunks {
        let group = &indexed.toc.groups[chunk.group as usize];
        let inside = group.output_length.is_some_and(|length| chunk.inner_offset + chunk.length <= length);
        assert!(inside || group.coding == Coding::Zeros);
        assert!(group.offset + group.length <= bytes.len() as u64);
    }
});
