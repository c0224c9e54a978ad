//! The catalogue of attacks on image tools, rows U1 to U32, where a layer's unpacking is concerned.
//!
//! Elsewhere: U8 and U27 also in `properties`, U9 in `breakouts`, U11 and U12 in `storage_sys::tree`, U15 and U16 in
//! `whiteouts`; U21's directory modes in `storage-content`, U19's mount options in `snapshotters-overlay`, U23 and U31
//! wherever FUSE and EROFS are mounted. What this crate can promise of these rows is below.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::time::{Duration, Instant};

use storage_layer::tar::Reader;
use storage_layer::{LayerError, Limits, UnpackOptions, Whiteouts, unpack};
use storage_model::{Compression, Digest};

use crate::support::{Header, Tar, Yard, gzip, in_own_process, record, refusal, unpacked, zstd};

fn names(tar: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(tar, &Limits::default());
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push(String::from_utf8(entry.name).unwrap());
    }
    names
}

#[test]
fn vuln_u01_the_pax_size_decides_so_a_nested_tar_is_data() {
    let inner = Tar::new().file("smuggled", b"evil").end();
    let size = inner.len().to_string();
    let tar =
        Tar::new().pax(&[("size", size.as_bytes())]).entry(Header::new("inner.tar", b'0').size(0), &inner);
    let tar = tar.file("after", b"x").end();
    assert_eq!(names(&tar), ["inner.tar", "after"]);
    let yard = unpacked(&tar);
    assert_eq!(yard.read("inner.tar"), inner);
    assert!(yard.is_missing("smuggled"));
}

#[test]
fn vuln_u02_the_pax_size_decides_against_a_size_that_is_not_zero() {
    let inner = Tar::new().file("smuggled", b"evil").end();
    let size = inner.len().to_string();
    for lie in [512, 1024, 1536, inner.len() as u64 + 512] {
        let header = Header::new("inner.tar", b'0').size(lie);
        let tar =
            Tar::new().pax(&[("size", size.as_bytes())]).entry(header, &inner).file("after", b"x").end();
        assert_eq!(names(&tar), ["inner.tar", "after"], "{lie}");
    }
}

#[test]
fn vuln_u03_a_malformed_extended_header_refuses_the_layer() {
    // Every byte of a long name's and of a PAX header's blocks, changed: never another tree than the one meant.
    let long = "x".repeat(150);
    let pax = Tar::new().pax(&[("path", long.as_bytes()), ("mtime", b"5.5")]).file("short", b"data").end();
    let gnu = Tar::new().gnu_long(b'L', long.as_bytes()).entry(Header::new("short", b'0').gnu(), b"").end();
    for tar in [pax, gnu] {
        for at in (0..512).filter(|at| !(148..156).contains(at)) {
            for flip in [0x01, 0x80, 0xff] {
                let mut bad = tar.clone();
                bad[at] ^= flip;
                let mut reader = Reader::new(&bad[..], &Limits::default());
                assert!(reader.next_entry().is_err(), "header byte {at} ^ {flip:#x}");
            }
        }
    }
    let whole = record("path", b"evil");
    for cut in 1..whole.len() {
        let body = &whole[..cut];
        let tar = Tar::new().entry(Header::new("p", b'x').size(cut as u64), body).file("innocent", b"").end();
        assert!(refusal(&tar).contains("extended header"), "{cut}");
    }
    let twice = Tar::new().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("c", b"").end();
    assert!(refusal(&twice).contains("twice"));
    let both = Tar::new().pax(&[("path", b"a")]).gnu_long(b'L', b"b").file("c", b"").end();
    assert!(refusal(&both).contains("twice"));
    let orphan = Tar::new().pax(&[("path", b"a")]).end();
    assert!(refusal(&orphan).contains("belongs to no entry"));
    let hidden = Tar::new().entry(Header::new("L", b'L').gnu().size(6), b"a\0b\0\0\0").file("c", b"").end();
    assert!(refusal(&hidden).contains("NUL"));
}

#[test]
fn vuln_u04_a_file_over_a_link_replaces_the_link() {
    let yard = Yard::new();
    let passwd = format!("{}/passwd", yard.victim());
    let tar = Tar::new()
        .symlink("a", &passwd)
        .file("a", b"evil")
        .file("b", b"first")
        .link("c", "b")
        .file("c", b"evil");
    yard.unpack(&tar.end()).unwrap();
    assert!(yard.stat("a").is_file());
    assert_eq!(yard.read("b"), b"first", "writing to one name must not reach the other");
}

#[test]
fn vuln_u05_no_directory_is_made_through_a_link_that_leads_out() {
    let yard = Yard::new();
    let tar = Tar::new().symlink("symlink", "..").dir("symlink/exploit/foo/bar", 0o755).end();
    yard.unpack(&tar).unwrap();
    assert!(yard.stat("exploit/foo/bar").is_dir());
    for kind in [b'0', b'5', b'6'] {
        let yard = Yard::new();
        let tar = Tar::new().symlink("l", &yard.victim()).entry(Header::new("l/deep/x", kind), b"").end();
        yard.unpack(&tar).unwrap();
    }
}

#[test]
fn vuln_u06_a_directory_over_a_link_is_a_new_directory() {
    for whiteouts in [Whiteouts::Overlay, Whiteouts::Apply] {
        let yard = Yard::new();
        let tar = Tar::new().symlink("d", &yard.victim()).dir("d", 0o777).file("d/x", b"").end();
        yard.unpack_as(&tar, whiteouts).unwrap();
        assert!(yard.stat("d").is_dir());
        assert_eq!(yard.stat("d").mode() & 0o7777, 0o777);
    }
}

#[test]
fn vuln_u07_a_hard_link_to_a_link_changes_nothing_behind_it() {
    let yard = Yard::new();
    let victim = format!("{}/passwd", yard.victim());
    let link = Header::new("h", b'1').link("s").mode(0o6777).owner(1000, 1000);
    yard.unpack(&Tar::new().symlink("s", &victim).entry(link, b"").end()).unwrap();
    assert!(yard.stat("h").is_symlink());
    assert!(yard.same_file("h", "s"));
}

#[test]
fn vuln_u08_a_directory_that_becomes_a_link_is_looked_up_again() {
    let yard = Yard::new();
    let tar = Tar::new()
        .dir("a", 0o755)
        .file("a/before", b"")
        .symlink("a", &yard.victim())
        .file("a/passwd", b"evil");
    yard.unpack(&tar.end()).unwrap();
    assert!(yard.stat("a").is_symlink());
    let inside = format!("{}/passwd", yard.victim());
    assert_eq!(yard.read(inside.trim_start_matches('/')), b"evil");
    // And one on the way to it.
    let tar =
        Tar::new().file("a/b/c/x", b"").symlink("a/b", "../d").dir("d", 0o755).file("a/b/c/y", b"y").end();
    assert_eq!(unpacked(&tar).read("d/c/y"), b"y");
}

#[test]
fn vuln_u10_the_root_is_a_directory_and_nothing_else() {
    for name in [".", "./", "/", "/.", "//", "", "a/.."] {
        for kind in [b'0', b'1', b'2', b'3', b'4', b'6'] {
            let header = Header::new(name, kind).link("/etc").device(1, 3);
            let error = refusal(&Tar::new().entry(header, b"").end());
            assert!(error.contains("root of the image"), "{name:?} {}: {error}", char::from(kind));
        }
        let yard = unpacked(&Tar::new().entry(Header::new(name, b'5').mode(0o711).owner(7, 8), b"").end());
        let root = yard.stat("");
        assert_eq!((root.mode() & 0o7777, root.uid(), root.gid()), (0o711, 7, 8), "{name:?}");
    }
}

#[test]
fn vuln_u13_no_program_is_started_whatever_is_in_path() {
    let bait = tempfile::tempdir().unwrap();
    for name in ["gzip", "gunzip", "unpigz", "pigz", "igzip", "zstd", "unzstd", "tar", "sh"] {
        let path = bait.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n: > {}/started\n", bait.path().display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    in_own_process("vulnerabilities::helper_unpacks_both_compressions", |command| {
        command.env("PATH", bait.path());
    });
    assert!(!bait.path().join("started").exists());
}

#[test]
fn vuln_u13_the_kernel_sees_no_execve_while_layers_are_unpacked() {
    let yard = tempfile::tempdir().unwrap();
    let log = yard.path().join("log");
    let done = std::process::Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=execve,execveat", "-o"])
        .arg(&log)
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "vulnerabilities::helper_unpacks_both_compressions",
            "--ignored",
            "--test-threads=1",
        ])
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(done.success());
    let log = fs::read_to_string(&log).unwrap();
    assert_eq!(
        log.lines().filter(|line| line.contains("exec")).count(),
        1,
        "strace starts it, no more: {log}"
    );
}

#[test]
#[ignore = "run by vuln_u13 in a process of its own"]
fn helper_unpacks_both_compressions() {
    let tar = Tar::new().file("a", &[7; 100_000]).end();
    for (bytes, compression) in [(gzip(&tar), Compression::Gzip), (zstd(&tar), Compression::Zstd)] {
        let yard = Yard::new();
        unpack(&bytes[..], compression, &yard.root(), &UnpackOptions::default(), &|_| {}).unwrap();
    }
}

#[test]
fn vuln_u14_the_process_stays_in_its_root_and_loads_nothing_of_the_image() {
    let library = fs::read("/proc/self/exe").unwrap();
    let tar =
        Tar::new().file("lib/libnss_files.so.2", &library).file("etc/nsswitch.conf", b"passwd: files\n");
    let header = Header::new("owned", b'0').owner(4242, 4242).set(265, b"nobody").set(297, b"nogroup");
    let yard = unpacked(&tar.entry(header, b"").end());
    assert_eq!(yard.stat("owned").uid(), 4242, "names of owners are not looked up");
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    assert!(!maps.contains(yard.root().to_str().unwrap()));
    assert_eq!(fs::read_link("/proc/self/root").unwrap(), std::path::Path::new("/"));
}

#[test]
fn vuln_u17_a_character_device_0_0_is_refused() {
    for whiteouts in [Whiteouts::Overlay, Whiteouts::Apply] {
        let yard = Yard::new();
        let tar = Tar::new().entry(Header::new("lower", b'3').device(0, 0), b"").end();
        let error = yard.unpack_as(&tar, whiteouts).unwrap_err().to_string();
        assert!(error.contains("0:0") && error.contains("lower"), "{error}");
        assert!(yard.is_missing("lower"));
    }
    // Other devices are made: 1:3 is /dev/null, and a block device 0:0 means nothing to an overlay.
    let tar = Tar::new().entry(Header::new("null", b'3').device(1, 3).mode(0o666), b"");
    let yard = unpacked(&tar.entry(Header::new("zero", b'4').device(0, 0), b"").end());
    assert!(yard.stat("null").file_type().is_char_device());
    assert_eq!((yard.stat("null").rdev(), yard.stat("null").mode() & 0o7777), (0x103, 0o666));
    assert!(yard.stat("zero").file_type().is_block_device());
}

/// What overlayfs keeps for itself.
const OVERLAY_NAMES: [&str; 6] = ["opaque", "redirect", "metacopy", "whiteout", "whiteouts", "origin"];

#[test]
fn vuln_u18_attributes_of_overlayfs_are_escaped_in_an_overlay_and_left_out_of_a_whole_tree() {
    for prefix in ["trusted.overlay.", "user.overlay."] {
        for name in OVERLAY_NAMES.into_iter().chain(["overlay.opaque"]) {
            let (real, escaped) = (format!("{prefix}{name}"), format!("{prefix}overlay.{name}"));
            let key = format!("SCHILY.xattr.{real}");
            for (kind, whiteouts) in
                [(b'0', Whiteouts::Overlay), (b'5', Whiteouts::Overlay), (b'0', Whiteouts::Apply)]
            {
                let records: [(&str, &[u8]); 2] = [(&key, b"y"), ("SCHILY.xattr.user.kept", b"1")];
                let yard = Yard::new();
                let tar = Tar::new().pax(&records).entry(Header::new("d", kind), b"").end();
                yard.unpack_as(&tar, whiteouts).unwrap();
                let kept = (whiteouts == Whiteouts::Overlay).then(|| b"y".to_vec());
                assert_eq!((yard.xattr("d", &real), yard.xattr("d", &escaped)), (None, kept), "{real}");
                assert_eq!(yard.xattr("d", "user.kept").as_deref(), Some(&b"1"[..]));
            }
        }
    }
}

#[test]
fn vuln_u18_no_attribute_of_a_layer_hides_or_redirects_in_either_form_of_mount() {
    let lower = unpacked(
        &Tar::new().file("d/secret", b"lower").file("other", b"other layer").file("f", b"low").end(),
    );
    for prefix in ["trusted.overlay.", "user.overlay."] {
        for name in OVERLAY_NAMES {
            let key = format!("SCHILY.xattr.{prefix}{name}");
            let value: &[u8] = match name {
                "redirect" => b"/other",
                "metacopy" => b"",
                _ => b"y",
            };
            let records: [(&str, &[u8]); 1] = [(&key, value)];
            let tar = Tar::new().pax(&records).dir("d", 0o755).pax(&records).file("f", b"");
            let layer = unpacked(&tar.end());
            for mode in ["ro", "userxattr"] {
                let merged = tempfile::tempdir().unwrap();
                let lowers = format!("lowerdir={}:{},{mode}", layer.root().display(), lower.root().display());
                let run = |program: &str, arguments: &[&str]| {
                    let done =
                        std::process::Command::new(program).args(arguments).arg(merged.path()).status();
                    assert!(done.unwrap().success(), "{program} {arguments:?}");
                };
                run("mount", &["-t", "overlay", "overlay", "-o", &lowers]);
                let (secret, file) =
                    (fs::read(merged.path().join("d/secret")), fs::read(merged.path().join("f")));
                run("umount", &[]);
                assert_eq!(secret.unwrap(), b"lower", "{key} {mode}");
                assert_eq!(file.unwrap(), b"", "{key} {mode}: what the layer says, and nothing of another's");
            }
        }
    }
}

#[test]
fn vuln_u19_a_layer_cannot_bring_metacopy_or_redirect() {
    let records: [(&str, &[u8]); 2] = [
        ("SCHILY.xattr.trusted.overlay.metacopy", b""),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/other/layer/secret"),
    ];
    let yard = unpacked(&Tar::new().pax(&records).file("f", b"").end());
    assert_eq!(yard.xattr("f", "trusted.overlay.metacopy"), None);
    assert_eq!(yard.xattr("f", "trusted.overlay.redirect"), None);
}

#[test]
fn vuln_u20_a_device_number_that_would_be_cut_short_is_refused() {
    let number =
        |value: i64| [&[if value < 0 { 0xff } else { 0x80 }][..], &value.to_be_bytes()[1..]].concat();
    for value in [-1, 1 << 12, 1 << 20, 1 << 32, (1 << 32) + 1, i64::MAX >> 8] {
        for (at, other) in [(329, 337), (337, 329)] {
            if at == 337 && value == 1 << 12 {
                continue; // a legal minor number
            }
            let header = Header::new("dev", b'3').set(at, &number(value)).set(other, b"0000001\0");
            let yard = Yard::new();
            assert!(yard.unpack(&Tar::new().entry(header, b"").end()).is_err(), "{value} at {at}");
            assert!(yard.is_missing("dev"));
        }
    }
}

#[test]
fn vuln_u21_set_id_bits_stay_on_the_file_and_the_way_to_it_is_not_opened() {
    let yard = Yard::new();
    fs::set_permissions(yard.directory.path().join("outer"), fs::Permissions::from_mode(0o700)).unwrap();
    let suid = Header::new("bin/su", b'0').mode(0o6755).owner(1, 2);
    let options = UnpackOptions::default();
    unpack(&Tar::new().entry(suid, b"").end()[..], Compression::None, &yard.root(), &options, &|_| {})
        .unwrap();
    let stat = yard.stat("bin/su");
    assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.gid()), (0o6755, 1, 2));
    assert_eq!(fs::metadata(yard.directory.path().join("outer")).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn vuln_u21_nobody_can_start_a_set_id_program_in_the_store() {
    // The store's root has mode 0700 (`storage-content`); what is below is as open as the image says.
    let yard = Yard::new();
    fs::set_permissions(yard.directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let program = fs::read("/bin/true").unwrap();
    let header = Header::new("true", b'0').mode(0o4755).size(program.len() as u64);
    let tar = Tar::new().entry(header, &program).end();
    unpack(&tar[..], Compression::None, &yard.root(), &UnpackOptions::default(), &|_| {}).unwrap();
    let path = yard.root().join("true");
    assert!(std::process::Command::new(&path).status().unwrap().success(), "root can");
    use std::os::unix::process::CommandExt as _;
    let nobody = std::process::Command::new(&path).uid(65534).gid(65534).current_dir("/").status();
    assert_eq!(nobody.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
}

#[test]
fn vuln_u22_a_file_capability_survives_owner_and_mode_and_a_namespaced_one_is_refused() {
    // VFS_CAP_REVISION_2 with the effective bit: cap_net_raw+ep.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let ping = Header::new("ping", b'0').mode(0o4755).owner(1000, 1000).size(3);
    let records: [(&str, &[u8]); 1] = [("SCHILY.xattr.security.capability", &capability)];
    let yard = unpacked(&Tar::new().pax(&records).entry(ping.clone(), b"elf").end());
    assert_eq!(yard.xattr("ping", "security.capability").as_deref(), Some(&capability[..]));
    assert_eq!((yard.stat("ping").mode() & 0o7777, yard.stat("ping").uid()), (0o4755, 1000));
    let mut namespaced = capability.to_vec();
    namespaced[3] = 3;
    namespaced.extend_from_slice(&1000u32.to_le_bytes());
    let records: [(&str, &[u8]); 1] = [("SCHILY.xattr.security.capability", &namespaced)];
    assert!(refusal(&Tar::new().pax(&records).entry(ping, b"elf").end()).contains("user namespace"));
}

#[test]
fn vuln_u24_a_layer_cut_anywhere_ends_in_an_error_in_bounded_time() {
    let noise: Vec<u8> =
        (0..60_000u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect();
    let tar = Tar::new().file("noise", &noise).end();
    for (whole, compression) in [(gzip(&tar), Compression::Gzip), (zstd(&tar), Compression::Zstd)] {
        for cut in (0..whole.len()).step_by(512).skip(1).chain([1, whole.len() - 1, whole.len() - 8]) {
            let start = Instant::now();
            let yard = Yard::new();
            let options = UnpackOptions::default();
            let error = unpack(&whole[..cut], compression, &yard.root(), &options, &|_| {}).unwrap_err();
            assert!(matches!(error, LayerError::Decompress { .. }), "{cut}: {error}");
            assert!(start.elapsed() < Duration::from_secs(10), "{cut}");
        }
    }
}

#[test]
fn vuln_u25_padding_without_end_takes_no_memory() {
    let output = in_own_process("vulnerabilities::helper_reads_two_gibibytes_of_padding", |_| {});
    let line = output.lines().find_map(|line| line.split_once("peak_kib=")).expect("the helper says").1;
    let peak_kib: u64 = line.trim().parse().unwrap();
    assert!(peak_kib < 64 * 1024, "{peak_kib} KiB");
}

#[test]
#[ignore = "run by vuln_u25 in a process of its own"]
fn helper_reads_two_gibibytes_of_padding() {
    let yard = Yard::new();
    let tar = Tar::new().file("a", b"x").end();
    let layer = tar.chain(std::io::repeat(0).take(2 << 30));
    let unpacked =
        unpack(layer, Compression::None, &yard.root(), &UnpackOptions::default(), &|_| {}).unwrap();
    assert_eq!(unpacked.uncompressed_bytes, (2 << 30) + 2048);
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println!("peak_kib={}", peak.trim().trim_end_matches(" kB"));
}

#[test]
fn vuln_u26_bombs_stop_at_the_limit() {
    let zeros = vec![0; 64 << 20];
    let run = |bytes: &[u8], compression, limits| {
        let yard = Yard::new();
        let options = UnpackOptions { limits, ..UnpackOptions::default() };
        unpack(bytes, compression, &yard.root(), &options, &|_| {})
    };
    for (bytes, compression) in [(gzip(&zeros), Compression::Gzip), (zstd(&zeros), Compression::Zstd)] {
        let limits = Limits { uncompressed_bytes_max: 16 << 20, ..Limits::default() };
        let error = run(&bytes, compression, limits).unwrap_err();
        assert!(matches!(error, LayerError::TooLarge { limit_bytes: 16_777_216 }), "{error}");
        let limits = Limits { ratio_free_bytes: 16 << 20, ..Limits::default() };
        let error = run(&bytes, compression, limits).unwrap_err();
        assert!(matches!(error, LayerError::Bomb { .. }), "{error}");
        run(&bytes, compression, Limits::default()).unwrap();
    }
    // A window of 2^31 bytes: exponent 21 in the window descriptor.
    let mut window = zstd(&zeros[..100]);
    window.splice(4..6, [0x00, 21 << 3]);
    assert!(matches!(run(&window, Compression::Zstd, Limits::default()), Err(LayerError::Decompress { .. })));
}

#[test]
fn vuln_u26_many_members_and_skippable_frames_are_one_stream() {
    let tar = Tar::new().file("a", &[1; 3000]).end();
    let size = tar.len().div_ceil(1000);
    let members: Vec<u8> = tar.chunks(size).flat_map(gzip).chain(gzip(b"").repeat(500)).collect();
    let skippable = [&0x184d_2a50u32.to_le_bytes()[..], &5u32.to_le_bytes(), b"hello"].concat();
    let (head, tail) = tar.split_at(600);
    let frames = [&skippable[..], &zstd(head), &skippable, &zstd(tail), &skippable].concat();
    for (bytes, compression) in [(members, Compression::Gzip), (frames, Compression::Zstd)] {
        let yard = Yard::new();
        let options = UnpackOptions::default();
        let unpacked = unpack(&bytes[..], compression, &yard.root(), &options, &|_| {}).unwrap();
        assert_eq!(unpacked.diff_id.0, Digest::of(&tar));
        assert_eq!(yard.read("a"), [1; 3000]);
    }
}

#[test]
fn vuln_u28_what_follows_the_tar_counts_and_what_follows_the_compression_is_refused() {
    let options = UnpackOptions::default();
    for extra in [1, 511, 512, 1 << 20] {
        let tar = [Tar::new().file("a", b"x").end(), vec![b'!'; extra]].concat();
        let two_members = [gzip(&tar[..2048]), gzip(&tar[2048..])].concat();
        for (bytes, compression) in [(tar.clone(), Compression::None), (two_members, Compression::Gzip)] {
            let yard = Yard::new();
            let unpacked = unpack(&bytes[..], compression, &yard.root(), &options, &|_| {}).unwrap();
            assert_eq!(unpacked.diff_id.0, Digest::of(&tar));
            assert_eq!(unpacked.uncompressed_bytes, tar.len() as u64);
        }
        for (whole, compression) in [(gzip(&tar), Compression::Gzip), (zstd(&tar), Compression::Zstd)] {
            for garbage in [&b"!"[..], &[0], b"garbage that is no member", &[0; 4096]] {
                let yard = Yard::new();
                let bytes = [&whole[..], garbage].concat();
                let error = unpack(&bytes[..], compression, &yard.root(), &options, &|_| {}).unwrap_err();
                assert!(matches!(error, LayerError::Decompress { .. }), "{error}");
            }
        }
    }
}

#[test]
fn vuln_u29_numbers_out_of_range_are_refused() {
    let big = |value: u128| [&[0x80][..], &value.to_be_bytes()[5..]].concat();
    let negative = |value: i64| [&[0xff; 4][..], &value.to_be_bytes()].concat();
    let cases = [
        ("size -1", Header::new("f", b'0').set(124, &negative(-1))),
        ("size 2^63", Header::new("f", b'0').set(124, &big(1 << 63))),
        ("size 2^64", Header::new("f", b'0').set(124, &big(1 << 64))),
        ("size text", Header::new("f", b'0').set(124, b"0000000x000\0")),
        ("mtime 2^63", Header::new("f", b'0').set(136, &big(1 << 63))),
        ("mtime -2^63", Header::new("f", b'0').set(136, &negative(i64::MIN))),
        ("mtime 2^50", Header::new("f", b'0').set(136, &big(1 << 50))),
        ("uid 2^32", Header::new("f", b'0').set(108, &[0x80, 0, 0, 1, 0, 0, 0, 0])),
        ("uid 2^32-1", Header::new("f", b'0').set(108, &[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff])),
        ("gid -1", Header::new("f", b'0').set(116, &[0xff; 8])),
        ("mode text", Header::new("f", b'0').set(100, b"rwxr-xr-")),
    ];
    for (what, header) in cases {
        let yard = Yard::new();
        assert!(
            matches!(yard.unpack(&Tar::new().entry(header, b"").end()), Err(LayerError::Tar(_))),
            "{what}"
        );
        assert!(yard.is_missing("f"), "{what}");
    }
    for (key, value) in
        [("uid", "4294967296"), ("uid", "-1"), ("size", "9223372036854775808"), ("mtime", "1e9")]
    {
        assert!(
            Yard::new().unpack(&Tar::new().pax(&[(key, value.as_bytes())]).file("f", b"").end()).is_err()
        );
    }
    // 2^63 - 1 bytes are a number, but not there.
    let huge = Header::new("f", b'0').set(124, &big((1 << 63) - 1));
    assert!(refusal(&Tar::new().entry(huge, b"").end()).contains("cut off"));
    let sparse: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"0"),
        ("GNU.sparse.minor", b"1"),
        ("GNU.sparse.realsize", b"9223372036854775807"),
        ("GNU.sparse.map", b"9223372036854775806,1"),
    ];
    assert!(Yard::new().unpack(&Tar::new().pax(&sparse).file("f", b"x").end()).is_err(), "EFBIG");
}

#[test]
fn vuln_u29_names_keep_every_legal_byte_and_no_other() {
    for name in [&b"a\0b"[..], &[b'x'; 256], &b"d/".repeat(2100)] {
        let yard = Yard::new();
        let tar = Tar::new().pax(&[("path", name)]).file("f", b"").end();
        assert!(yard.unpack(&tar).is_err(), "{} bytes", name.len());
        assert!(yard.is_missing("f"));
    }
    use std::os::unix::ffi::OsStrExt as _;
    for name in [&b"\xff\xfe not UTF-8 \n\t"[..], &[b'x'; 255], b"-rf", b"a\\b:*?", "h\u{e9}".as_bytes()] {
        let yard = unpacked(&Tar::new().pax(&[("path", name)]).file("f", b"").end());
        assert!(yard.root().join(std::ffi::OsStr::from_bytes(name)).exists());
    }
    let deep = b"d/".repeat(2000);
    let yard = Yard::new();
    yard.unpack(&Tar::new().pax(&[("path", &deep)]).dir("f", 0o755).end()).unwrap();
    storage_sys::tree::remove_all(&yard.root().join("d")).unwrap();
}

#[test]
fn vuln_u30_many_entries_of_one_name_leave_the_last() {
    let mut tar = Tar::new();
    for turn in 0..20_000u32 {
        tar = match turn % 3 {
            0 => tar.dir("same", 0o700),
            1 => tar.symlink("same", "/etc"),
            _ => tar.file("same", &turn.to_le_bytes()),
        };
    }
    let yard = Yard::new();
    let unpacked = yard.unpack(&tar.file("same", b"last").end()).unwrap();
    assert_eq!(yard.read("same"), b"last");
    assert_eq!((unpacked.entries, unpacked.inodes), (20_001, 1));
}

#[test]
fn vuln_u30_hard_links_are_counted_and_bad_ones_refused() {
    let mut tar = Tar::new().file("target", b"x");
    for at in 0..20_000 {
        tar = tar.link(&format!("link{at}"), "target");
    }
    let yard = unpacked(&tar.end());
    assert_eq!(yard.stat("target").nlink(), 20_001);
    for (what, tar) in [
        ("forward", Tar::new().link("a", "b").file("b", b"")),
        ("to a lower layer", Tar::new().link("a", "usr/bin/env")),
        ("to itself", Tar::new().link("a", "a")),
        ("to itself, there", Tar::new().file("a", b"").link("a", "a")),
        ("to a directory", Tar::new().dir("d", 0o755).link("a", "d")),
        ("to the root", Tar::new().link("a", "/")),
        ("to nothing", Tar::new().link("a", "")),
        ("through a file", Tar::new().file("f", b"").link("a", "f/x")),
    ] {
        assert!(matches!(Yard::new().unpack(&tar.end()), Err(LayerError::Entry { .. })), "{what}");
    }
}

#[test]
fn vuln_u30_extended_attributes_are_bounded() {
    let key = |at: usize| format!("SCHILY.xattr.user.{at}");
    let keys: Vec<String> = (0..100_000).map(key).collect();
    let records: Vec<(&str, &[u8])> = keys.iter().map(|key| (key.as_str(), &b"value"[..])).collect();
    assert!(refusal(&Tar::new().pax(&records).file("f", b"").end()).contains("larger than"));
    let records: [(&str, &[u8]); 1] = [("SCHILY.xattr.user.big", &[b'x'; 65537])];
    assert!(refusal(&Tar::new().pax(&records).file("f", b"").end()).contains("user.big"));
    let long = format!("SCHILY.xattr.user.{}", "n".repeat(300));
    assert!(refusal(&Tar::new().pax(&[(&long, b"x")]).file("f", b"").end()).contains("too long"));
}

#[test]
fn vuln_u30_the_number_of_entries_is_bounded() {
    let tar = Tar::new().file("a", b"").file("b", b"").file("c", b"").end();
    let limits = Limits { entries_max: 2, ..Limits::default() };
    let options = UnpackOptions { limits, ..UnpackOptions::default() };
    let yard = Yard::new();
    let error = unpack(&tar[..], Compression::None, &yard.root(), &options, &|_| {}).unwrap_err();
    assert!(matches!(error, LayerError::TooManyEntries { limit: 2 }), "{error}");
}

#[test]
fn vuln_u31_an_image_of_a_file_system_is_refused_in_user_space() {
    // EROFS's magic lies 1024 bytes into an image; before it is what a boot loader wants.
    let mut image = vec![0; 1 << 16];
    image[1024..1028].copy_from_slice(&0xe0f5_e1e2u32.to_le_bytes());
    assert!(refusal(&[vec![0xeb; 1024], image.clone()].concat()).contains("not a tar"));
    let yard = Yard::new();
    // All zeros before it are the end of an archive without entries: nothing is made, and all of it is hashed.
    let unpacked = yard.unpack(&image).unwrap();
    assert_eq!((unpacked.entries, yard.picture().len()), (0, 1));
    assert_eq!(unpacked.diff_id.0, Digest::of(&image));
}

#[test]
fn vuln_u32_no_record_but_the_path_becomes_a_name() {
    let escape = b"../../victim/made";
    let keys =
        ["comment", "uname", "gname", "charset", "vendor.path", "SCHILY.path", "GNU.dumpdir", "hdrcharset"];
    let records: Vec<(&str, &[u8])> = keys.iter().map(|key| (*key, &escape[..])).collect();
    let yard = unpacked(&Tar::new().pax(&records).file("plain", b"x").end());
    assert_eq!(yard.picture().len(), 2);
    assert_eq!(yard.read("plain"), b"x");
}
