use super::*;
use crate::{IndexError, Limits};
use proptest::prelude::*;

fn digest() -> impl Strategy<Value = Option<Digest>> {
    prop::option::of((0u8..4).prop_map(|n| Digest::of(&[n])))
}

fn entry() -> impl Strategy<Value = Entry> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..9).prop_map(Vec::into_boxed_slice);
    let kind = prop_oneof![
        Just(Kind::Directory),
        (any::<u64>(), digest(), any::<u32>(), any::<u32>())
            .prop_map(|(size, digest, start, end)| Kind::File { size, digest, chunks: start..end }),
        bytes().prop_map(Kind::Symlink),
        bytes().prop_map(Kind::Hardlink),
        (any::<u32>(), any::<u32>()).prop_map(|(major, minor)| Kind::Character { major, minor }),
        (any::<u32>(), any::<u32>()).prop_map(|(major, minor)| Kind::Block { major, minor }),
        Just(Kind::Fifo),
    ];
    let time = (any::<i64>(), any::<u32>()).prop_map(|(secs, nanos)| Time { secs, nanos });
    let xattrs = prop::collection::vec((bytes(), bytes()), 0..3);
    (bytes(), kind, any::<u32>(), any::<u32>(), any::<u32>(), time, xattrs).prop_map(
        |(path, kind, mode, uid, gid, mtime, xattrs)| Entry { path, kind, mode, uid, gid, mtime, xattrs },
    )
}

fn coding() -> impl Strategy<Value = Coding> {
    prop_oneof![
        Just(Coding::Plain),
        Just(Coding::Gzip),
        Just(Coding::Zstd),
        Just(Coding::Zeros),
        any::<u32>().prop_map(|checkpoint| Coding::Deflate { checkpoint }),
    ]
}

prop_compose! {
    fn any_toc()(
        entries in prop::collection::vec(entry(), 0..6),
        chunks in prop::collection::vec((any::<u64>(), any::<u64>(), digest(), any::<u32>(), any::<u64>()), 0..6),
        groups in prop::collection::vec((any::<u64>(), any::<u64>(), prop::option::of(0..u64::MAX), coding(), digest()), 0..6),
        checkpoints in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..9)), 0..3),
        prefetch_bytes in prop::option::of(0..u64::MAX),
    ) -> Toc {
        let chunk = |(file_offset, length, digest, group, inner_offset)| Chunk { file_offset, length, digest, group, inner_offset };
        let group = |(offset, length, output_length, coding, digest)| Group { offset, length, output_length, coding, digest };
        let point = |(output_offset, input_offset, bits, window): (u64, u64, u8, Vec<u8>)| {
            Checkpoint { output_offset, input_offset, bits, window: window.into() }
        };
        Toc {
            entries,
            chunks: chunks.into_iter().map(chunk).collect(),
            groups: groups.into_iter().map(group).collect(),
            checkpoints: checkpoints.into_iter().map(point).collect(),
            prefetch_bytes,
        }
    }
}

/// Two files in one group, and one in two groups.
fn good() -> Toc {
    let digest = Some(Digest::of(b"x"));
    let file = |path: &[u8], size, chunks| Entry {
        path: path.into(),
        kind: Kind::File { size, digest: None, chunks },
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Time { secs: 1, nanos: 0 },
        xattrs: Xattrs::new(),
    };
    let chunk =
        |file_offset, length, group, inner_offset| Chunk { file_offset, length, digest, group, inner_offset };
    let group =
        |offset, length| Group { offset, length, output_length: None, coding: Coding::Gzip, digest: None };
    Toc {
        entries: vec![file(b"a", 10, 0..1), file(b"b", 5, 1..2), file(b"c", 30, 2..4)],
        chunks: vec![chunk(0, 10, 0, 512), chunk(0, 5, 0, 1024), chunk(0, 20, 1, 0), chunk(20, 10, 2, 0)],
        groups: vec![group(0, 100), group(100, 50), group(150, 50)],
        checkpoints: Vec::new(),
        prefetch_bytes: Some(100),
    }
}

type Change = fn(&mut Toc);

#[test]
fn l4_every_rule_of_a_table_is_checked() {
    good().validate(200, &Limits::default()).unwrap();
    let broken: [(&str, Change); 25] = [
        ("gap", |toc| toc.chunks[3].file_offset = 21),
        ("overlap", |toc| toc.chunks[3].file_offset = 19),
        ("short", |toc| toc.chunks[3].length = 9),
        ("long", |toc| toc.chunks[0].length = 11),
        ("empty", |toc| toc.chunks[0].length = 0),
        ("wrapping", |toc| toc.chunks[3].length = u64::MAX - 5),
        ("inner wrapping", |toc| toc.chunks[0].inner_offset = u64::MAX),
        ("inner overlap", |toc| toc.chunks[1].inner_offset = 521),
        ("no digest", |toc| toc.chunks[0].digest = None),
        ("no group", |toc| toc.chunks[0].group = 3),
        ("group behind the blob", |toc| toc.groups[2].length = 51),
        ("group wrapping", |toc| toc.groups[2].offset = u64::MAX),
        ("groups overlap", |toc| toc.groups[1].offset = 99),
        ("empty group", |toc| toc.groups[1].length = 0),
        ("output too short", |toc| toc.groups[1].output_length = Some(19)),
        ("zeros with bytes", |toc| toc.groups[1].coding = Coding::Zeros),
        ("no checkpoint", |toc| toc.groups[1].coding = Coding::Deflate { checkpoint: 0 }),
        ("a file as parent", |toc| toc.entries[1].path = b"a/b"[..].into()),
        ("an unclean path", |toc| toc.entries[1].path = b"x/../b"[..].into()),
        ("another's chunk", |toc| toc.entries[1].kind = Kind::File { size: 10, digest: None, chunks: 0..1 }),
        ("no such chunk", |toc| toc.entries[1].kind = Kind::File { size: 5, digest: None, chunks: 4..5 }),
        ("chunks backwards", |toc| {
            toc.entries[1].kind =
                Kind::File { size: 5, digest: None, chunks: std::ops::Range { start: 2, end: 1 } };
        }),
        ("a link to itself", |toc| toc.entries[1].kind = Kind::Hardlink(b"b"[..].into())),
        ("mode", |toc| toc.entries[1].mode = 0o10000),
        ("prefetch", |toc| toc.prefetch_bytes = Some(201)),
    ];
    for (what, change) in broken {
        let mut toc = good();
        change(&mut toc);
        assert!(toc.validate(200, &Limits::default()).is_err(), "{what} was accepted");
    }
}

#[test]
fn l12_a_table_that_asks_for_more_nodes_than_the_limit_is_refused() {
    let mut toc = good();
    // One entry, a thousand directories.
    toc.entries[0].path = b"d/".repeat(1000).strip_suffix(b"/").unwrap().into();
    let limits = |nodes_max| Limits { nodes_max, ..Limits::default() };
    toc.validate(200, &limits(1003)).unwrap();
    assert!(toc.validate(200, &limits(1002)).is_err());
    let few = Limits { entries_max: 2, ..Limits::default() };
    assert!(matches!(toc.validate(200, &few), Err(IndexError::Limit { .. })));
}

#[test]
fn a_damaged_encoding_is_refused() {
    let bytes = good().encode();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(Toc::decode(&damaged).is_err(), "byte {at}");
        assert!(Toc::decode(&bytes[..at]).is_err(), "cut at {at}");
    }
}

/// The decoder once took the least entry for a byte longer than it is, and refused a table that had little else; the
/// fuzzer found it.
#[test]
fn a_table_of_the_least_entries_is_decoded() {
    let time = Time { secs: 0, nanos: 0 };
    let root = Entry {
        path: Box::default(),
        kind: Kind::Directory,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: time,
        xattrs: Xattrs::new(),
    };
    let toc = Toc { entries: vec![root; 100], ..Toc::default() };
    assert_eq!(Toc::decode(&toc.encode()).unwrap(), toc);
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(toc in any_toc()) {
        prop_assert_eq!(Toc::decode(&toc.encode()).unwrap(), toc);
    }

    #[test]
    fn no_table_makes_the_validation_panic(toc in any_toc(), blob_bytes: u64) {
        let _ = toc.validate(blob_bytes, &Limits::default());
    }

    #[test]
    fn no_bytes_with_a_right_checksum_make_the_decoder_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = [b"windlass layer 1", &body[..]].concat();
        let checksum = Digest::of(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        let _ = Toc::decode(&bytes);
    }
}
