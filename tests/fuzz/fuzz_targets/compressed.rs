//! No bytes make the decompressors panic, run past their limits, or go on after they refused.
//!
//! The first byte chooses between gzip and zstd; the rest is the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use storage_layer::{Decompressor, Limits};
use storage_model::Compression;

const BYTES_MAX: u64 = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, stream)) = bytes.split_first() else { return };
    let compression = if choice & 1 == 0 { Compression::Gzip } else { Compression::Zstd };
    let limits = Limits { uncompressed_bytes_max: BYTES_MAX, ..Limits::default() };
    let Ok(mut source) = Decompressor::new(stream, compression, &limits) else { return };
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0u64;
    while let Ok(filled) = source.fill(&mut buffer) {
        total += filled as u64;
        assert!(total <= BYTES_MAX);
        assert_eq!(total, source.uncompressed_bytes());
        if filled < buffer.len() {
            assert_eq!(source.compressed_bytes(), stream.len() as u64, "bytes were left unread");
            return;
        }
    }
});
