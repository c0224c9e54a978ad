//! No footer and no annotation make a place of a table that leaves its blob.
#![no_main]

use lazy_index::zstd_chunked::Position;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, &[u8])| {
    let (blob_bytes, bytes) = input;
    let inside = |place: Position| {
        assert!(place.offset >= 8 && place.coded_bytes > 0);
        assert!(place.offset.checked_add(place.coded_bytes).is_some_and(|end| end <= blob_bytes));
        assert!(place.payload_end() + 8 == place.offset);
    };
    if let Ok((_, place)) = Position::from_footer(bytes, blob_bytes) {
        inside(place);
    }
    if let Ok(Ok(place)) = std::str::from_utf8(bytes).map(|text| Position::from_annotation(text, blob_bytes)) {
        inside(place);
    }
});
