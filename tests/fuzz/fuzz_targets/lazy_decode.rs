//! Pieces of layers are foreign, and so is what an index says of them: any bytes decode to the length asked for or to an
//! error, in memory and time that follow from what was given.
#![no_main]
use lazy_fetch::decode::{Resume, decode};
use lazy_index::Coding;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: (u8, u8, u32, &[u8], &[u8])| {
    let (coding, bits, output_bytes, window, coded) = data;
    let output_bytes = u64::from(output_bytes & 0x3f_ffff);
    let coding = match coding % 5 {
        0 => Coding::Plain,
        1 => Coding::Gzip,
        2 => Coding::Zstd,
        3 => Coding::Deflate { checkpoint: 0 },
        _ => Coding::Zeros,
    };
    if let Ok(output) = decode(coding, coded, Some(Resume { bits, window }), output_bytes) {
        assert_eq!(output.len() as u64, output_bytes);
    }
});
