//! No bytes make the decoder of our own tables of contents panic or allocate without bound; what it accepts encodes to
//! a table that decodes to the same, and what passes the validation can be merged.
//!
//! The bytes get a right start and a right checksum, or the fuzzer would never come past these.
#![no_main]

mod lazy;

use lazy_index::{Digest, Toc};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let _ = Toc::decode(body);
    let mut bytes = [b"windlass layer 1", body].concat();
    let checksum = Digest::of(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    let Ok(toc) = Toc::decode(&bytes) else { return };
    assert_eq!(Toc::decode(&toc.encode()).as_ref().ok(), Some(&toc));
    lazy::use_it(&toc);
});
