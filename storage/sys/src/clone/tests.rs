//! Trees are compared entry by entry with what they were made of.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use super::content::Contents;
use super::*;

type Facts = (u32, u32, u32, u64, i64, i64, Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>);

fn facts(path: &Path) -> Facts {
    let it = path.symlink_metadata().unwrap();
    let kind = it.file_type();
    let content = if kind.is_file() {
        fs::read(path).unwrap()
    } else if kind.is_symlink() {
        fs::read_link(path).unwrap().into_os_string().into_encoded_bytes()
    } else {
        Vec::new()
    };
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let xattrs = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let xattrs = xattrs.map(|name| {
        let mut value = vec![0; 4096];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        (name.to_vec(), value[..length].to_vec())
    });
    (it.mode(), it.uid(), it.gid(), it.rdev(), it.mtime(), it.mtime_nsec(), content, xattrs.collect())
}

fn describe(root: &Path) -> BTreeMap<PathBuf, Facts> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let it = facts(&path);
        if path.symlink_metadata().unwrap().is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert(path.strip_prefix(root).unwrap().to_owned(), it);
    }
    found
}

fn is_root() -> bool {
    let root = crate::durable::effective_user() == 0;
    if !root {
        eprintln!("skipped: owners, devices and trusted attributes need root");
    }
    root
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn whiteout(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
}

fn two() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    let (a, b) = (scratch.path().join("a"), scratch.path().join("b"));
    fs::create_dir(&a).unwrap();
    fs::create_dir(&b).unwrap();
    (scratch, a, b)
}

/// One of everything that a file system holds.
fn furnish(root: &Path) {
    fs::create_dir_all(root.join("dir/below/deeper")).unwrap();
    for (file, mode) in [("plain", 0o644), ("dir/suid", 0o4755), ("dir/below/none", 0)] {
        fs::write(root.join(file), file.repeat(3000)).unwrap();
        chown(root.join(file), Some(70_000), Some(5)).unwrap();
        fs::set_permissions(root.join(file), Permissions::from_mode(mode)).unwrap();
    }
    fs::write(root.join("empty"), "").unwrap();
    fs::hard_link(root.join("plain"), root.join("dir/plain too")).unwrap();
    fs::hard_link(root.join("plain"), root.join("dir/below/plain three")).unwrap();
    symlink("/nowhere", root.join("dir/link")).unwrap();
    fs::hard_link(root.join("dir/link"), root.join("link too")).unwrap();
    let node = |name: &str, kind, device| {
        let mode = Mode::RUSR | Mode::WGRP;
        rustix::fs::mknodat(CWD, root.join(name), kind, mode, device).unwrap();
    };
    node("fifo", FileType::Fifo, 0);
    node("socket", FileType::Socket, 0);
    node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    node("loop", FileType::BlockDevice, rustix::fs::makedev(7, 0));
    set_xattr(&root.join("plain"), "user.colour", b"red");
    set_xattr(&root.join("dir"), "trusted.note", b"\0\xff");
    set_xattr(&root.join("dir/link"), "trusted.note", b"on a link");
    set_xattr(&root.join("dir/suid"), "security.capability", &CAPABILITY);
    // Hands its group down, forbids everybody, and was last changed long ago.
    chown(root.join("dir"), Some(1), Some(2)).unwrap();
    fs::set_permissions(root.join("dir"), Permissions::from_mode(0o2000)).unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    for name in ["dir/below", "dir", "plain", ""] {
        fs::File::open(root.join(name)).unwrap().set_modified(then).unwrap();
    }
}

/// `cap_net_raw+ep`, as the kernel keeps it (version 2).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn a_clone_has_everything_the_tree_has() {
    if !is_root() {
        return;
    }
    let (_scratch, from, to) = two();
    furnish(&from);
    let cloned = clone_tree(&from, &to).unwrap();
    assert_eq!(describe(&to), describe(&from));
    let inode = |name: &str| to.join(name).symlink_metadata().unwrap().ino();
    assert_eq!(inode("plain"), inode("dir/plain too"));
    assert_eq!(inode("plain"), inode("dir/below/plain three"));
    assert_eq!(inode("link too"), inode("dir/link"));
    assert_ne!(inode("plain"), from.join("plain").metadata().unwrap().ino());
    assert_eq!(cloned.inodes + 1, crate::usage::disk_usage(&to).unwrap().inodes);
    assert_eq!(crate::usage::disk_usage(&to).unwrap(), crate::usage::disk_usage(&from).unwrap());
    fs::write(to.join("plain"), "changed").unwrap();
    assert_ne!(fs::read(from.join("plain")).unwrap(), b"changed", "nothing is shared that can be seen");
}

#[test]
fn holes_stay_holes_whichever_way_contents_are_copied() {
    let (_scratch, from, to) = two();
    let mut file = fs::File::create(from.join("sparse")).unwrap();
    for at in [1 << 20, 5 << 20] {
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&vec![7; 70_000]).unwrap();
    }
    file.set_len(64 << 20).unwrap();
    file.sync_all().unwrap();
    let source: OwnedFd = fs::File::open(from.join("sparse")).unwrap().into();
    for how in [How::Shared, How::Kernel, How::Plain] {
        let path = to.join(format!("{how:?}"));
        let target: OwnedFd = fs::File::create(&path).unwrap().into();
        Contents::only(how).copy(&source, &target, &rustix::fs::fstat(&source).unwrap()).unwrap();
        rustix::fs::fsync(&target).unwrap();
        let made = path.metadata().unwrap();
        assert_eq!(made.len(), 64 << 20, "{how:?}");
        assert!(made.blocks() * 512 < 1 << 20, "{how:?}: {} blocks", made.blocks());
        assert_eq!(fs::read(&path).unwrap(), fs::read(from.join("sparse")).unwrap(), "{how:?}");
    }
}

#[test]
fn every_way_copies_what_is_longer_than_a_buffer() {
    let (_scratch, from, to) = two();
    let bytes: Vec<u8> = (0..3_000_001u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    fs::write(from.join("long"), &bytes).unwrap();
    let source: OwnedFd = fs::File::open(from.join("long")).unwrap().into();
    for how in [How::Shared, How::Kernel, How::Plain] {
        let path = to.join("copy");
        let target: OwnedFd = fs::File::create(&path).unwrap().into();
        let mut contents = Contents::only(how);
        contents.copy(&source, &target, &rustix::fs::fstat(&source).unwrap()).unwrap();
        assert!(contents.how() >= how);
        assert_eq!(fs::read(&path).unwrap(), bytes, "{how:?}");
    }
}

#[test]
fn a_clone_of_any_depth_is_made() {
    let (_scratch, from, to) = two();
    let name = "n".repeat(200);
    let open = |at: &OwnedFd, name: &str| {
        rustix::fs::openat(at, name, rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap()
    };
    let mut directory: OwnedFd = fs::File::open(&from).unwrap().into();
    for _ in 0..300 {
        rustix::fs::mkdirat(&directory, &*name, Mode::RWXU).unwrap();
        directory = open(&directory, &name);
    }
    let file = rustix::fs::openat(&directory, "bottom", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
    fs::File::from(file).write_all_at(b"here", 0).unwrap();
    rustix::fs::linkat(&directory, "bottom", &directory, "again", AtFlags::empty()).unwrap();
    assert_eq!(clone_tree(&from, &to).unwrap().inodes, 301);
    let mut directory: OwnedFd = fs::File::open(&to).unwrap().into();
    for _ in 0..300 {
        directory = open(&directory, &name);
    }
    let facts = rustix::fs::statat(&directory, "again", AtFlags::SYMLINK_NOFOLLOW).unwrap();
    assert_eq!((facts.st_nlink, facts.st_size), (2, 4));
    crate::tree::remove_all(&to).unwrap();
    crate::tree::remove_all(&from).unwrap();
}

#[test]
fn vuln_u1_links_in_a_tree_lead_a_clone_nowhere() {
    let (scratch, from, to) = two();
    let secret = scratch.path().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("key"), "secret").unwrap();
    symlink(&secret, from.join("lure")).unwrap();
    symlink("../secret/key", from.join("file")).unwrap();
    clone_tree(&from, &to).unwrap();
    assert_eq!(fs::read_link(to.join("lure")).unwrap(), secret);
    assert_eq!(fs::read_link(to.join("file")).unwrap(), Path::new("../secret/key"));
    // A layer's directory meets a link of the tree below, which leads outside: the link goes, nothing is followed.
    let layer = scratch.path().join("layer");
    fs::create_dir_all(layer.join("lure")).unwrap();
    fs::write(layer.join("lure/key"), "evil").unwrap();
    merge_layer(&layer, &to).unwrap();
    assert_eq!(fs::read(secret.join("key")).unwrap(), b"secret");
    assert_eq!(fs::read(to.join("lure/key")).unwrap(), b"evil");
    assert!(!to.join("lure").symlink_metadata().unwrap().is_symlink());
}

#[test]
fn a_merged_layer_deletes_replaces_and_adds() {
    if !is_root() {
        return;
    }
    let (_scratch, layer, onto) = two();
    for directory in ["kept/below", "opaque/old", "gone/below", "was directory/below"] {
        fs::create_dir_all(onto.join(directory)).unwrap();
    }
    for file in ["kept/file", "opaque/file", "gone/file", "was file", "changed"] {
        fs::write(onto.join(file), "old").unwrap();
    }
    fs::set_permissions(&onto, Permissions::from_mode(0o711)).unwrap();
    for directory in ["kept", "opaque", "was file/new", "hides nothing"] {
        fs::create_dir_all(layer.join(directory)).unwrap();
    }
    whiteout(&layer.join("gone"));
    whiteout(&layer.join("never there"));
    whiteout(&layer.join("kept/below"));
    fs::write(layer.join("was directory"), "now a file").unwrap();
    fs::write(layer.join("changed"), "new").unwrap();
    fs::hard_link(layer.join("changed"), layer.join("opaque/changed too")).unwrap();
    for directory in ["opaque", "hides nothing"] {
        set_xattr(&layer.join(directory), "trusted.overlay.opaque", b"y");
    }
    set_xattr(&onto.join("kept"), "user.old", b"goes");
    set_xattr(&layer.join("kept"), "user.new", b"comes");
    set_xattr(&layer.join("kept"), "trusted.overlay.overlay.opaque", b"an image's own, escaped");
    fs::set_permissions(layer.join("kept"), Permissions::from_mode(0o1770)).unwrap();
    assert!(has_whiteouts(&layer).unwrap() && !has_whiteouts(&onto).unwrap());
    let before = describe(&layer);
    merge_layer(&layer, &onto).unwrap();
    let merged = describe(&onto);
    let names: Vec<_> = merged.keys().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "",
            "changed",
            "hides nothing",
            "kept",
            "kept/file",
            "opaque",
            "opaque/changed too",
            "was directory",
            "was file",
            "was file/new"
        ]
    );
    assert_eq!(merged[Path::new("")].0 & 0o7777, 0o711, "the top directory is not the layer's");
    let (kept, opaque) = (&merged[Path::new("kept")], &merged[Path::new("opaque")]);
    assert_eq!((kept.0 & 0o7777, kept.7.keys().len()), (0o1770, 2));
    assert!(kept.7.contains_key(&b"user.new"[..]) && opaque.7.is_empty());
    let inode = |name: &str| onto.join(name).metadata().unwrap().ino();
    assert_eq!(inode("changed"), inode("opaque/changed too"));
    assert_eq!(describe(&layer), before, "the layer is as it was");
}
