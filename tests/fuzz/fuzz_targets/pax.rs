//! No body of an extended header (PAX local, PAX global, GNU long name or link) makes the reader panic, and what it
//! accepts has clean names.
//!
//! The first byte chooses the kind of header; the rest is its body. A plain file follows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use storage_layer::Limits;
use storage_layer::tar::{TarError, Reader};

fn header(kind: u8, size: usize) -> [u8; 512] {
    let mut raw = [0; 512];
    raw[0] = b'f';
    raw[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    raw[156] = kind;
    raw[257..265].copy_from_slice(if kind.is_ascii_uppercase() { b"ustar  \0" } else { b"ustar\x0000" });
    raw[148..156].fill(b' ');
    let sum: u32 = raw.iter().map(|&byte| u32::from(byte)).sum();
    raw[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    raw
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, body)) = bytes.split_first() else { return };
    let kind = b"xgLK"[usize::from(*choice) % 4];
    let mut archive = header(kind, body.len()).to_vec();
    archive.extend_from_slice(body);
    archive.resize(archive.len().next_multiple_of(512), 0);
    archive.extend_from_slice(&header(b'0', 1024));
    archive.resize(archive.len() + 4096, b'1');
    let mut reader = Reader::new(&archive[..], &Limits::default());
    if let Ok(Some(entry)) = reader.next_entry() {
        assert!(!entry.name.contains(&0));
        assert!(entry.xattrs.iter().all(|(name, _)| !name.is_empty() && !name.contains(&0)));
        let _ = reader.read_data(|_| Ok::<(), TarError>(()));
        let _ = reader.next_entry();
    }
});
