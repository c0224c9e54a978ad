//! No bytes make the reader of zTOCs panic or leave its buffer; what passes the validation can be merged.
#![no_main]

mod lazy;

use lazy_index::soci;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(toc) = soci::ztoc(bytes, lazy::BLOB_BYTES, &lazy::limits()) {
        lazy::use_it(&toc);
    }
});
