use super::*;
use crate::{Coding, Digest, IndexError, Kind, Limits, Time};
use proptest::prelude::*;

/// A value of a FlatBuffer, to write one.
enum Value {
    Absent,
    U8(u8),
    U32(u32),
    I64(i64),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Table(Vec<Value>),
}

use Value::{Absent, Bytes, I64, List, Table, U8, U32};

fn text(text: &str) -> Value {
    Bytes(text.as_bytes().to_vec())
}

/// Appends a value and returns its place; references lead forward.
fn put(out: &mut Vec<u8>, value: &Value) -> usize {
    match value {
        Bytes(bytes) => {
            let at = out.len();
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
            at
        }
        List(items) => {
            let at = out.len();
            out.extend_from_slice(&(items.len() as u32).to_le_bytes());
            out.resize(at + 4 + 4 * items.len(), 0);
            for (number, item) in items.iter().enumerate() {
                refer(out, at + 4 + 4 * number, item);
            }
            at
        }
        Table(fields) => {
            let vtable = out.len();
            let table = vtable + 4 + 2 * fields.len();
            out.extend_from_slice(&(4 + 2 * fields.len() as u16).to_le_bytes());
            out.extend_from_slice(&(4 + 8 * fields.len() as u16).to_le_bytes());
            for (number, field) in fields.iter().enumerate() {
                let place = if matches!(field, Absent) { 0 } else { 4 + 8 * number as u16 };
                out.extend_from_slice(&place.to_le_bytes());
            }
            out.extend_from_slice(&((table - vtable) as u32).to_le_bytes());
            out.resize(table + 4 + 8 * fields.len(), 0);
            for (number, field) in fields.iter().enumerate() {
                let at = table + 4 + 8 * number;
                match field {
                    Absent => {}
                    U8(value) => out[at] = *value,
                    U32(value) => out[at..at + 4].copy_from_slice(&value.to_le_bytes()),
                    I64(value) => out[at..at + 8].copy_from_slice(&value.to_le_bytes()),
                    Bytes(_) | List(_) | Table(_) => refer(out, at, field),
                }
            }
            table
        }
        _ => unreachable!("numbers stand in tables"),
    }
}

fn refer(out: &mut Vec<u8>, at: usize, value: &Value) {
    let place = put(out, value);
    out[at..at + 4].copy_from_slice(&((place - at) as u32).to_le_bytes());
}

fn flat(root: &Value) -> Vec<u8> {
    let mut out = vec![0; 4];
    refer(&mut out, 0, root);
    out
}

fn entry(name: &str, kind: &str, offset: i64, size: i64, link: &str) -> Value {
    let xattr = Table(vec![text("SCHILY.xattr.user.x"), text("v")]);
    let other = Table(vec![text("mtime"), text("1.5")]);
    Table(vec![
        text(name),
        text(kind),
        I64(offset),
        I64(size),
        text(link),
        I64(0o100_755),
        U32(1),
        U32(2),
        Absent,
        Absent,
        text("2020-01-02T03:04:05.5Z"),
        I64(1),
        I64(3),
        List(vec![other, xattr]),
    ])
}

fn records(have: u32, stored: &[(u64, u64, u8)]) -> Vec<u8> {
    let mut bytes = [&have.to_le_bytes()[..], &100u64.to_le_bytes()].concat();
    for (input, output, bits) in stored {
        bytes.extend_from_slice(&input.to_le_bytes());
        bytes.extend_from_slice(&output.to_le_bytes());
        bytes.push(*bits);
        bytes.extend_from_slice(&[7; 32768]);
    }
    bytes
}

fn ztoc_of(entries: Vec<Value>, algorithm: Value, checkpoints: Vec<u8>, digests: usize) -> Vec<u8> {
    let digests = (0..digests).map(|n| text(&Digest::of(&[n as u8]).to_string())).collect();
    let compression = Table(vec![algorithm, U32(0), List(digests), Bytes(checkpoints)]);
    let toc = Table(vec![List(entries)]);
    flat(&Table(vec![text("0.9"), text("test"), I64(1000), I64(5000), toc, compression]))
}

fn gzip_layer(entries: Vec<Value>) -> Result<crate::Toc, IndexError> {
    let stored = [(10, 0, 0), (300, 2000, 3), (600, 4000, 0)];
    let bytes = ztoc_of(entries, Absent, records(3, &stored), 3);
    let toc = ztoc(&bytes, 1000, &Limits::default())?;
    toc.validate(1000, &Limits::default())?;
    Ok(toc)
}

#[test]
fn files_of_a_gzip_layer_are_cut_where_spans_meet() {
    let toc = gzip_layer(vec![
        entry("d/", "dir", 512, 0, ""),
        entry("d/a", "reg", 1024, 3500, ""),
        entry("l", "symlink", 4600, 0, "../d"),
        entry("h", "hardlink", 4600, 0, "d/a"),
        entry("c", "char", 4600, 0, ""),
    ])
    .unwrap();
    let a = &toc.entries[1];
    assert_eq!(a.kind, Kind::File { size: 3500, digest: None, chunks: 0..3 });
    assert_eq!(
        (a.mode, a.uid, a.gid, a.mtime),
        (0o755, 1, 2, Time { secs: 1_577_934_245, nanos: 500_000_000 })
    );
    assert_eq!(a.xattrs, [(b"user.x"[..].into(), b"v"[..].into())]);
    let pieces: Vec<_> =
        toc.chunks.iter().map(|c| (c.file_offset, c.length, c.group, c.inner_offset)).collect();
    assert_eq!(pieces, [(0, 976, 0, 1024), (976, 2000, 1, 0), (2976, 524, 2, 0)]);
    let groups: Vec<_> = toc.groups.iter().map(|g| (g.offset, g.length, g.output_length)).collect();
    // A span that begins within a byte begins with that byte, which is the last of the one before as well.
    assert_eq!(groups, [(10, 290, Some(2000)), (299, 301, Some(2000)), (600, 400, Some(1000))]);
    assert_eq!(toc.groups[1].coding, Coding::Deflate { checkpoint: 1 });
    let windows: Vec<_> = toc.checkpoints.iter().map(|checkpoint| checkpoint.window.len()).collect();
    assert_eq!(windows, [0, 2000, 4000]);
    assert_eq!(toc.entries[4].kind, Kind::Character { major: 1, minor: 3 });
}

#[test]
fn the_first_checkpoint_may_be_left_out() {
    let entries = || vec![entry("a", "reg", 512, 100, "")];
    let all = ztoc_of(entries(), U8(1), records(2, &[(10, 0, 0), (300, 2000, 0)]), 2);
    let short = ztoc_of(entries(), U8(1), records(2, &[(300, 2000, 0)]), 2);
    let limits = Limits::default();
    assert_eq!(ztoc(&all, 1000, &limits).unwrap(), ztoc(&short, 1000, &limits).unwrap());
}

#[test]
fn spans_of_a_tar_are_of_equal_length() {
    let info = flat(&Table(vec![U32(2), I64(400), I64(1000)]));
    let compression = |digests: usize| {
        let digests = (0..digests).map(|n| text(&Digest::of(&[n as u8]).to_string())).collect();
        Table(vec![U8(2), U32(0), List(digests), Bytes(info.clone())])
    };
    let bytes = |digests| {
        let toc = Table(vec![List(vec![entry("a", "reg", 512, 400, "")])]);
        flat(&Table(vec![text("0.9"), Absent, I64(1000), I64(1000), toc, compression(digests)]))
    };
    let toc = ztoc(&bytes(3), 1000, &Limits::default()).unwrap();
    toc.validate(1000, &Limits::default()).unwrap();
    let groups: Vec<_> = toc.groups.iter().map(|group| (group.offset, group.length, group.coding)).collect();
    assert_eq!(groups, [(0, 400, Coding::Plain), (400, 400, Coding::Plain), (800, 200, Coding::Plain)]);
    let pieces: Vec<_> =
        toc.chunks.iter().map(|chunk| (chunk.group, chunk.inner_offset, chunk.length)).collect();
    assert_eq!(pieces, [(1, 112, 288), (2, 0, 112)]);
    assert!(ztoc(&bytes(2), 1000, &Limits::default()).is_err());
}

#[test]
fn l4_a_ztoc_that_cannot_be_is_refused() {
    for broken in [
        entry("a", "reg", 512, -1, ""),
        entry("a", "reg", -1, 5, ""),
        entry("a", "reg", 512, 5000, ""),
        entry("a", "reg", i64::MAX, 5000, ""),
        entry("../a", "dir", 512, 0, ""),
        entry("a", "hardlink", 512, 0, "nothing"),
        entry("a", "socket", 512, 0, ""),
        entry("", "fifo", 512, 0, ""),
    ] {
        assert!(gzip_layer(vec![broken]).is_err());
    }
    let overlapping = vec![entry("a", "reg", 512, 100, ""), entry("b", "reg", 600, 100, "")];
    assert!(gzip_layer(overlapping).is_err());
    for stored in [
        vec![(10, 0, 0), (1001, 2000, 0)],
        vec![(10, 0, 0), (300, 6000, 0)],
        vec![(300, 2000, 0), (10, 0, 0)],
        vec![(10, 0, 0), (300, 0, 0)],
        vec![(10, 0, 8), (300, 2000, 0)],
    ] {
        let bytes = ztoc_of(vec![entry("a", "reg", 512, 10, "")], U8(1), records(2, &stored), 2);
        let read = ztoc(&bytes, 1000, &Limits::default());
        assert!(
            read.and_then(|toc| toc.validate(1000, &Limits::default())).is_err(),
            "{stored:?} was accepted"
        );
    }
    let good = ztoc_of(vec![], U8(1), records(1, &[(10, 0, 0)]), 1);
    assert!(ztoc(&good, 1000, &Limits::default()).is_ok());
    assert!(ztoc(&good, 999, &Limits::default()).is_err());
    assert!(ztoc(&ztoc_of(vec![], U8(3), records(1, &[(10, 0, 0)]), 1), 1000, &Limits::default()).is_err());
    assert!(ztoc(&ztoc_of(vec![], U8(1), records(5, &[(10, 0, 0)]), 1), 1000, &Limits::default()).is_err());
    assert!(ztoc(&ztoc_of(vec![], U8(1), records(1, &[(10, 0, 0)]), 2), 1000, &Limits::default()).is_err());
}

#[test]
fn l3_references_to_one_place_cannot_multiply_it() {
    // Ten thousand entries that are one entry with a name of 4,000 bytes.
    let long = "x/".repeat(1999);
    let count = 10_000u32;
    let mut out = vec![0u8; 4];
    // root { 4: toc { 0: list }, 5: compression }
    let digests = List(vec![text(&Digest::of(b"").to_string())]);
    let compression = Table(vec![U8(1), U32(0), digests, Bytes(records(1, &[(10, 0, 0)]))]);
    let root = Table(vec![Absent, Absent, I64(1000), I64(5000), Table(vec![U32(0)]), compression]);
    refer(&mut out, 0, &root);
    // The toc's only field becomes a reference to the list, which is appended.
    let root_at = u32::from_le_bytes(out[..4].try_into().unwrap()) as usize;
    let toc_field = root_at + 4 + 8 * 4;
    let toc_at = toc_field + u32::from_le_bytes(out[toc_field..toc_field + 4].try_into().unwrap()) as usize;
    let list_at = out.len();
    out.extend_from_slice(&count.to_le_bytes());
    out.resize(list_at + 4 + 4 * count as usize, 0);
    let one = put(&mut out, &Table(vec![text(&long), text("dir")]));
    out[toc_at + 4..toc_at + 8].copy_from_slice(&((list_at - (toc_at + 4)) as u32).to_le_bytes());
    for number in 0..count as usize {
        let at = list_at + 4 + 4 * number;
        out[at..at + 4].copy_from_slice(&((one - at) as u32).to_le_bytes());
    }
    let small = Limits { toc_bytes_max: 1 << 20, ..Limits::default() };
    assert!(matches!(ztoc(&out, 1000, &small), Err(IndexError::Limit { .. })));
    assert!(ztoc(&out, 1000, &Limits::default()).is_ok());
}

fn index(kind: &str, layers: &[(Digest, Digest)], more: &str) -> Vec<u8> {
    let layers: Vec<String> = layers
        .iter()
        .map(|(layer, ztoc)| {
            format!(r#"{{"mediaType":"application/octet-stream","digest":"{ztoc}","size":9,"annotations":{{"{LAYER_DIGEST}":"{layer}"}}}}"#)
        })
        .collect();
    let config = format!(r#"{{"mediaType":"{kind}","digest":"{}","size":2}}"#, Digest::of(b"{}"));
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",{more}"config":{config},"layers":[{}]}}"#,
        layers.join(",")
    )
    .into_bytes()
}

#[test]
fn indexes_of_both_versions_are_read() {
    let (layer, ztoc, image) = (Digest::of(b"l"), Digest::of(b"z"), Digest::of(b"i"));
    let subject = format!(
        r#""subject":{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{image}","size":5}},"#
    );
    let one = Index::parse(&index(INDEX_V1, &[(layer, ztoc)], &subject)).unwrap();
    assert_eq!((one.version, one.image), (Version::One, Some(image)));
    assert_eq!((one.ztocs[0].layer, one.ztocs[0].descriptor.digest), (layer, ztoc));
    let two =
        Index::parse(&index("application/json", &[], &format!(r#""artifactType":"{INDEX_V2}","#))).unwrap();
    assert_eq!((two.version, two.image, two.ztocs.len()), (Version::Two, None, 0));
}

#[test]
fn an_index_of_something_else_or_with_two_answers_is_refused() {
    let (layer, one, two) = (Digest::of(b"l"), Digest::of(b"1"), Digest::of(b"2"));
    assert!(Index::parse(&index("application/json", &[], "")).is_err());
    assert!(Index::parse(&index(INDEX_V1, &[(layer, one), (layer, two)], "")).is_err());
    assert!(Index::parse(b"{}").is_err());
    let nameless =
        String::from_utf8(index(INDEX_V1, &[(layer, one)], "")).unwrap().replace(LAYER_DIGEST, "x");
    assert!(Index::parse(nameless.as_bytes()).is_err());
}

proptest! {
    #[test]
    fn no_change_of_a_ztoc_makes_the_reader_panic(changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..20), cut: usize) {
        let mut bytes = ztoc_of(vec![entry("a", "reg", 512, 10, "")], U8(1), records(1, &[(10, 0, 0)]), 1);
        // Of the window a change says nothing.
        let interesting = bytes.len() - 32768;
        for (at, value) in changes {
            let at = at % interesting;
            bytes[at] = value;
        }
        let _ = ztoc(&bytes, 1000, &Limits::default());
        bytes.truncate(cut % bytes.len());
        let _ = ztoc(&bytes, 1000, &Limits::default());
    }
}
