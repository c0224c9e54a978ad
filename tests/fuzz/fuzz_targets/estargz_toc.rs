//! No JSON makes the reader of eStargz tables panic; what it accepts and the validation lets through can be merged, and
//! survives our own encoding.
#![no_main]

mod lazy;

use lazy_index::estargz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    if let Ok(toc) = estargz::toc(json, lazy::BLOB_BYTES, &lazy::limits()) {
        lazy::use_it(&toc);
    }
});
