//! No bytes make the reader of SOCI indexes panic, and what it accepts has one zTOC a layer.
#![no_main]

use lazy_index::soci::Index;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(index) = Index::parse(bytes) {
        assert!(index.ztocs.windows(2).all(|pair| pair[0].layer < pair[1].layer));
    }
});
