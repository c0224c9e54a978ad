//! What is read, and what it makes: dialects, numbers, sparse files, times, modes.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use storage_layer::LayerError;

use crate::support::{Header, Tar, Yard, refusal, unpacked};

#[test]
fn every_kind_of_entry_is_made_with_its_owner_mode_and_time() {
    let with = |name: &str, kind, mode| Header::new(name, kind).mode(mode).owner(5, 6).device(10, 229);
    let tar = Tar::new()
        .pax(&[("mtime", b"1000000000.123456789"), ("atime", b"1000000001.5")])
        .entry(with("file", b'0', 0o640).size(4), b"data")
        .entry(with("dir", b'5', 0o2750), b"")
        .entry(with("dir/inside", b'0', 0o604), b"")
        .entry(with("link", b'2', 0o777).link("../anywhere"), b"")
        .entry(with("char", b'3', 0o660), b"")
        .entry(with("block", b'4', 0o4606), b"")
        .entry(with("fifo", b'6', 0o622), b"")
        .entry(with("seven", b'7', 0o400), b"")
        .link("hard", "file");
    let yard = Yard::new();
    let unpacked = yard.unpack(&tar.end()).unwrap();
    assert_eq!((unpacked.entries, unpacked.inodes), (9, 8));
    let modes = [("file", 0o640), ("dir", 0o2750), ("dir/inside", 0o604), ("block", 0o4606), ("fifo", 0o622)];
    for (name, mode) in modes {
        assert_eq!(yard.stat(name).mode() & 0o7777, mode, "{name}");
    }
    for name in ["file", "dir", "dir/inside", "link", "char", "block", "fifo", "seven"] {
        assert_eq!((yard.stat(name).uid(), yard.stat(name).gid()), (5, 6), "{name}");
    }
    let file = yard.stat("file");
    assert_eq!((file.mtime(), file.mtime_nsec()), (1_000_000_000, 123_456_789));
    assert_eq!((file.atime(), file.atime_nsec(), file.nlink()), (1_000_000_001, 500_000_000, 2));
    assert_eq!(yard.stat("dir").mtime(), 0o14_000_000_000, "entries below do not change it");
    assert_eq!(yard.stat("link").mtime(), 0o14_000_000_000);
    assert!(yard.stat("fifo").file_type().is_fifo());
    assert_eq!(yard.stat("char").rdev(), (10 << 8) | 229);
}

#[test]
fn times_before_1970_and_after_2038_are_kept() {
    for (text, seconds, nanoseconds) in
        [("-1.25", -2, 750_000_000), ("-86400", -86400, 0), ("4294967296", 1 << 32, 0)]
    {
        let yard = unpacked(&Tar::new().pax(&[("mtime", text.as_bytes())]).file("f", b"").end());
        assert_eq!((yard.stat("f").mtime(), yard.stat("f").mtime_nsec()), (seconds, nanoseconds), "{text}");
    }
}

#[test]
fn long_names_come_by_prefix_by_pax_and_by_gnu() {
    let directory = "d".repeat(80);
    let long = format!("{directory}/{}", "f".repeat(90));
    let name = "f".repeat(90);
    let prefix = Header::new(&name, b'0').set(345, directory.as_bytes());
    for tar in [
        Tar::new().entry(prefix, b""),
        Tar::new().pax(&[("path", long.as_bytes())]).file("short", b""),
        Tar::new().gnu_long(b'L', long.as_bytes()).file("short", b""),
    ] {
        assert!(unpacked(&tar.end()).stat(&long).is_file());
    }
    for tar in [
        Tar::new().pax(&[("linkpath", long.as_bytes())]).symlink("s", "short"),
        Tar::new().gnu_long(b'K', long.as_bytes()).symlink("s", "short"),
    ] {
        let yard = unpacked(&tar.end());
        assert_eq!(std::fs::read_link(yard.root().join("s")).unwrap().to_str(), Some(long.as_str()));
    }
    // Go before 1.8 put long names where GNU has times.
    let old_go = Header::new(&name, b'0').gnu().set(345, directory.as_bytes());
    assert!(unpacked(&Tar::new().entry(old_go, b"").end()).stat(&long).is_file());
    let gnu_times = Header::new("f", b'0').gnu().set(345, b"14000000000\0").set(357, b"14000000000\0");
    assert!(unpacked(&Tar::new().entry(gnu_times, b"").end()).stat("f").is_file());
}

#[test]
fn archives_from_before_posix_are_read() {
    let old = |header: Header| header.set(257, &[0; 8]);
    let tar = Tar::new()
        .entry(old(Header::new("d/", 0)), b"")
        .entry(old(Header::new("d/f", 0).size(1)), b"x")
        .entry(old(Header::new("d/l", b'2').link("f")), b"");
    let yard = unpacked(&tar.end());
    assert!(yard.stat("d").is_dir());
    assert_eq!(yard.read("d/f"), b"x");
    assert_eq!(yard.read("d/l"), b"x");
}

#[test]
fn numbers_in_base_256_are_read() {
    let header = Header::new("f", b'0')
        .set(108, b"\x80\0\0\0\x7f\xff\xff\xff")
        .set(124, b"\x80\0\0\0\0\0\0\0\0\0\0\x03");
    let yard = unpacked(&Tar::new().entry(header, b"abc").end());
    assert_eq!((yard.stat("f").uid(), yard.read("f")), (0x7fff_ffff, b"abc".to_vec()));
}

/// 3 bytes at 100,000, 5 at 300,000, 400,000 in all.
fn assert_sparse(yard: &Yard, name: &str) {
    let mut whole = vec![0; 400_000];
    whole[100_000..100_003].copy_from_slice(b"abc");
    whole[300_000..300_005].copy_from_slice(b"defgh");
    assert_eq!(yard.read(name), whole);
    assert!(yard.stat(name).blocks() * 512 < 100_000, "the holes take space");
}

#[test]
fn sparse_files_of_every_form_are_made_sparse() {
    let data = b"abcdefgh";
    let mut old = Header::new("old", b'S').gnu().size(8).set(483, b"00001415200\0");
    for (at, value) in [(386, 100_000), (398, 3), (410, 300_000), (422, 5)] {
        old = old.set(at, format!("{value:011o}\0").as_bytes());
    }
    assert_sparse(&unpacked(&Tar::new().entry(old, data).end()), "old");

    let v00: [(&str, &[u8]); 6] = [
        ("GNU.sparse.size", b"400000"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.offset", b"100000"),
        ("GNU.sparse.numbytes", b"3"),
        ("GNU.sparse.offset", b"300000"),
        ("GNU.sparse.numbytes", b"5"),
    ];
    assert_sparse(&unpacked(&Tar::new().pax(&v00).file("v00", data).end()), "v00");
    let v01: [(&str, &[u8]); 3] = [
        ("GNU.sparse.name", b"v01"),
        ("GNU.sparse.size", b"400000"),
        ("GNU.sparse.map", b"100000,3,300000,5"),
    ];
    assert_sparse(&unpacked(&Tar::new().pax(&v01).file("GNUSparseFile.0/v01", data).end()), "v01");
    let v10: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"v10"),
        ("GNU.sparse.realsize", b"400000"),
    ];
    let mut body = b"2\n100000\n3\n300000\n5\n".to_vec();
    body.resize(512, 0);
    body.extend_from_slice(data);
    let tar = Tar::new().pax(&v10).file("GNUSparseFile.0/v10", &body).file("after", b"x").end();
    let yard = unpacked(&tar);
    assert_sparse(&yard, "v10");
    assert_eq!(yard.read("after"), b"x");
}

#[test]
fn a_sparse_map_that_does_not_fit_is_refused() {
    let maps = [
        "0,9",
        "0,3,2,5",
        "300000,5,100000,3",
        "399999,8",
        "0,7",
        "9223372036854775807,8",
        "0,8,1",
        "",
        "a,b",
    ];
    for map in maps {
        let records: [(&str, &[u8]); 2] =
            [("GNU.sparse.size", b"400000"), ("GNU.sparse.map", map.as_bytes())];
        assert!(
            refusal(&Tar::new().pax(&records).file("f", b"abcdefgh").end()).contains("sparse"),
            "{map:?}"
        );
    }
    let v10: [(&str, &[u8]); 3] =
        [("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"400000")];
    for map in ["99999999999999999999\n", "2000000\n", "2\n0\n4\n", "x\n", "1\n0\n-8\n"] {
        let mut body = map.as_bytes().to_vec();
        body.resize(512, 0);
        assert!(refusal(&Tar::new().pax(&v10).file("f", &body).end()).contains("sparse"), "{map:?}");
    }
}

#[test]
fn an_archive_ends_at_two_zero_blocks_or_at_the_end_of_a_block() {
    let tar = Tar::new().file("a", b"x");
    assert_eq!(unpacked(&tar.clone().0).read("a"), b"x");
    assert_eq!(unpacked(&[tar.clone().0, vec![0; 512]].concat()).read("a"), b"x");
    assert!(unpacked(b"").picture().len() == 1);
    let hidden = [tar.clone().end(), Tar::new().file("hidden", b"").end()].concat();
    assert!(unpacked(&hidden).is_missing("hidden"));
    let lone = [tar.clone().0, vec![0; 512], tar.clone().end()].concat();
    assert!(refusal(&lone).contains("single block of zeros"));
    let cut = tar.end();
    for length in [1, 100, 511, 513, 1000] {
        assert!(refusal(&cut[..length]).contains("cut off"), "{length}");
    }
}

#[test]
fn an_entry_of_another_type_or_with_data_it_cannot_have_is_refused() {
    for kind in [b'V', b'M', b'D', b'N', b'X', b'A', b'8', b' ', 0xff] {
        assert!(matches!(
            Yard::new().unpack(&Tar::new().entry(Header::new("f", kind), b"").end()),
            Err(LayerError::Tar(_))
        ));
    }
    for kind in [b'2', b'3', b'4', b'5', b'6'] {
        let header = Header::new("f", kind).link("x").device(1, 3).size(512);
        assert!(refusal(&Tar::new().entry(header, &[0; 512]).end()).contains("claims to have data"));
    }
}

#[test]
fn a_global_header_is_read_past_unless_it_decides_what_entries_are() {
    let yard = unpacked(&Tar::new().extended(b'g', &[("comment", b"a commit")]).file("f", b"x").end());
    assert_eq!((yard.read("f"), yard.picture().len()), (b"x".to_vec(), 2));
    assert!(
        refusal(&Tar::new().extended(b'g', &[("path", b"other")]).file("f", b"").end()).contains("global")
    );
}

#[test]
fn a_file_takes_the_place_of_a_directory_and_back() {
    let tar = Tar::new()
        .file("a/b/c", b"x")
        .dir("a/b", 0o700)
        .file("a", b"now a file")
        .file("b", b"")
        .dir("b", 0o711);
    let yard = Yard::new();
    let unpacked = yard.unpack(&tar.end()).unwrap();
    assert_eq!(yard.read("a"), b"now a file");
    assert_eq!(yard.stat("b").mode() & 0o7777, 0o711);
    assert_eq!((unpacked.inodes, unpacked.implied.len()), (2, 0));
}

#[test]
fn directories_without_an_entry_are_reported_and_settled_from_below() {
    let lower = unpacked(&Tar::new().entry(Header::new("usr", b'5').mode(0o1770).owner(3, 4), b"").end());
    let yard = Yard::new();
    let unpacked = yard.unpack(&Tar::new().file("usr/bin/x", b"").dir("etc", 0o755).end()).unwrap();
    let implied: Vec<String> = unpacked.implied.iter().map(ToString::to_string).collect();
    assert_eq!(implied, ["/usr", "/usr/bin"]);
    storage_layer::settle(&yard.root(), &unpacked.implied, &[lower.root()]).unwrap();
    let usr = yard.stat("usr");
    assert_eq!((usr.mode() & 0o7777, usr.uid(), usr.gid(), usr.mtime()), (0o1770, 3, 4, 0o14_000_000_000));
    assert_eq!(yard.stat("usr/bin").mode() & 0o7777, 0o755);
}

#[test]
fn what_a_layer_between_hides_is_not_taken_from_further_down() {
    let lowest = || {
        let with = |name: &str| Header::new(name, b'5').mode(0o700).owner(9, 9);
        unpacked(&Tar::new().entry(with("a"), b"").entry(with("a/b"), b"").entry(with("a/b/c"), b"").end())
    };
    let implied = Tar::new().file("a/b/c/f", b"").end();
    let mode_of = |yard: &Yard, path: &str| yard.stat(path).mode() & 0o7777;
    for (middle, modes) in [
        (Tar::new().dir("x", 0o755), [0o700, 0o700, 0o700]),
        (Tar::new().file("a/.wh.b", b""), [0o755, 0o755, 0o755]),
        (Tar::new().dir("a", 0o711).file("a/.wh.b", b""), [0o711, 0o755, 0o755]),
        (Tar::new().dir("a", 0o711).file("a/.wh..wh..opq", b""), [0o711, 0o755, 0o755]),
        (Tar::new().dir("a", 0o711).dir("a/b", 0o722).file("a/b/.wh..wh..opq", b""), [0o711, 0o722, 0o755]),
        (Tar::new().dir("a", 0o711).file("a/b", b"a file"), [0o711, 0o755, 0o755]),
    ] {
        let (low, middle) = (lowest(), unpacked(&middle.end()));
        let yard = Yard::new();
        let layer = yard.unpack(&implied).unwrap();
        storage_layer::settle(&yard.root(), &layer.implied, &[middle.root(), low.root()]).unwrap();
        let found = ["a", "a/b", "a/b/c"].map(|path| mode_of(&yard, path));
        assert_eq!(found.map(|mode| format!("{mode:o}")), modes.map(|mode| format!("{mode:o}")));
    }
    // The layer's own opaque directory hides what would be below it, not itself.
    let (low, yard) = (lowest(), Yard::new());
    let layer = yard.unpack(&Tar::new().file("a/b/.wh..wh..opq", b"").file("a/b/c/f", b"").end()).unwrap();
    storage_layer::settle(&yard.root(), &layer.implied, &[low.root()]).unwrap();
    assert_eq!(["a", "a/b", "a/b/c"].map(|path| mode_of(&yard, path)), [0o700, 0o700, 0o755]);
}
