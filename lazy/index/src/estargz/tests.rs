use super::*;
use crate::{Digest, Time};
use proptest::prelude::*;

/// A footer as stargz-snapshotter writes it.
fn footer(toc_offset: u64) -> Vec<u8> {
    let extra = format!("SG\x16\x00{toc_offset:016x}STARGZ");
    [&[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 26, 0], extra.as_bytes(), &EMPTY].concat()
}

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// A table in the indented form stargz's tools write.
fn table(entries: &[String]) -> String {
    format!("{{\n\t\"version\": 1,\n\t\"entries\": [{}]\n}}", entries.join(",\n"))
}

fn read(entries: &[String], payload_end: u64) -> Result<Toc, IndexError> {
    let toc = toc(table(entries).as_bytes(), payload_end, &Limits::default())?;
    toc.validate(payload_end, &Limits::default())?;
    Ok(toc)
}

fn one(fields: &str) -> Result<Toc, IndexError> {
    read(&[format!("{{{fields}}}")], 1000)
}

#[test]
fn the_three_footers_are_read() {
    let inside = |toc_offset, footer_bytes| Footer::Inside { toc_offset, footer_bytes };
    assert_eq!(Footer::parse(&footer(0x1234), 0x9999).unwrap(), inside(0x1234, 51));
    let legacy =
        [&[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 22, 0][..], b"00000000000000ffSTARGZ", &EMPTY].concat();
    assert_eq!(Footer::parse(&legacy, 0x9999).unwrap(), inside(0xff, 47));
    let outside =
        [&[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 21, 0][..], b"SG\x11\0STARGZEXTERNALTOC", &EMPTY].concat();
    assert_eq!(Footer::parse(&outside, 0x9999).unwrap(), Footer::Outside { footer_bytes: 46 });
    // More of the blob in front changes nothing.
    let tail = [&[7; 100][..], &footer(5)].concat();
    assert_eq!(Footer::parse(&tail, 151).unwrap(), inside(5, 51));
}

#[test]
fn l1_a_footer_with_a_sign_or_an_offset_outside_the_blob_is_refused() {
    let hex = |hex: &[u8; 16]| [&footer(0)[..16], hex, &footer(0)[32..]].concat();
    for (bytes, blob_bytes) in [
        (hex(b"-000000000000001"), 1000),
        (hex(b"+000000000000001"), 1000),
        (hex(b"0x00000000000001"), 1000),
        (hex(b"ffffffffffffffff"), u64::MAX),
        (footer(1000), 1000),
        (footer(949), 1000),
        (footer(0)[..50].to_vec(), 1000),
        (Vec::new(), 0),
    ] {
        let parsed = Footer::parse(&bytes, blob_bytes);
        assert!(matches!(parsed, Err(IndexError::Format { .. })), "{bytes:02x?} {parsed:?}");
    }
    assert!(Footer::parse(&footer(948), 1000).is_ok());
}

#[test]
fn entries_of_all_kinds_are_read() {
    let (whole, chunk) = (digest("whole"), digest("chunk"));
    let toc = read(
        &[
            r#"{"name": "bin/", "type": "dir", "modtime": "2020-01-02T03:04:05Z", "mode": 493, "uid": 1, "NumLink": 0}"#.into(),
            format!(r#"{{"name": "bin/a", "type": "reg", "size": 10, "mode": 2541, "offset": 100, "digest": "{whole}",
                "chunkDigest": "{whole}", "xattrs": {{"user.x": "AAE="}}}}"#),
            format!(r#"{{"name": "big", "type": "reg", "size": 9, "offset": 200, "chunkSize": 4, "chunkDigest": "{chunk}"}}"#),
            format!(r#"{{"name": "big", "type": "chunk", "offset": 300, "chunkOffset": 4, "chunkSize": 4, "chunkDigest": "{chunk}"}}"#),
            format!(r#"{{"name": "big", "type": "chunk", "offset": 300, "innerOffset": 4, "chunkOffset": 8, "chunkDigest": "{chunk}"}}"#),
            r#"{"name": "empty", "type": "reg"}"#.into(),
            r#"{"name": "link", "type": "symlink", "linkName": "../x"}"#.into(),
            r#"{"name": "hard", "type": "hardlink", "linkName": "./bin/a"}"#.into(),
            r#"{"name": "dev", "type": "char", "devMajor": 1, "devMinor": 3}"#.into(),
            r#"{"name": "pipe", "type": "fifo"}"#.into(),
            format!(r#"{{"name": ".prefetch.landmark", "type": "reg", "size": 1, "offset": 400, "digest": "{whole}"}}"#),
        ],
        500,
    )
    .unwrap();
    assert_eq!(toc.entries[0].path, b"bin"[..].into());
    assert_eq!(toc.entries[0].mtime, Time { secs: 1_577_934_245, nanos: 0 });
    assert_eq!((toc.entries[1].mode, toc.entries[0].uid), (0o4755, 1));
    assert_eq!(toc.entries[1].xattrs, [(b"user.x"[..].into(), [0, 1][..].into())]);
    assert_eq!(toc.entries[2].kind, Kind::File { size: 9, digest: None, chunks: 1..4 });
    assert_eq!(toc.entries[5].kind, Kind::Hardlink(b"bin/a"[..].into()));
    let groups: Vec<_> = toc.groups.iter().map(|group| (group.offset, group.length)).collect();
    assert_eq!(groups, [(100, 100), (200, 100), (300, 100), (400, 100)]);
    let chunks: Vec<_> =
        toc.chunks.iter().map(|chunk| (chunk.group, chunk.file_offset, chunk.length)).collect();
    assert_eq!(chunks, [(0, 0, 10), (1, 0, 4), (2, 4, 4), (2, 8, 1), (3, 0, 1)]);
    assert_eq!(toc.prefetch_bytes, Some(400));
}

#[test]
fn l4_a_table_that_cannot_be_is_refused() {
    let d = digest("x");
    for fields in [
        // A negative, zero or overlong piece; one behind the end of the file or of the blob.
        format!(r#""name": "a", "type": "reg", "size": -1, "digest": "{d}""#),
        format!(r#""name": "a", "type": "reg", "size": 9, "offset": -5, "digest": "{d}""#),
        format!(r#""name": "a", "type": "reg", "size": 9, "chunkSize": -1, "chunkDigest": "{d}""#),
        format!(r#""name": "a", "type": "reg", "size": 9, "chunkSize": 10, "chunkDigest": "{d}""#),
        format!(r#""name": "a", "type": "reg", "size": 9, "chunkSize": 4, "chunkDigest": "{d}""#),
        format!(r#""name": "a", "type": "reg", "size": 9, "chunkOffset": 9, "chunkDigest": "{d}""#),
        format!(r#""name": "a", "type": "reg", "size": 9, "offset": 1000, "digest": "{d}""#),
        format!(r#""name": "a", "type": "reg", "size": 9, "offset": 9223372036854775807, "digest": "{d}""#),
        // No digest, half a digest, another algorithm.
        r#""name": "a", "type": "reg", "size": 9"#.into(),
        format!(r#""name": "a", "type": "reg", "size": 9, "chunkSize": 4, "digest": "{d}""#),
        r#""name": "a", "type": "reg", "size": 9, "digest": "sha256:12""#.into(),
        r#""name": "a", "type": "reg", "size": 9, "digest": "md5:d41d8cd98f00b204e9800998ecf8427e""#.into(),
        // Names.
        r#""name": "../a", "type": "dir""#.into(),
        r#""name": "a/../../b", "type": "dir""#.into(),
        r#""name": "a\u0000b", "type": "dir""#.into(),
        format!(r#""name": "{}", "type": "dir""#, "x".repeat(256)),
        r#""name": "caf\ufffd", "type": "dir""#.into(),
        r#""name": "", "type": "fifo""#.into(),
        // Links to nothing, to itself, to a directory.
        r#""name": "a", "type": "hardlink", "linkName": "b""#.into(),
        r#""name": "a", "type": "hardlink", "linkName": "a""#.into(),
        r#""name": "a", "type": "hardlink", "linkName": "/""#.into(),
        r#""name": "a", "type": "symlink""#.into(),
        // Numbers and kinds.
        r#""name": "a", "type": "dir", "uid": -1"#.into(),
        r#""name": "a", "type": "dir", "gid": 4294967295"#.into(),
        r#""name": "a", "type": "char", "devMajor": 4096, "devMinor": 1"#.into(),
        r#""name": "a", "type": "char""#.into(),
        r#""name": "a", "type": "socket""#.into(),
        r#""name": "a", "type": "chunk", "chunkSize": 1"#.into(),
        r#""name": "a", "type": "dir", "modtime": "yesterday""#.into(),
        r#""name": "a", "type": "dir", "xattrs": {"user.x": "?"}"#.into(),
        r#""name": "a", "type": "dir", "name": "b""#.into(),
        r#""type": "dir""#.into(),
    ] {
        assert!(one(&fields).is_err(), "{fields} was accepted");
    }
}

#[test]
fn l4_pieces_that_overlap_leave_a_gap_or_belong_to_another_file_are_refused() {
    let d = digest("x");
    let first = format!(
        r#"{{"name": "a", "type": "reg", "size": 8, "offset": 10, "chunkSize": 4, "chunkDigest": "{d}"}}"#
    );
    let next = |name: &str, offset: u64, inner: u64, at: u64| {
        format!(
            r#"{{"name": "{name}", "type": "chunk", "offset": {offset}, "innerOffset": {inner},
            "chunkOffset": {at}, "chunkDigest": "{d}"}}"#
        )
    };
    assert!(read(&[first.clone(), next("a", 20, 0, 4)], 100).is_ok());
    assert!(read(&[first.clone(), next("a", 10, 4, 4)], 100).is_ok());
    assert!(read(&[first.clone(), next("a", 20, 0, 3)], 100).is_err());
    assert!(read(&[first.clone(), next("a", 20, 0, 5)], 100).is_err());
    assert!(read(&[first.clone(), next("b", 20, 0, 4)], 100).is_err());
    // The same bytes of a member for two pieces.
    assert!(read(&[first.clone(), next("a", 10, 3, 4)], 100).is_err());
    assert!(read(&[first.clone(), next("a", 20, 1 << 40, 4)], 100).is_err());
    // A file as a parent, and a file twice: the last counts.
    let file = |name: &str, offset: u64| {
        format!(r#"{{"name": "{name}", "type": "reg", "size": 1, "offset": {offset}, "digest": "{d}"}}"#)
    };
    assert!(read(&[file("a", 1), file("a/b", 2)], 100).is_err());
    assert!(read(&[file("a", 1), file("a", 2)], 100).is_ok());
}

#[test]
fn l3_a_table_with_more_than_the_limits_is_refused_before_it_is_held() {
    let many: Vec<String> = (0..100).map(|n| format!(r#"{{"name": "{n}", "type": "dir"}}"#)).collect();
    let json = table(&many);
    let limits = |entries_max, toc_bytes_max| Limits { entries_max, toc_bytes_max, ..Limits::default() };
    assert!(toc(json.as_bytes(), 10, &limits(100, 1 << 20)).is_ok());
    assert!(matches!(toc(json.as_bytes(), 10, &limits(99, 1 << 20)), Err(IndexError::Limit { .. })));
    assert!(matches!(toc(json.as_bytes(), 10, &limits(100, 1000)), Err(IndexError::Limit { .. })));
}

#[test]
fn what_is_no_table_is_refused() {
    let limits = Limits::default();
    for json in [
        "",
        "[]",
        "{}",
        r#"{"version": 1}"#,
        r#"{"entries": []}"#,
        r#"{"version": 2, "entries": []}"#,
        r#"{"version": 1, "version": 1, "entries": []}"#,
        r#"{"version": 1, "entries": [], "entries": []}"#,
        r#"{"version": 1, "entries": []} x"#,
        r#"{"version": 1, "entries": [[]]}"#,
    ] {
        assert!(toc(json.as_bytes(), 10, &limits).is_err(), "{json} was accepted");
    }
    assert!(toc(br#"{"version": 1, "entries": [], "more": {"a": [1]}}"#, 10, &limits).is_ok());
    let deep = format!(r#"{{"version": 1, "more": {}"#, "[".repeat(100_000));
    assert!(toc(deep.as_bytes(), 10, &limits).is_err());
}

proptest! {
    #[test]
    fn l1_no_bytes_make_the_footer_point_outside(tail in prop::collection::vec(any::<u8>(), 0..60), size in 0u64..2000, offset: u64) {
        for bytes in [tail, footer(offset), footer(offset % 2000)] {
            if let Ok(Footer::Inside { toc_offset, footer_bytes }) = Footer::parse(&bytes, size) {
                prop_assert!(toc_offset + footer_bytes < size);
            }
        }
    }
}
