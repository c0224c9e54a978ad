//! The first bytes of an image's program are foreign: they name an interpreter or nothing.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some(name) = runtime_container::program::interpreter(data) {
        assert!(name.starts_with('/') && !name.contains('\0'));
    }
});
