//! The stages: whose error is told, what is counted, what a caller sees meanwhile.

use std::io::{self, Read};
use std::sync::Mutex;

use storage_layer::{LayerError, UnpackOptions, unpack};
use storage_model::{Compression, Digest};

use crate::support::{Tar, Yard, gzip, zstd};

/// Gives some bytes, then an error of its own.
struct Broken<'a>(&'a [u8]);

impl Read for Broken<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::new(io::ErrorKind::ConnectionReset, "the line broke")),
            read => Ok(read),
        }
    }
}

#[test]
fn an_error_of_the_reader_comes_back_unchanged() {
    let tar = Tar::new().file("a", &[1; 100_000]).end();
    for (bytes, compression) in
        [(tar.clone(), Compression::None), (gzip(&tar), Compression::Gzip), (zstd(&tar), Compression::Zstd)]
    {
        // Also where a tar or a compressed stream may end.
        for cut in [0, 5, bytes.len() / 2, bytes.len()] {
            let yard = Yard::new();
            let options = UnpackOptions::default();
            match unpack(Broken(&bytes[..cut]), compression, &yard.root(), &options, &|_| {}) {
                Err(LayerError::Source(error)) => {
                    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                    assert_eq!(error.to_string(), "the line broke");
                }
                other => panic!("{compression:?} cut at {cut}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_large_layer_passes_every_buffer_and_tells_its_progress() {
    let body: Vec<u8> =
        (0..20_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8 & 15).collect();
    let tar = Tar::new().file("a", &body[..7_000_001]).file("b", &body).end();
    for (bytes, compression) in [(gzip(&tar), Compression::Gzip), (zstd(&tar), Compression::Zstd)] {
        let (yard, seen) = (Yard::new(), Mutex::new(Vec::new()));
        let options = UnpackOptions::default();
        let progress = |bytes| seen.lock().unwrap().push(bytes);
        let unpacked = unpack(&bytes[..], compression, &yard.root(), &options, &progress).unwrap();
        assert_eq!(unpacked.diff_id.0, Digest::of(&tar));
        assert_eq!(unpacked.uncompressed_bytes, tar.len() as u64);
        assert_eq!(yard.read("b"), body);
        let seen = seen.into_inner().unwrap();
        assert!(seen.is_sorted() && seen.len() > 50);
        assert_eq!(seen.last(), Some(&(tar.len() as u64)));
        assert!(unpacked.disk_bytes >= 27_000_000 && unpacked.disk_bytes < 27_100_000);
    }
}

#[test]
fn a_refused_entry_ends_the_reading_of_a_layer_without_end() {
    let bad = Tar::new().file("../out", b"").0;
    let yard = Yard::new();
    let options = UnpackOptions::default();
    let endless = bad.chain(io::repeat(b'x'));
    let error = unpack(endless, Compression::None, &yard.root(), &options, &|_| {}).unwrap_err();
    assert!(matches!(error, LayerError::Entry { .. }), "{error}");
}

#[test]
fn a_missing_target_and_a_target_that_is_a_file_are_told() {
    let options = UnpackOptions::default();
    let yard = Yard::new();
    std::fs::write(yard.root().join("file"), "").unwrap();
    for target in [yard.root().join("missing"), yard.root().join("file")] {
        let error = unpack(&b""[..], Compression::None, &target, &options, &|_| {}).unwrap_err();
        assert!(matches!(error, LayerError::Target { .. }));
        assert!(error.to_string().contains(target.to_str().unwrap()));
    }
}

#[test]
fn a_full_disk_is_told_with_the_entry_and_what_to_do() {
    let small = tempfile::tempdir().unwrap();
    let mount = |program: &str, arguments: &[&str]| {
        let status = std::process::Command::new(program).args(arguments).arg(small.path()).status().unwrap();
        assert!(status.success(), "{program}");
    };
    mount("mount", &["-t", "tmpfs", "-o", "size=512k", "small"]);
    let tar = Tar::new().file("small", b"x").file("usr/lib/big", &[1; 1 << 20]).end();
    let options = UnpackOptions::default();
    let error = unpack(&gzip(&tar)[..], Compression::Gzip, small.path(), &options, &|_| {}).unwrap_err();
    mount("umount", &[]);
    assert!(
        matches!(&error, LayerError::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull)
    );
    let text = error.to_string();
    for words in ["usr/lib/big", "write the file", "free some space"] {
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn compressed_bytes_of_another_format_are_named() {
    let yard = Yard::new();
    let options = UnpackOptions::default();
    let tar = Tar::new().file("a", b"x").end();
    let error = unpack(&tar[..], Compression::Gzip, &yard.root(), &options, &|_| {}).unwrap_err().to_string();
    assert!(error.contains("not valid gzip"), "{error}");
    let error =
        unpack(&gzip(&tar)[..], Compression::None, &yard.root(), &options, &|_| {}).unwrap_err().to_string();
    assert!(error.contains("not a tar") || error.contains("cut off"), "{error}");
}

#[test]
fn the_umask_of_the_process_does_not_matter_and_is_kept() {
    // Every test of this binary runs under the umask it was started with; files still have the mode of their entry.
    let yard = Yard::new();
    let header = crate::support::Header::new("open", b'0').mode(0o666);
    yard.unpack(&Tar::new().entry(header, b"").end()).unwrap();
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(yard.stat("open").mode() & 0o7777, 0o666);
    let made = yard.root().join("made by the process");
    std::fs::write(&made, "").unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap();
    let umask = u32::from_str_radix(umask.trim(), 8).unwrap();
    assert_eq!(std::fs::metadata(made).unwrap().mode() & 0o777, 0o666 & !umask);
}
