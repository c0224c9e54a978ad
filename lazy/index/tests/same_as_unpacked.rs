//! The merged tree is the tree that unpacking the same layers and stacking them with overlayfs gives: every name, kind,
//! attribute and link, for layers made up at random. And what the unpacker refuses, the merge refuses.
//!
//! Needs root, as unpacking does: owners and devices. The overlay is mounted nowhere; it is looked at through its
//! descriptor and goes with it.
#![allow(clippy::unwrap_used, reason = "a failure is the finding")]

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use lazy_index::{
    Chunk, Coding, Entry, Group, ImageIndex, Kind, LayerPart, Limits, NodeId, NodeKind, Time, Toc, Xattrs,
};
use proptest::prelude::*;
use storage_layer::{UnpackOptions, settle, tar, unpack};
use storage_model::{Compression, Digest};
use storage_sys::mount::{OverlayOptions, overlay};
use storage_sys::tree::Timestamp;

/// What files hold: their number decides.
fn content(seed: u8) -> Vec<u8> {
    (0..seed).map(|n| n ^ seed).collect()
}

/// A layer as a table of contents; the "blob" has each file's bytes one after the other.
fn toc(entries: &[(Entry, u8)]) -> (Toc, u64) {
    let mut toc = Toc::default();
    let mut offset = 0;
    for (entry, seed) in entries {
        let mut entry = entry.clone();
        if let Kind::File { size, digest, chunks } = &mut entry.kind {
            let bytes = content(*seed);
            (*size, *digest) = (bytes.len() as u64, Some(Digest::of(&bytes)));
            if !bytes.is_empty() {
                let number = toc.chunks.len() as u32;
                *chunks = number..number + 1;
                let length = bytes.len() as u64;
                toc.chunks.push(Chunk {
                    file_offset: 0,
                    length,
                    digest: *digest,
                    group: number,
                    inner_offset: 0,
                });
                toc.groups.push(Group {
                    offset,
                    length,
                    output_length: None,
                    coding: Coding::Plain,
                    digest: None,
                });
                offset += length;
            }
        }
        toc.entries.push(entry);
    }
    (toc, offset)
}

/// The same layer as a tar; `None` if no tar can hold it.
fn archive(entries: &[(Entry, u8)]) -> Option<Vec<u8>> {
    let mut writer = tar::Writer::new(Vec::new());
    for (entry, seed) in entries {
        let (kind, size) = match &entry.kind {
            Kind::Directory => (tar::EntryKind::Directory, 0),
            Kind::File { .. } => (tar::EntryKind::File, u64::from(*seed)),
            Kind::Symlink(target) => (tar::EntryKind::Symlink(target.to_vec()), 0),
            Kind::Hardlink(target) => (tar::EntryKind::HardLink(target.to_vec()), 0),
            Kind::Character { major, minor } => (tar::EntryKind::Char { major: *major, minor: *minor }, 0),
            Kind::Block { major, minor } => (tar::EntryKind::Block { major: *major, minor: *minor }, 0),
            Kind::Fifo => (tar::EntryKind::Fifo, 0),
        };
        let mtime = Timestamp { seconds: entry.mtime.secs, nanoseconds: entry.mtime.nanos };
        let xattrs = entry.xattrs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        let name = if entry.path.is_empty() { b"./".to_vec() } else { entry.path.to_vec() };
        let (mode, uid, gid) = (entry.mode, entry.uid, entry.gid);
        let entry = tar::Entry { name, kind, mode, uid, gid, mtime, atime: None, xattrs, size };
        writer.entry(&entry).ok()?;
        if entry.kind == tar::EntryKind::File {
            writer.data(&content(*seed)).unwrap();
        }
    }
    Some(writer.finish().unwrap())
}

/// Unpacks layers as a pull does; the directories, the highest first, the last one empty.
fn unpacked(layers: &[Vec<(Entry, u8)>], root: &Path) -> Result<Vec<PathBuf>, storage_layer::LayerError> {
    let mut stack: Vec<PathBuf> = vec![root.join("nothing")];
    std::fs::create_dir(&stack[0]).unwrap();
    for (number, layer) in layers.iter().enumerate() {
        let target = root.join(number.to_string());
        std::fs::create_dir(&target).unwrap();
        let bytes = archive(layer).expect("asked before");
        let made = unpack(&bytes[..], Compression::None, &target, &UnpackOptions::default(), &|_| {})?;
        settle(&target, &made.implied, &stack)?;
        stack.insert(0, target);
    }
    Ok(stack)
}

/// A node as a string, so that a difference can be read.
type Seen = BTreeMap<PathBuf, String>;

fn xattrs_of(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut list = vec![0u8; 65536];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    let mut found: Vec<_> = list[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && *name != b"security.selinux")
        .map(|name| {
            let mut value = vec![0u8; 65536];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            (name.to_vec(), value[..length].to_vec())
        })
        .collect();
    found.sort();
    found
}

fn kind_of(metadata: &Metadata) -> NodeKind {
    let kind = metadata.file_type();
    match () {
        () if kind.is_dir() => NodeKind::Directory,
        () if kind.is_symlink() => NodeKind::Symlink,
        () if kind.is_char_device() => NodeKind::Character,
        () if kind.is_block_device() => NodeKind::Block,
        () if kind.is_fifo() => NodeKind::Fifo,
        () => NodeKind::File,
    }
}

/// The mounted tree; nodes with several names are told by the first of them.
fn walk(root: &Path) -> Seen {
    let mut seen = Seen::new();
    let mut firsts: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    let mut paths = Vec::new();
    while let Some(path) = todo.pop() {
        let whole = root.join(&path);
        let metadata = match std::fs::symlink_metadata(&whole) {
            // A whiteout in a directory that only one layer has: overlayfs lists it and denies it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            metadata => metadata.unwrap(),
        };
        if metadata.is_dir() {
            todo.extend(
                std::fs::read_dir(&whole).unwrap().map(|child| path.join(child.unwrap().file_name())),
            );
        }
        paths.push((path, metadata));
    }
    paths.sort_by(|one, other| one.0.cmp(&other.0));
    for (path, metadata) in paths {
        let whole = root.join(&path);
        let kind = kind_of(&metadata);
        let first = match kind {
            NodeKind::Directory => path.clone(),
            _ => firsts.entry(metadata.ino()).or_insert_with(|| path.clone()).clone(),
        };
        let what = match kind {
            NodeKind::File => Digest::of(&std::fs::read(&whole).unwrap()).to_string(),
            NodeKind::Symlink => format!("{:?}", std::fs::read_link(&whole).unwrap()),
            NodeKind::Character | NodeKind::Block => {
                format!("{}:{}", rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()))
            }
            _ => String::new(),
        };
        let (mode, uid, gid) = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
        let time = (metadata.mtime(), metadata.mtime_nsec());
        let xattrs = xattrs_of(&whole);
        seen.insert(path, format!("{kind:?} {mode:o} {uid}:{gid} {time:?} {what} {xattrs:?} = {first:?}"));
    }
    seen
}

/// Overlayfs shows escaped attributes of its own space under their true names.
fn freed(name: &[u8]) -> Vec<u8> {
    match name.strip_prefix(b"trusted.overlay.overlay.") {
        Some(rest) => [b"trusted.overlay.", rest].concat(),
        None => name.to_vec(),
    }
}

/// The index's tree in the same words. Directories nobody describes have the time of the unpacking in a real tree: `None`.
fn listed(index: &ImageIndex) -> BTreeMap<PathBuf, (String, bool)> {
    let mut listed = BTreeMap::new();
    let mut firsts: BTreeMap<NodeId, PathBuf> = BTreeMap::new();
    let mut paths = Vec::new();
    let mut todo = vec![(PathBuf::new(), ImageIndex::ROOT)];
    while let Some((path, node)) = todo.pop() {
        for child in index.children(node, 0) {
            assert_eq!(index.lookup(node, child.name), Some(child.node));
            assert_eq!(index.attr(child.node).unwrap().kind, child.kind);
            todo.push((path.join(std::ffi::OsStr::from_bytes(child.name)), child.node));
        }
        paths.push((path, node));
    }
    paths.sort();
    for (path, node) in paths {
        let attr = index.attr(node).unwrap();
        let first = firsts.entry(node).or_insert_with(|| path.clone()).clone();
        let what = match attr.kind {
            NodeKind::File => index.file_digest(node).unwrap().to_string(),
            NodeKind::Symlink => {
                format!("{:?}", std::ffi::OsStr::from_bytes(index.link_target(node).unwrap()))
            }
            NodeKind::Character | NodeKind::Block => format!("{}:{}", attr.device.0, attr.device.1),
            _ => String::new(),
        };
        let mut xattrs: Vec<_> =
            index.xattrs(node).map(|(name, value)| (freed(name), value.to_vec())).collect();
        xattrs.sort();
        let (mode, uid, gid) = (attr.mode, attr.uid, attr.gid);
        let time = (attr.mtime.secs, i64::from(attr.mtime.nanos));
        let kind = attr.kind;
        let text = format!("{kind:?} {mode:o} {uid}:{gid} {time:?} {what} {xattrs:?} = {first:?}");
        listed.insert(path, (text, attr.mtime == Time::default()));
    }
    listed
}

/// Cuts the time out of a description.
fn timeless(text: &str) -> String {
    let (head, tail) = text.split_once('(').unwrap();
    format!("{head}{}", tail.split_once(')').unwrap().1)
}

/// Whether this is a directory that nobody described, made by an unpacking since `since` (seconds of 1970).
fn is_bare(seen: &str, since: u64) -> bool {
    let time = seen.strip_prefix("Directory 755 0:0 (").and_then(|rest| rest.split(',').next());
    time.and_then(|secs| secs.parse::<u64>().ok()).is_some_and(|secs| secs >= since && secs <= now())
}

fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// Compares the two for these layers.
///
/// One difference is let pass: the unpacker remembers what a directory gets by the path its entry named, and forgets it
/// when that path led through a link that a later entry replaces. The index has what the entry says.
fn compare(layers: &[Vec<(Entry, u8)>]) {
    if layers.iter().any(|layer| archive(layer).is_none()) {
        return;
    }
    let since = now().saturating_sub(1);
    let has_links = layers.iter().flatten().any(|(entry, _)| matches!(entry.kind, Kind::Symlink(_)));
    let root = tempfile::tempdir().unwrap();
    let tocs: Vec<(Toc, u64)> = layers.iter().map(|layer| toc(layer)).collect();
    for (toc, blob_bytes) in &tocs {
        assert_eq!(&Toc::decode(&toc.encode()).unwrap(), toc);
        let _ = blob_bytes;
    }
    let blob = Digest::of(b"blob");
    let parts: Vec<_> =
        tocs.iter().map(|(toc, blob_bytes)| LayerPart { blob, blob_bytes: *blob_bytes, toc }).collect();
    let built = ImageIndex::build(&parts, &Limits::default());
    let valid = tocs.iter().all(|(toc, blob_bytes)| toc.validate(*blob_bytes, &Limits::default()).is_ok());
    let stack = match (unpacked(layers, root.path()), &built) {
        (Ok(stack), Ok(_)) => stack,
        (Err(_), Err(_)) => {
            assert!(!valid, "what cannot be merged passed the validation");
            return;
        }
        (Ok(_), Err(error)) => panic!("refused, but can be unpacked: {error}"),
        // The same forgetfulness: an implied directory that is replaced through a link is looked for afterwards.
        (Err(storage_layer::LayerError::Write { action, .. }), Ok(_))
            if has_links && action.starts_with("copy the owner") =>
        {
            return;
        }
        (Err(error), Ok(_)) => panic!("accepted, but cannot be unpacked: {error}"),
    };
    assert!(valid, "what can be unpacked did not pass the validation");
    let index = ImageIndex::from_bytes(built.unwrap()).unwrap();
    let mounted = overlay(&stack, None, &OverlayOptions::default()).unwrap();
    let mounted_at = PathBuf::from(format!("/proc/self/fd/{}/.", mounted.as_fd().as_raw_fd()));
    let (mut seen, mut listed) = (walk(&mounted_at), listed(&index));
    if !layers.last().is_some_and(|top| top.iter().any(|(entry, _)| entry.path.is_empty())) {
        // The directory the topmost layer was unpacked into: whoever made it gave it its attributes.
        seen.remove(Path::new(""));
        listed.remove(Path::new(""));
    }
    let names: (Vec<_>, Vec<_>) = (seen.keys().collect(), listed.keys().collect());
    assert_eq!(names.0, names.1);
    for (path, seen) in &seen {
        let (own, timeless_only) = &listed[path];
        if has_links && own.starts_with("Directory") && is_bare(seen, since) {
            continue;
        }
        if *timeless_only {
            assert_eq!(timeless(seen), timeless(own), "{path:?}");
        } else {
            assert_eq!(seen, own, "{path:?}");
        }
    }
    for number in 1..=index.nodes() {
        let path = index.path(NodeId(number)).unwrap();
        assert_eq!(index.find(&path), Some(NodeId(number)));
    }
}

fn path() -> impl Strategy<Value = Box<[u8]>> {
    let name = prop_oneof![
        8 => prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned),
        1 => prop::sample::select(vec![".wh.a", ".wh.b", ".wh..wh..opq", ".wh..wh.plnk", ".wh.", "\u{e9}"])
            .prop_map(str::to_owned),
    ];
    prop::collection::vec(name, 0..4).prop_map(|names| names.join("/").into_bytes().into())
}

fn xattrs() -> impl Strategy<Value = Xattrs> {
    let names = vec!["user.x", "trusted.overlay.opaque", "trusted.y", "user.overlay.origin", "nowhere.z"];
    prop::collection::btree_map(prop::sample::select(names), prop::collection::vec(any::<u8>(), 0..4), 0..2)
        .prop_map(|map| map.into_iter().map(|(name, value)| (name.as_bytes().into(), value.into())).collect())
}

fn entry() -> impl Strategy<Value = (Entry, u8)> {
    let target = prop::sample::select(vec!["a", "b", "../b", "/c", "a/b", "/", ".", "c/../a"]);
    let kind = prop_oneof![
        4 => Just(Kind::File { size: 0, digest: None, chunks: 0..0 }),
        5 => Just(Kind::Directory),
        2 => target.prop_map(|target| Kind::Symlink(target.as_bytes().into())),
        2 => path().prop_map(Kind::Hardlink),
        1 => (1u32..300, 0u32..70000).prop_map(|(major, minor)| Kind::Character { major, minor }),
        1 => Just(Kind::Block { major: 7, minor: 1 }),
        1 => Just(Kind::Fifo),
    ];
    let time = (1i64..4_000_000_000, 0u32..1_000_000_000).prop_map(|(secs, nanos)| Time { secs, nanos });
    let mode = prop::sample::select(vec![0o755u32, 0o644, 0o4711, 0o2755, 0o1777, 0]);
    (path(), kind, mode, 0u32..3, 0u32..3, time, xattrs(), any::<u8>()).prop_map(
        |(path, kind, mode, uid, gid, mtime, xattrs, seed)| {
            let link = matches!(kind, Kind::Symlink(_));
            let mode = if link { 0o777 } else { mode };
            // A tar's hard link has no attributes of its own.
            let xattrs = if matches!(kind, Kind::Hardlink(_)) { Xattrs::new() } else { xattrs };
            (Entry { path, kind, mode, uid, gid, mtime, xattrs }, seed)
        },
    )
}

fn is_root() -> bool {
    storage_sys::durable::effective_user() == 0
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_merged_image_is_what_unpacking_and_overlayfs_give(
        layers in prop::collection::vec(prop::collection::vec(entry(), 0..9), 1..4)
    ) {
        prop_assume!(is_root());
        compare(&layers);
    }
}

fn named(path: &str, kind: Kind) -> (Entry, u8) {
    let mtime = Time { secs: 1_000_000_000, nanos: 5 };
    let path = path.as_bytes().into();
    (Entry { path, kind, mode: 0o755, uid: 1, gid: 2, mtime, xattrs: Xattrs::new() }, 7)
}

fn file(path: &str) -> (Entry, u8) {
    named(path, Kind::File { size: 0, digest: None, chunks: 0..0 })
}

fn link(path: &str, target: &str) -> (Entry, u8) {
    named(path, Kind::Hardlink(target.as_bytes().into()))
}

#[test]
fn the_hard_cases_by_name() {
    if !is_root() {
        return;
    }
    let dir = |path| named(path, Kind::Directory);
    let sym = |path, target: &str| named(path, Kind::Symlink(target.as_bytes().into()));
    // A whiteout of a directory, and what replaces it; one before and one after what its own layer brings.
    compare(&[
        vec![file("d/x"), file("d/y")],
        vec![file("d/.wh.x"), file("d/x")],
        vec![dir("d"), file("d/.wh..wh..opq"), file("d/z")],
    ]);
    compare(&[vec![file("d/x"), file("e")], vec![file(".wh.d"), dir("d"), file("d/n"), file(".wh.e")]]);
    // A directory in place of a file and the other way round.
    compare(&[vec![file("a"), dir("b"), file("b/x")], vec![dir("a"), file("a/y"), file("b")]]);
    // A hard link whose first name goes, one in the layer above, and a chain.
    compare(&[vec![file("a"), link("b", "a"), link("c", "b")], vec![file(".wh.a"), file("b")]]);
    // Implied directories: settled from below, through a whiteout, under an opaque directory.
    compare(&[
        vec![dir("p"), dir("p/q"), file("p/q/x")],
        vec![file("p/q/y")],
        vec![file("p/.wh.q"), file("p/q/z")],
    ]);
    compare(&[vec![dir("p"), dir("p/q")], vec![file("p/.wh..wh..opq"), file("p/q/y")]]);
    // An opaque root: overlayfs merges all roots, so it hides nothing.
    compare(&[vec![file("b")], vec![file(".wh..wh..opq"), file("c")]]);
    // Links on the way are followed inside the layer only.
    compare(&[vec![sym("lib", "usr/lib"), file("lib/x")], vec![file("lib/y")]]);
    // A link that replaces its own target.
    compare(&[vec![file("a/x"), link("a", "a/x")]]);
    compare(&[vec![sym("a", "b"), sym("b", "a"), file("a/x")]]);
}
