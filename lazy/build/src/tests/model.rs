//! A layer as a list of entries, its tar, and the comparison of a table of contents with it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;

use lazy_fetch::decode::{Resume, decode};
use lazy_index::{Coding, Kind, Limits, Toc};
use storage_layer::tar::{Entry, EntryKind, Writer};
use storage_model::Digest;
use storage_sys::tree::Timestamp;

/// An entry and its content.
pub(super) type Given = (Entry, Vec<u8>);

pub(super) fn entry(name: &str, kind: EntryKind, content: &[u8]) -> Given {
    let mtime = Timestamp { seconds: 1_700_000_000, nanoseconds: 123_456_789 };
    let entry = Entry {
        name: name.as_bytes().to_vec(),
        mode: if kind == EntryKind::Directory { 0o755 } else { 0o4644 },
        kind,
        uid: 1000,
        gid: 100_000,
        mtime,
        atime: None,
        xattrs: Vec::new(),
        size: content.len() as u64,
    };
    (entry, content.to_vec())
}

pub(super) fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Half of the range: it compresses, and to blocks of all sizes.
        (state >> 57) as u8
    };
    (0..bytes).map(next).collect()
}

/// A layer with one of everything.
pub(super) fn layer() -> Vec<Given> {
    let file = |name: &str, content: &[u8]| entry(name, EntryKind::File, content);
    let mut holes = noise(3000, 3);
    holes.extend(vec![0; 300_000]);
    holes.extend(noise(70_000, 4));
    let mut with_xattrs = file("usr/bin/ping", b"a program");
    with_xattrs.0.xattrs.push((b"user.one".to_vec(), vec![0, 1, 0xff]));
    with_xattrs.0.xattrs.push((b"user.two".to_vec(), b"2".to_vec()));
    let long = format!("usr/share/{}/{}", "d".repeat(120), "n".repeat(180));
    vec![
        entry("usr", EntryKind::Directory, b""),
        entry("usr/bin", EntryKind::Directory, b""),
        with_xattrs,
        file("usr/bin/empty", b""),
        file("usr/lib/large", &noise(9_000_000, 1)),
        file("usr/lib/holes", &holes),
        file(&long, b"long names"),
        file("usr/lib/exactly", &noise(1024, 9)),
        entry("usr/lib/other-name", EntryKind::HardLink(b"usr/lib/large".to_vec()), b""),
        entry("bin", EntryKind::Symlink(b"usr/bin".to_vec()), b""),
        entry("dev/console", EntryKind::Char { major: 5, minor: 1 }, b""),
        entry("dev/sda", EntryKind::Block { major: 8, minor: 300 }, b""),
        entry("run/pipe", EntryKind::Fifo, b""),
        file("etc/.wh.gone", b""),
        file("var/.wh..wh..opq", b""),
        file("Größe/naïve", "ünïcode".as_bytes()),
        file("zz/last", &noise(700, 5)),
    ]
}

pub(super) fn tar(given: &[Given]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in given {
        writer.entry(entry).unwrap();
        writer.data(content).unwrap();
    }
    writer.finish().unwrap()
}

pub(super) fn in_file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// The content of every file that `toc` shows, by path, decoded from `blob` and checked by digest; hard links are followed.
pub(super) fn contents(toc: &Toc, blob: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    toc.validate(blob.len() as u64, &Limits::default()).unwrap();
    let mut found: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for entry in &toc.entries {
        match &entry.kind {
            Kind::File { size, digest, chunks } => {
                let content = content(toc, blob, chunks.clone());
                assert_eq!(content.len() as u64, *size);
                if let Some(digest) = digest {
                    assert_eq!(Digest::of(&content), *digest);
                }
                found.insert(entry.path.to_vec(), content);
            }
            Kind::Hardlink(target) => {
                found.insert(entry.path.to_vec(), found[&target.to_vec()].clone());
            }
            _ => {}
        }
    }
    found
}

fn content(toc: &Toc, blob: &[u8], chunks: std::ops::Range<u32>) -> Vec<u8> {
    let mut content = Vec::new();
    for chunk in &toc.chunks[chunks.start as usize..chunks.end as usize] {
        let group = &toc.groups[chunk.group as usize];
        let coded = &blob[group.offset as usize..(group.offset + group.length) as usize];
        if let Some(digest) = group.digest {
            assert_eq!(Digest::of(coded), digest, "of the coded bytes");
        }
        let resume = match group.coding {
            Coding::Deflate { checkpoint } => {
                let checkpoint = &toc.checkpoints[checkpoint as usize];
                Some(Resume { bits: checkpoint.bits, window: &checkpoint.window })
            }
            _ => None,
        };
        let end = chunk.inner_offset + chunk.length;
        let output = decode(group.coding, coded, resume, end).unwrap();
        let bytes = &output[chunk.inner_offset as usize..];
        if let Some(digest) = chunk.digest {
            assert_eq!(Digest::of(bytes), digest);
        }
        content.extend_from_slice(bytes);
    }
    content
}

/// Asserts that `toc` says of each entry what `given` has, in any order; landmarks and tables do not count.
pub(super) fn assert_shows(toc: &Toc, blob: &[u8], given: &[Given], nanoseconds: bool) {
    let contents = contents(toc, blob);
    let own = |path: &[u8]| path.ends_with(b".landmark") || path == b"stargz.index.json";
    let shown: BTreeMap<&[u8], &lazy_index::Entry> =
        toc.entries.iter().filter(|entry| !own(&entry.path)).map(|entry| (&entry.path[..], entry)).collect();
    assert_eq!(shown.len(), given.len());
    for (entry, content) in given {
        let found = shown[entry.name.strip_suffix(b"/").unwrap_or(&entry.name)];
        let name = String::from_utf8_lossy(&entry.name);
        assert_eq!((found.mode, found.uid, found.gid), (entry.mode, entry.uid, entry.gid), "{name}");
        assert_eq!(found.mtime.secs, entry.mtime.seconds, "{name}");
        if nanoseconds {
            assert_eq!(found.mtime.nanos, entry.mtime.nanoseconds, "{name}");
        }
        let xattrs: Vec<_> =
            found.xattrs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        assert_eq!(xattrs, entry.xattrs, "{name}");
        match (&found.kind, &entry.kind) {
            (Kind::File { .. }, EntryKind::File) => assert!(contents[&entry.name] == *content, "{name}"),
            (Kind::Hardlink(found), EntryKind::HardLink(target))
            | (Kind::Symlink(found), EntryKind::Symlink(target)) => {
                assert_eq!(found.to_vec(), *target, "{name}")
            }
            (Kind::Character { major: a, minor: b }, EntryKind::Char { major, minor })
            | (Kind::Block { major: a, minor: b }, EntryKind::Block { major, minor }) => {
                assert_eq!((a, b), (major, minor), "{name}");
            }
            (Kind::Directory, EntryKind::Directory) | (Kind::Fifo, EntryKind::Fifo) => {}
            (found, given) => panic!("{name} is shown as {found:?} and was {given:?}"),
        }
    }
}
