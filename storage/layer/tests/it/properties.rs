//! Invariants over generated archives: rows U8 and U27.

use proptest::prelude::*;
use storage_layer::tar::{Piece, Reader};
use storage_layer::{LayerError, Limits, UnpackOptions, Whiteouts, unpack};
use storage_model::{Compression, Digest};

use crate::support::{Header, Tar, Yard, gzip, zstd};

#[derive(Debug, Clone)]
enum Op {
    Dir(String),
    File(String),
    Symlink(String, String),
    Link(String, String),
    Fifo(String),
}

fn name() -> impl Strategy<Value = String> {
    let component =
        prop::sample::select(vec!["a", "b", "c", ".wh.a", ".wh..wh..opq", "passwd", "victim", ".", "root"]);
    prop::collection::vec(component, 1..4).prop_map(|components| components.join("/"))
}

/// `@` stands for an absolute path outside.
fn target() -> impl Strategy<Value = String> {
    let far = [
        "..",
        "../..",
        "../../..",
        "/",
        "@",
        "@/passwd",
        "../victim",
        "../../victim",
        ".",
        "a",
        "b/a",
        "c/..",
    ];
    prop_oneof![prop::sample::select(far.to_vec()).prop_map(str::to_owned), name()]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => name().prop_map(Op::Dir),
        3 => name().prop_map(Op::File),
        3 => (name(), target()).prop_map(|(name, target)| Op::Symlink(name, target)),
        1 => (name(), target()).prop_map(|(name, target)| Op::Link(name, target)),
        1 => name().prop_map(Op::Fifo),
    ]
}

fn archive(ops: &[Op], outside: &str) -> Vec<u8> {
    let real = |target: &str| target.replace('@', outside);
    let tar = ops.iter().fold(Tar::new(), |tar, op| match op {
        Op::Dir(name) => tar.entry(Header::new(name, b'5').mode(0o777).owner(9, 9), b""),
        Op::File(name) => tar.entry(Header::new(name, b'0').mode(0o4777).owner(9, 9).size(4), b"evil"),
        Op::Symlink(name, target) => tar.symlink(name, &real(target)),
        Op::Link(name, target) => tar.link(name, &real(target)),
        Op::Fifo(name) => tar.entry(Header::new(name, b'6').mode(0o777).owner(9, 9), b""),
    });
    tar.end()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn vuln_u08_no_order_of_directories_links_and_files_leaves_the_root(ops in prop::collection::vec(op(), 1..14)) {
        for whiteouts in [Whiteouts::Overlay, Whiteouts::Apply] {
            let yard = Yard::new();
            // Refusals are fine; `unpack_as` checks that nothing outside changed.
            let _ = yard.unpack_as(&archive(&ops, &yard.victim()), whiteouts);
        }
    }

    #[test]
    fn a_reader_of_any_bytes_ends_without_a_panic(mut blocks in prop::collection::vec(any::<u8>(), 0..4096), seal: bool) {
        if seal && blocks.len() >= 512 {
            let mut header = Header([0; 512]);
            header.0.copy_from_slice(&blocks[..512]);
            blocks[..512].copy_from_slice(&header.sealed());
        }
        let mut reader = Reader::new(&blocks[..], &Limits::default());
        while let Ok(Some(entry)) = reader.next_entry() {
            let mut length = 0u64;
            let read = reader.read_data(|piece| {
                length += match piece { Piece::Data(bytes) => bytes.len() as u64, Piece::Hole(bytes) => bytes };
                Ok::<(), storage_layer::tar::TarError>(())
            });
            if read.is_err() {
                break;
            }
            prop_assert_eq!(length, entry.size);
        }
    }

    #[test]
    fn files_come_back_as_they_were(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1500), 1..6)) {
        let tar = bodies.iter().enumerate().fold(Tar::new(), |tar, (at, body)| tar.file(&at.to_string(), body)).end();
        let yard = Yard::new();
        let options = UnpackOptions::default();
        let unpacked = unpack(&gzip(&tar)[..], Compression::Gzip, &yard.root(), &options, &|_| {}).unwrap();
        prop_assert_eq!(unpacked.diff_id.0, Digest::of(&tar));
        for (at, body) in bodies.iter().enumerate() {
            prop_assert_eq!(&yard.read(&at.to_string()), body);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn vuln_u27_a_damaged_stream_is_an_error_or_the_same_bytes(at in 0usize..2000, flip in 1u8.., gz: bool) {
        let tar = Tar::new().file("a", &[7; 3000]).file("b", b"some text to compress, some text to compress").end();
        let (mut bytes, compression) =
            if gz { (gzip(&tar), Compression::Gzip) } else { (zstd(&tar), Compression::Zstd) };
        let at = at % bytes.len();
        bytes[at] ^= flip;
        let yard = Yard::new();
        match unpack(&bytes[..], compression, &yard.root(), &UnpackOptions::default(), &|_| {}) {
            // gzip's header has a time and a system nobody checks. zstd as made here has no checksum.
            Ok(unpacked) => prop_assert!(!gz || unpacked.diff_id.0 == Digest::of(&tar)),
            Err(error) => prop_assert!(matches!(
                error, LayerError::Decompress { .. } | LayerError::Tar(_) | LayerError::Entry { .. }
            ), "{error}"),
        }
    }
}
