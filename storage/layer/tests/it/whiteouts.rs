//! Deletions: rows U15 and U16, both forms, any order.

use std::fs;
use std::os::unix::fs::symlink;

use storage_layer::Whiteouts;

use crate::support::{Tar, Yard, refusal, unpacked};

fn lower() -> Yard {
    let yard = Yard::new();
    for directory in ["etc", "etc/sub"] {
        fs::create_dir(yard.root().join(directory)).unwrap();
    }
    for file in ["etc/passwd", "etc/whitedout", "etc/sub/deep", "top"] {
        fs::write(yard.root().join(file), "all users").unwrap();
    }
    symlink("/etc", yard.root().join("localetc")).unwrap();
    symlink("/dne", yard.root().join("dead")).unwrap();
    yard
}

#[test]
fn vuln_u15_a_whiteout_of_nothing_is_refused_and_is_not_opaque() {
    for name in [".wh.", "etc/.wh.", "etc/.wh./"] {
        for whiteouts in [Whiteouts::Overlay, Whiteouts::Apply] {
            let yard = lower();
            let error = yard.unpack_as(&Tar::new().file(name, b"").end(), whiteouts).unwrap_err().to_string();
            assert!(error.contains("a whiteout has to name an entry"), "{name}: {error}");
            assert_eq!(yard.read("etc/passwd"), b"all users");
        }
    }
}

#[test]
fn vuln_u16_a_whiteout_of_the_directory_itself_or_its_parent_is_refused() {
    for name in [".wh..", ".wh...", "etc/.wh..", "etc/.wh..."] {
        for whiteouts in [Whiteouts::Overlay, Whiteouts::Apply] {
            let yard = lower();
            let before = yard.picture();
            assert!(yard.unpack_as(&Tar::new().file(name, b"").end(), whiteouts).is_err(), "{name}");
            assert_eq!(yard.picture(), before, "{name}");
        }
    }
}

#[test]
fn vuln_u16_a_whiteout_of_a_link_deletes_the_link() {
    let yard = lower();
    yard.unpack_as(&Tar::new().file(".wh.localetc", b"").end(), Whiteouts::Apply).unwrap();
    assert!(yard.is_missing("localetc"));
    assert_eq!(yard.read("etc/passwd"), b"all users");
}

#[test]
fn vuln_u16_a_whiteout_through_a_link_deletes_inside_the_root_only() {
    let yard = lower();
    let tar = Tar::new().file("localetc/.wh.whitedout", b"").file("dead/.wh.etc", b"").end();
    yard.unpack_as(&tar, Whiteouts::Apply).unwrap();
    assert!(yard.is_missing("etc/whitedout"));
    assert_eq!(yard.read("etc/passwd"), b"all users");
    assert!(yard.stat("dead").is_symlink());

    let yard = Yard::new();
    symlink(yard.victim(), yard.root().join("out")).unwrap();
    symlink("../../victim", yard.root().join("up")).unwrap();
    let tar =
        Tar::new().file("out/.wh.passwd", b"").file("up/.wh.passwd", b"").file("up/.wh..wh..opq", b"").end();
    yard.unpack_as(&tar, Whiteouts::Apply).unwrap();
    yard.assert_untouched();
}

#[test]
fn vuln_u16_a_directory_whose_name_begins_like_a_whiteout_is_one() {
    let yard = lower();
    yard.unpack_as(&Tar::new().file(".wh.etc/somefile", b"non-empty").end(), Whiteouts::Apply).unwrap();
    assert_eq!(yard.read("etc/passwd"), b"all users");
    assert_eq!(yard.read(".wh.etc/somefile"), b"non-empty");
}

#[test]
fn a_whiteout_deletes_a_whole_directory_of_the_lower_layers() {
    let yard = lower();
    let tar = Tar::new().file(".wh.etc", b"").file(".wh.missing", b"").end();
    yard.unpack_as(&tar, Whiteouts::Apply).unwrap();
    assert!(yard.is_missing("etc"));
    assert_eq!(yard.read("top"), b"all users");
}

#[test]
fn vuln_u16_opaque_keeps_what_the_layer_brings_in_any_order() {
    let before = Tar::new().dir("etc", 0o755).file("etc/.wh..wh..opq", b"").file("etc/sub/new", b"new");
    let after = Tar::new().dir("etc", 0o755).file("etc/sub/new", b"new").file("etc/.wh..wh..opq", b"");
    for tar in [before, after] {
        let yard = lower();
        yard.unpack_as(&tar.clone().end(), Whiteouts::Apply).unwrap();
        assert_eq!(yard.read("etc/sub/new"), b"new");
        for gone in ["etc/passwd", "etc/sub/deep", "etc/whitedout"] {
            assert!(yard.is_missing(gone), "{gone}");
        }
        let yard = unpacked(&tar.end());
        assert!(yard.is_opaque("etc"));
        assert!(!yard.is_opaque("etc/sub"));
        assert!(yard.is_missing("etc/.wh..wh..opq"));
    }
}

#[test]
fn overlay_form_hides_an_entry_with_a_character_device() {
    let yard = unpacked(&Tar::new().file("a/.wh.b", b"").file(".wh.c", b"").end());
    assert!(yard.is_whiteout("a/b"));
    assert!(yard.is_whiteout("c"));
    assert!(yard.is_missing("a/.wh.b"));
}

#[test]
fn overlay_form_does_not_hide_what_the_layer_itself_brings() {
    // Deleted below and brought anew: the new one alone is seen, so a directory must not merge with the old one.
    let directory = |tar: Tar| tar.dir("d", 0o750).file("d/x", b"new");
    let deleted = |tar: Tar| tar.file(".wh.d", b"");
    for tar in [directory(deleted(Tar::new())), deleted(directory(Tar::new()))] {
        let yard = unpacked(&tar.end());
        assert_eq!(yard.read("d/x"), b"new");
        assert!(yard.is_opaque("d"));
    }
    let yard = unpacked(&deleted(Tar::new()).file("d/x", b"new").end());
    assert!(yard.is_opaque("d"), "a directory that is only implied");
    for tar in
        [Tar::new().file(".wh.f", b"").file("f", b"new"), Tar::new().file("f", b"new").file(".wh.f", b"")]
    {
        assert_eq!(unpacked(&tar.end()).read("f"), b"new");
    }
    // A directory that takes the place of a file in the same layer starts empty.
    assert!(unpacked(&Tar::new().file("d", b"").dir("d", 0o755).end()).is_opaque("d"));
}

#[test]
fn apply_form_keeps_what_the_layer_itself_brings() {
    let directory = |tar: Tar| tar.dir("etc", 0o755).file("etc/new", b"new");
    let deleted = |tar: Tar| tar.file(".wh.etc", b"");
    for tar in [directory(deleted(Tar::new())), deleted(directory(Tar::new()))] {
        let yard = lower();
        yard.unpack_as(&tar.end(), Whiteouts::Apply).unwrap();
        assert_eq!(yard.read("etc/new"), b"new");
        assert!(yard.is_missing("etc/passwd"));
    }
}

#[test]
fn files_of_aufs_are_left_out() {
    let tar =
        Tar::new().dir(".wh..wh.plnk", 0o700).file(".wh..wh.plnk/1.2", b"x").file("a/.wh..wh.aufs", b"x");
    let yard = unpacked(&tar.end());
    assert_eq!(yard.picture().len(), 1);
}

#[test]
fn a_name_may_hold_a_whiteout_prefix_only_at_its_start() {
    assert_eq!(unpacked(&Tar::new().file("a.wh.b", b"x").end()).read("a.wh.b"), b"x");
    assert!(refusal(&Tar::new().file("a/.wh.", b"").end()).contains("whiteout"));
}
