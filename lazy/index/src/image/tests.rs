use super::*;
use crate::{Chunk, Entry, Group, IndexError, Kind, Limits, Xattrs};
use proptest::prelude::*;

fn entry(path: &str, kind: Kind) -> Entry {
    let mtime = Time { secs: -5, nanos: 6 };
    Entry { path: path.as_bytes().into(), kind, mode: 0o644, uid: 7, gid: 8, mtime, xattrs: Xattrs::new() }
}

/// Files of these sizes, in chunks of 10 bytes, three chunks a group.
fn layer(files: &[(&str, u64)]) -> Toc {
    let mut toc = Toc::default();
    let mut total = 0u64;
    for (path, size) in files {
        let start = toc.chunks.len() as u32;
        for file_offset in (0..*size).step_by(10) {
            let group = (toc.chunks.len() / 3) as u32;
            let digest = Some(Digest::of(&total.to_le_bytes()));
            let length = 10.min(size - file_offset);
            let inner_offset = (toc.chunks.len() % 3) as u64 * 10;
            toc.chunks.push(Chunk { file_offset, length, digest, group, inner_offset });
            total += 1;
        }
        let chunks = start..toc.chunks.len() as u32;
        toc.entries.push(entry(path, Kind::File { size: *size, digest: None, chunks }));
    }
    for number in 0..total.div_ceil(3) {
        let (offset, coding) = (number * 40, Coding::Zstd);
        toc.groups.push(Group { offset, length: 40, output_length: Some(30), coding, digest: None });
    }
    toc
}

fn index(layers: &[&Toc]) -> ImageIndex {
    let parts: Vec<_> = layers
        .iter()
        .enumerate()
        .map(|(number, toc)| LayerPart { blob: Digest::of(&[number as u8]), blob_bytes: 100_000, toc })
        .collect();
    for layer in layers {
        layer.validate(100_000, &Limits::default()).unwrap();
    }
    ImageIndex::from_bytes(ImageIndex::build(&parts, &Limits::default()).unwrap()).unwrap()
}

#[test]
fn chunks_are_found_by_range_and_by_group() {
    let (low, high) = (layer(&[("a", 35), ("gone", 25), ("b", 10)]), layer(&[("gone", 5), ("z/c", 12)]));
    let image = index(&[&low, &high]);
    let a = image.find(b"a").unwrap();
    let of = |offset, length| -> Vec<_> {
        image.chunks(a, offset, length).map(|chunk| chunk.file_offset).collect()
    };
    assert_eq!(of(0, u64::MAX), [0, 10, 20, 30]);
    assert_eq!(of(9, 2), [0, 10]);
    assert_eq!(of(10, 10), [10]);
    assert_eq!(of(34, 1), [30]);
    assert_eq!(of(35, 10), [0u64; 0]);
    assert_eq!(of(5, 0), [0]);
    assert_eq!(image.blobs().len(), 2);
    assert_eq!(image.bytes_total(), 35 + 10 + 5 + 12);
    // Of the lower layer's groups, the third has only what is gone or b: all groups that are left have chunks.
    for group in image.groups() {
        let chunks: Vec<_> = image.group_chunks(group.number).collect();
        assert!(!chunks.is_empty());
        assert!(chunks.iter().all(|chunk| chunk.group == group
            && image.chunks(chunk.node, chunk.file_offset, 1).next() == Some(*chunk)));
        assert!(chunks.windows(2).all(|pair| pair[0].inner_offset < pair[1].inner_offset));
    }
    let listed: usize = (0..image.group_count()).map(|group| image.group_chunks(group).count()).sum();
    assert_eq!(listed, image.chunk_count() as usize);
    assert_eq!(image.find(b"gone").and_then(|gone| image.chunks(gone, 0, 1).next()).unwrap().group.blob, 1);
}

#[test]
fn attributes_and_names_come_back() {
    let mut toc = layer(&[("d/f", 3)]);
    toc.entries.push(entry("d/s", Kind::Symlink(b"some/where"[..].into())));
    toc.entries.push(entry("d/h", Kind::Hardlink(b"d/f"[..].into())));
    toc.entries.push(entry("d/e/x", Kind::Character { major: 9, minor: 70_000 }));
    toc.entries[0].xattrs =
        vec![(b"user.b"[..].into(), b"2"[..].into()), (b"user.a"[..].into(), b""[..].into())];
    let image = index(&[&toc]);
    let file = image.find(b"d/f").unwrap();
    assert_eq!(image.find(b"d/h"), Some(file));
    let attr = image.attr(file).unwrap();
    assert_eq!((attr.mode, attr.uid, attr.gid, attr.nlink, attr.size), (0o644, 7, 8, 2, 3));
    assert_eq!(attr.mtime, Time { secs: -5, nanos: 6 });
    assert_eq!(image.xattrs(file).collect::<Vec<_>>(), [(&b"user.a"[..], &b""[..]), (b"user.b", b"2")]);
    assert_eq!(image.xattr(file, b"user.b"), Some(&b"2"[..]));
    let link = image.find(b"d/s").unwrap();
    assert_eq!((image.link_target(link), image.size(link)), (Some(&b"some/where"[..]), Some(10)));
    let directory = image.find(b"d").unwrap();
    let implied = image.attr(directory).unwrap();
    assert_eq!((implied.mode, implied.uid, implied.nlink, implied.kind), (0o755, 0, 3, NodeKind::Directory));
    let names =
        |from| -> Vec<_> { image.children(directory, from).map(|child| child.name.to_vec()).collect() };
    assert_eq!(names(0), [&b"e"[..], b"f", b"h", b"s"]);
    assert_eq!(names(2), [b"h", b"s"]);
    assert_eq!((names(4).len(), names(u32::MAX).len()), (0, 0));
    assert_eq!(image.attr(image.find(b"d/e/x").unwrap()).unwrap().device, (9, 70_000));
    assert_eq!(image.parent(link), Some(directory));
    assert_eq!(image.parent(ImageIndex::ROOT), Some(ImageIndex::ROOT));
    for missing in [NodeId(0), NodeId(image.nodes() + 1), NodeId(u32::MAX)] {
        assert!(image.attr(missing).is_none() && image.path(missing).is_none());
        assert_eq!(image.children(missing, 0).count() + image.chunks(missing, 0, 9).count(), 0);
    }
}

#[test]
fn the_same_layers_give_the_same_file() {
    let toc = layer(&[("b", 5), ("a", 30), ("c/d", 1)]);
    let part = LayerPart { blob: Digest::of(b""), blob_bytes: 9, toc: &toc };
    let build = || ImageIndex::build(&[part], &Limits::default()).unwrap();
    assert_eq!(build(), build());
}

#[test]
fn a_damaged_or_shortened_file_is_refused() {
    let toc = layer(&[("a", 25)]);
    let part = LayerPart { blob: Digest::of(b""), blob_bytes: 9, toc: &toc };
    let bytes = ImageIndex::build(&[part], &Limits::default()).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(ImageIndex::from_bytes(damaged).is_err(), "byte {at}");
        assert!(ImageIndex::from_bytes(bytes[..at].to_vec()).is_err(), "cut at {at}");
    }
}

#[test]
fn an_index_is_opened_from_its_file() {
    let toc = layer(&[("a", 25)]);
    let part = LayerPart { blob: Digest::of(b""), blob_bytes: 9, toc: &toc };
    let bytes = ImageIndex::build(&[part], &Limits::default()).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    assert_eq!(ImageIndex::open(file.path()).unwrap().nodes(), 2);
    std::fs::write(file.path(), b"something else").unwrap();
    assert!(matches!(ImageIndex::open(file.path()), Err(IndexError::Format { .. })));
    let missing = file.path().with_extension("none");
    assert!(matches!(ImageIndex::open(&missing), Err(IndexError::Map { .. })));
}

#[test]
fn l12_a_tree_deeper_than_a_stack_is_merged() {
    let mut toc = Toc::default();
    // Each link leads to the deepest directory there is, where the next one lies.
    let deep = "d/".repeat(2000);
    toc.entries.push(entry(&format!("{deep}x"), Kind::Fifo));
    for number in 0..200 {
        let to = if number == 0 { format!("/{deep}") } else { format!("/l{}/{deep}", number - 1) };
        toc.entries.push(entry(&format!("l{number}"), Kind::Symlink(to.into_bytes().into())));
        if number < 30 {
            toc.entries.push(entry(&format!("l{number}/y/z"), Kind::Fifo));
        }
    }
    let part = LayerPart { blob: Digest::of(b""), blob_bytes: 9, toc: &toc };
    let built = ImageIndex::build(&[part, part], &Limits::default());
    match built {
        Ok(bytes) => assert!(ImageIndex::from_bytes(bytes).unwrap().nodes() > 2000),
        Err(error) => assert!(matches!(error, IndexError::Entry { .. }), "{error}"),
    }
}

proptest! {
    /// The checksum is made right again, or nothing would be reached.
    #[test]
    fn no_bytes_with_a_right_checksum_make_a_reader_panic(changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..30)) {
        let mut toc = layer(&[("a", 25), ("d/b", 10)]);
        toc.entries.push(entry("s", Kind::Symlink(b"t"[..].into())));
        toc.entries[0].xattrs.push((b"user.x"[..].into(), b"y"[..].into()));
        let part = LayerPart { blob: Digest::of(b""), blob_bytes: 9, toc: &toc };
        let mut bytes = ImageIndex::build(&[part], &Limits::default()).unwrap();
        for (at, value) in changes {
            let at = 48 + at % (bytes.len() - 48);
            bytes[at] = value;
        }
        let checksum = Digest::of(&bytes[48..]);
        bytes[16..48].copy_from_slice(checksum.as_bytes());
        if let Ok(image) = ImageIndex::from_bytes(bytes) {
            for node in (0..image.nodes() + 2).map(NodeId) {
                let _ = (image.attr(node), image.link_target(node), image.path(node), image.file_digest(node));
                let _ = (image.xattrs(node).count(), image.children(node, 0).count(), image.lookup(node, b"a"));
                let _ = image.chunks(node, 3, 9).count();
            }
            for group in image.groups() {
                let _ = image.group_chunks(group.number).count();
            }
        }
    }
}
