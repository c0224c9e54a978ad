//! A table of mounts is read or refused; what is read is an absolute mount point with a kind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use storage_sys::mount::parse_mountinfo;

fuzz_target!(|table: &[u8]| {
    if let Ok(mounts) = parse_mountinfo(table) {
        assert!(mounts.len() <= table.len());
        assert!(mounts.iter().all(|mount| mount.target.is_absolute()));
    }
});
