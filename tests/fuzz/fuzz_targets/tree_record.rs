//! No bytes make the reader of tree records panic or loop, and what it accepts is clean and in order.
//!
//! The bytes get a right start and a right checksum, or the fuzzer would never come past these.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use storage_layer::record::{RecordReader, What};

fuzz_target!(|bytes: &[u8]| {
    let _ = RecordReader::new(Cursor::new(bytes));
    let mut record = [b"windlass tree 1\n", bytes].concat();
    let checksum = blake3::hash(&record);
    record.extend_from_slice(checksum.as_bytes());
    let Ok(mut reader) = RecordReader::new(Cursor::new(record)) else { return };
    let mut count = 0u64;
    while let Ok(Some(entry)) = reader.next_entry() {
        assert!(entry.mode <= 0o7777 && entry.uid != u32::MAX && entry.mtime.nanoseconds < 1_000_000_000);
        assert!(entry.path.is_root() == (count == 0));
        if let What::Link { first } = entry.what {
            assert!(first < count);
        }
        count += 1;
    }
    assert!(count <= bytes.len() as u64);
});
