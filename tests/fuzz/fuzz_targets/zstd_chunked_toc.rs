//! No JSON makes the reader of zstd:chunked tables panic, in either dialect; what passes the validation can be merged.
#![no_main]

mod lazy;

use lazy_index::zstd_chunked::{self, Dialect};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    for dialect in [Dialect::Containers, Dialect::Stargz] {
        if let Ok(contents) = zstd_chunked::toc(json, dialect, lazy::BLOB_BYTES, &lazy::limits()) {
            lazy::use_it(&contents.toc);
        }
    }
});
