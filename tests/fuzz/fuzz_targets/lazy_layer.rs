//! Any tar is converted to each lazy form or refused; the dialect that keeps the tar keeps it to the byte.
#![no_main]
use std::io::Write;

use lazy_build::{Dialect, Format, LayerOptions, write_layer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|tar: &[u8]| {
    let mut file = storage_sys::memory::memory_file("tar").expect("memory");
    file.write_all(tar).expect("memory");
    for format in
        [Format::Estargz, Format::ZstdChunked(Dialect::Containers), Format::ZstdChunked(Dialect::Stargz)]
    {
        let options = LayerOptions { level: Some(1), threads: 1, ..LayerOptions::new(format) };
        let mut blob = Vec::new();
        let Ok(written) = write_layer(&file, &mut blob, &options) else { continue };
        assert_eq!(written.size, blob.len() as u64);
        if format == Format::ZstdChunked(Dialect::Containers) {
            let compression = storage_model::Compression::Zstd;
            let limits = storage_layer::Limits::default();
            let mut source =
                storage_layer::Decompressor::new(&blob[..], compression, &limits).expect("our own");
            let mut found = vec![0; tar.len() + 1];
            let filled = source.fill(&mut found).expect("our own");
            assert_eq!(&found[..filled], tar);
        }
    }
});
