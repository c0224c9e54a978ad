//! Tree records: any damage is found, and mended without touching what is good.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use storage_layer::{
    PackOptions, TreeError, TreeFault, UnpackOptions, Whiteouts, check_tree, pack_difference, repair_tree,
    unpack,
};
use storage_model::Compression;

use crate::support::{Header, Tar, listing};

/// A layer unpacked with its record.
struct Layer {
    yard: tempfile::TempDir,
    tar: Vec<u8>,
}

impl Layer {
    fn new(tar: Vec<u8>, whiteouts: Whiteouts) -> Self {
        let yard = tempfile::tempdir().unwrap();
        let this = Self { yard, tar };
        this.unpack("tree", whiteouts);
        this.unpack("fresh", whiteouts);
        this
    }

    fn unpack(&self, name: &str, whiteouts: Whiteouts) {
        let target = self.yard.path().join(name);
        fs::create_dir(&target).unwrap();
        let record = Some(self.yard.path().join(format!("{name}.record")));
        let options = UnpackOptions { whiteouts, record, ..UnpackOptions::default() };
        unpack(&self.tar[..], Compression::None, &target, &options, &|_| {}).unwrap();
    }

    fn tree(&self) -> PathBuf {
        self.yard.path().join("tree")
    }

    fn record(&self) -> PathBuf {
        self.yard.path().join("tree.record")
    }

    fn check(&self, read_data: bool) -> Vec<(String, TreeFault)> {
        let mut problems = Vec::new();
        let summary = check_tree(&self.record(), &self.tree(), read_data, &mut |problem| {
            problems.push((problem.path.to_string(), problem.fault));
        });
        assert_eq!(summary.unwrap().problems, problems.len() as u64);
        problems
    }

    fn repair(&self) -> Result<Vec<String>, TreeError> {
        let fresh = self.yard.path().join("fresh");
        let mended = repair_tree(&self.record(), &self.tree(), &fresh)?;
        Ok(mended.into_iter().map(|path| path.to_string()).collect())
    }

    fn sh(&self, script: &str) {
        sh(&self.tree(), script);
    }
}

fn sh(directory: &Path, script: &str) {
    let done = Command::new("sh").args(["-ec", script]).current_dir(directory).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// A bit of everything, whiteouts and escaped attributes among it.
fn archive() -> Vec<u8> {
    let escaped: [(&str, &[u8]); 2] =
        [("SCHILY.xattr.trusted.overlay.opaque", b"y"), ("SCHILY.xattr.user.a", b"1")];
    Tar::new()
        .dir("./", 0o755)
        .dir("etc", 0o755)
        .file("etc/passwd", b"root:x:0:0")
        .file("etc/group", b"root:x:0")
        .file("etc/empty", b"")
        .link("etc/hard", "etc/passwd")
        .symlink("etc/mtab", "/proc/mounts")
        .pax(&escaped)
        .dir("var", 0o1777)
        .file("var/.wh.gone", b"")
        .dir("var/cache", 0o755)
        .file("var/cache/.wh..wh..opq", b"")
        .file("opt/implied/f", b"in no directory of the layer")
        .dir("usr", 0o755)
        .dir("usr/bin", 0o755)
        .file("usr/bin/tool", &[7; 300_000])
        .dir("dev", 0o755)
        .dir("run", 0o755)
        .entry(Header::new("dev/null", b'3').device(1, 3).mode(0o666), b"")
        .entry(Header::new("run/pipe", b'6').mode(0o600).owner(5, 6), b"")
        // Replaced and removed within the layer: only what is left counts.
        .file("old/a/b", b"gone")
        .symlink("old", "etc")
        .file("old/through", b"a link")
        .end()
}

#[test]
fn a_tree_just_unpacked_is_as_recorded_in_both_forms() {
    for whiteouts in [Whiteouts::Overlay, Whiteouts::Apply] {
        let layer = Layer::new(archive(), whiteouts);
        let problems = layer.check(true);
        assert!(problems.is_empty(), "{whiteouts:?}: {problems:?}");
        let both =
            ["tree", "fresh"].map(|name| fs::read(layer.yard.path().join(format!("{name}.record"))).unwrap());
        assert_eq!(both[0], both[1], "the same layer gives the same record");
    }
}

/// A damage, the entry it is found at, and how it reads.
const DAMAGES: [(&str, &str, &str); 18] = [
    // The first name of a file with several stands for it.
    (": > etc/passwd", "/etc/hard", "has 0 bytes and not 10"),
    (
        "printf X | dd of=etc/passwd conv=notrunc status=none; touch -d @1610612736 etc/passwd",
        "/etc/hard",
        "content",
    ),
    ("rm etc/group", "/etc/group", "missing"),
    ("rm -r usr", "/usr/bin/tool", "missing"),
    ("echo x > usr/bin/alien", "/usr/bin/alien", "does not belong"),
    ("mkdir -p alien/deep", "/alien", "does not belong"),
    ("chmod 600 etc/group", "/etc/group", "mode 0600 and not 0644"),
    ("chown 7:8 etc", "/etc", "belongs to 7:8 and not 0:0"),
    ("touch -d @5 etc/empty", "/etc/empty", "time"),
    (
        "rm etc/mtab; ln -s elsewhere etc/mtab; touch -h -d @1610612736 etc/mtab",
        "/etc/mtab",
        "leads elsewhere",
    ),
    (
        "rm dev/null; mknod -m 666 dev/null c 1 5; touch -d @1610612736 dev/null",
        "/dev/null",
        "another device",
    ),
    ("rm run/pipe; mkdir run/pipe; echo x > run/pipe/y", "/run/pipe", "another kind"),
    ("rm -r etc; ln -s /nowhere etc", "/etc", "another kind"),
    ("rm var/gone", "/var/gone", "missing"),
    ("setfattr -x trusted.overlay.opaque var/cache", "/var/cache", "hides lower layers"),
    ("setfattr -n trusted.overlay.opaque -v y etc", "/etc", "hides lower layers"),
    ("setfattr -n user.a -v 2 var", "/var", "extended attributes"),
    ("cp -p etc/hard x; mv x etc/hard", "/etc/passwd", "same file"),
];

#[test]
fn every_damage_is_found_and_mended_and_nothing_else_is_touched() {
    for (damage, at, words) in DAMAGES {
        let layer = Layer::new(archive(), Whiteouts::Overlay);
        let before = timeless(listing(&layer.tree()));
        let good: Vec<(PathBuf, u64, i64)> = inodes(&layer.tree());
        layer.sh(damage);
        let problems = layer.check(true);
        let found = problems.iter().any(|(path, fault)| path == at && fault.to_string().contains(words));
        assert!(found, "{damage}: {problems:?}");
        let mended = layer.repair().unwrap();
        assert!(mended.contains(&at.to_owned()), "{damage}: {mended:?}");
        let problems = layer.check(true);
        assert!(problems.is_empty(), "{damage}: {problems:?}");
        assert_eq!(timeless(listing(&layer.tree())), before, "{damage}");
        for (path, inode, changed) in good {
            let stat = fs::symlink_metadata(layer.tree().join(&path)).unwrap();
            let name = format!("/{}", path.display());
            // A directory's times are set back; a file that was not mended is not even looked at for writing.
            if !mended.contains(&name) && !stat.is_dir() && !damage.contains("rm -r") && stat.nlink() == 1 {
                assert_eq!((stat.ino(), stat.ctime_nsec()), (inode, changed), "{damage}: {name}");
            }
        }
        assert_eq!(layer.repair().unwrap(), Vec::<String>::new());
    }
}

/// A whiteout has the time of its making, which means nothing.
fn timeless(mut listing: BTreeMap<String, String>) -> BTreeMap<String, String> {
    listing.values_mut().filter(|facts| facts.starts_with("c 0 ")).for_each(|facts| facts.truncate(3));
    listing
}

fn inodes(root: &Path) -> Vec<(PathBuf, u64, i64)> {
    let names = listing(root).into_keys().map(|key| PathBuf::from(key.trim_start_matches("./")));
    let stat = |path: &PathBuf| fs::symlink_metadata(root.join(path)).unwrap();
    names.map(|path| (path.clone(), stat(&path).ino(), stat(&path).ctime_nsec())).collect()
}

#[test]
fn a_content_changed_behind_its_times_is_found_only_when_contents_are_read() {
    let layer = Layer::new(archive(), Whiteouts::Overlay);
    layer.sh("printf X | dd of=usr/bin/tool conv=notrunc status=none; touch -d @1610612736 usr/bin/tool");
    assert_eq!(layer.check(false).len(), 0);
    assert_eq!(layer.check(true).len(), 1);
}

#[test]
fn f10_ten_thousand_flipped_bits_are_each_found_and_healed() {
    let body: Vec<u8> = (0..40_000u32).flat_map(|at| at.to_le_bytes()).collect();
    let layer = Layer::new(Tar::new().file("f", &body).file("g", b"good").end(), Whiteouts::Overlay);
    let path = layer.tree().join("f");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    for round in 0..20u64 {
        // 500 bits at once, none twice.
        let mut damaged = body.clone();
        for bit in 0..500u64 {
            let at = (round * 500 + bit) * 127 + round;
            damaged[usize::try_from(at / 8).unwrap()] ^= 1 << (at % 8);
        }
        fs::write(&path, &damaged).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        assert_eq!(layer.check(true).len(), 1);
        assert_eq!(layer.repair().unwrap(), ["/f"]);
        assert_eq!(fs::read(&path).unwrap(), body);
        // The next round damages the inode that came from there.
        fs::remove_dir_all(layer.yard.path().join("fresh")).unwrap();
        layer.unpack("fresh", Whiteouts::Overlay);
    }
    let one = fs::read(layer.record()).unwrap();
    for at in (0..one.len()).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
        let mut damaged = one.clone();
        damaged[at.0] ^= 1 << at.1;
        fs::write(layer.record(), damaged).unwrap();
        let error = check_tree(&layer.record(), &layer.tree(), false, &mut |_| {}).unwrap_err();
        assert!(matches!(error, TreeError::Record { .. }), "{error}");
    }
}

#[test]
fn a_fresh_tree_of_another_layer_mends_nothing() {
    let layer = Layer::new(archive(), Whiteouts::Overlay);
    layer.sh("rm etc/group");
    fs::write(layer.yard.path().join("fresh/etc/group"), "another").unwrap();
    let error = layer.repair().unwrap_err();
    assert!(matches!(error, TreeError::Fresh { .. }), "{error}");
    assert!(!layer.tree().join("etc/group").exists());
}

#[test]
fn a_missing_record_is_said_and_no_tree_is_called_good() {
    let layer = Layer::new(archive(), Whiteouts::Overlay);
    fs::remove_file(layer.record()).unwrap();
    let error = check_tree(&layer.record(), &layer.tree(), false, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("unpacking the layer again"), "{error}");
}

#[test]
fn a_repair_is_not_led_out_of_the_tree() {
    let layer = Layer::new(archive(), Whiteouts::Overlay);
    let outside = layer.yard.path().join("outside");
    fs::create_dir_all(outside.join("bin")).unwrap();
    fs::write(outside.join("bin/tool"), "not ours").unwrap();
    layer.sh("rm -r usr; ln -s ../outside usr; mv etc ../stolen; ln -s ../stolen etc");
    layer.repair().unwrap();
    assert!(layer.check(true).is_empty());
    assert_eq!(fs::read(outside.join("bin/tool")).unwrap(), b"not ours");
    assert_eq!(fs::read(layer.yard.path().join("stolen/passwd")).unwrap(), b"root:x:0:0");
}

#[test]
fn a_running_overlay_sees_every_file_whole_while_it_is_mended() {
    let layer = Layer::new(archive(), Whiteouts::Overlay);
    let mount = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    sh(mount.path(), "mkdir empty merged");
    let options = format!("lowerdir={}:empty", layer.tree().display());
    sh(mount.path(), &format!("mount -t overlay overlay -o {options} merged"));
    layer.sh("printf wrong | dd of=usr/bin/tool conv=notrunc status=none; rm etc/group");
    layer.repair().unwrap();
    let tool = fs::read(mount.path().join("merged/usr/bin/tool"));
    let passwd = fs::read(mount.path().join("merged/etc/passwd"));
    sh(mount.path(), "echo 2 > /proc/sys/vm/drop_caches; umount -l merged");
    assert_eq!(tool.unwrap().len(), 300_000);
    assert_eq!(passwd.unwrap(), b"root:x:0:0");
    assert!(layer.check(true).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_record_says_what_a_walk_of_the_tree_sees(seed in prop::collection::vec((0usize..6, 0usize..6, 0usize..5), 1..30)) {
        let names = ["a", "a/b", "a/b/c", "d", "d/e", "f"];
        let tar = seed.iter().fold(Tar::new(), |tar, &(name, other, kind)| match kind {
            0 => tar.dir(names[name], 0o711),
            1 => tar.file(names[name], names[other].as_bytes()),
            2 => tar.symlink(names[name], names[other]),
            3 => tar.file(&format!("{}/.wh.x", names[name]), b""),
            _ => tar.file(&format!("{}/.wh..wh..opq", names[name]), b""),
        });
        for whiteouts in [Whiteouts::Overlay, Whiteouts::Apply] {
            let yard = tempfile::tempdir().unwrap();
            let (target, record) = (yard.path().join("t"), yard.path().join("r"));
            fs::create_dir(&target).unwrap();
            let options = UnpackOptions { whiteouts, record: Some(record.clone()), ..UnpackOptions::default() };
            if unpack(&tar.clone().end()[..], Compression::None, &target, &options, &|_| {}).is_err() {
                continue;
            }
            let mut problems = Vec::new();
            let summary = check_tree(&record, &target, true, &mut |problem| problems.push(problem)).unwrap();
            prop_assert!(problems.is_empty(), "{:?}", problems);
            prop_assert_eq!(summary.entries, 1 + listing(&target).len() as u64);
        }
    }
}

#[test]
fn a_packed_layer_of_a_checked_tree_has_the_layers_content() {
    // What came in as a layer goes out as one, and is the same tree again.
    let layer = Layer::new(archive(), Whiteouts::Apply);
    assert!(!layer.tar.is_empty());
    let mut again = Vec::new();
    let options = PackOptions { compression: Compression::None, ..PackOptions::default() };
    pack_difference(None, &layer.tree(), &mut again, &options).unwrap();
    let second = Layer::new(again, Whiteouts::Apply);
    assert_eq!(listing(&second.tree()), listing(&layer.tree()));
}
