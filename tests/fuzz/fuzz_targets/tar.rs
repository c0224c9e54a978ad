//! No bytes make the tar reader panic, loop, or hand out a file of another length than it announced.
//!
//! Blocks that look like headers get a right checksum, or the fuzzer would never come past the first.
#![no_main]

use libfuzzer_sys::fuzz_target;
use storage_layer::Limits;
use storage_layer::tar::{Piece, TarError, Reader};

fuzz_target!(|bytes: &[u8]| {
    let mut archive = bytes.to_vec();
    for block in archive.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    let limits = Limits { sparse_pieces_max: 1000, ..Limits::default() };
    let mut reader = Reader::new(&archive[..], &limits);
    while let Ok(Some(entry)) = reader.next_entry() {
        assert!(!entry.name.contains(&0) && entry.mode <= 0o7777 && entry.uid != u32::MAX);
        assert!(entry.mtime.nanoseconds < 1_000_000_000);
        let mut length = 0u64;
        let read = reader.read_data(|piece| {
            length += match piece {
                Piece::Data(bytes) => bytes.len() as u64,
                Piece::Hole(bytes) => bytes,
            };
            Ok::<(), TarError>(())
        });
        if read.is_err() {
            return;
        }
        assert_eq!(length, entry.size);
    }
    assert!(reader.offset() <= archive.len() as u64);
});
