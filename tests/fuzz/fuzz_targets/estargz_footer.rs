//! No bytes at the end of a blob make an eStargz footer that points outside it.
#![no_main]

use lazy_index::estargz::Footer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, &[u8])| {
    let (blob_bytes, tail) = input;
    match Footer::parse(tail, blob_bytes) {
        Ok(Footer::Inside { toc_offset, footer_bytes }) => assert!(toc_offset + footer_bytes < blob_bytes),
        Ok(Footer::Outside { footer_bytes }) => assert!(footer_bytes <= tail.len() as u64),
        Err(_) => {}
    }
});
