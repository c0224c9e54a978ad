//! Packing: what comes out of a tree goes back into one, and others read it in the same way.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use storage_layer::tar::Reader;
use storage_layer::{
    Limits, PackError, PackOptions, Packed, UnpackOptions, Whiteouts, pack_difference, pack_overlay,
    recompress, unpack,
};
use storage_model::{Compression, DiffId, Digest};
use storage_sys::tree::Timestamp;

use crate::support::listing;

fn plain() -> PackOptions {
    PackOptions { compression: Compression::None, ..PackOptions::default() }
}

pub(crate) fn difference(lower: Option<&Path>, upper: &Path) -> (Packed, Vec<u8>) {
    let mut tar = Vec::new();
    let packed = pack_difference(lower, upper, &mut tar, &plain()).unwrap();
    assert_eq!((packed.digest, packed.size), (Digest::of(&tar), tar.len() as u64));
    (packed, tar)
}

pub(crate) fn overlay(upper: &Path, lowers: &[PathBuf]) -> Vec<u8> {
    let mut tar = Vec::new();
    pack_overlay(upper, lowers, &mut tar, &plain()).unwrap();
    tar
}

pub(crate) fn unpack_to(tar: &[u8], target: &Path, whiteouts: Whiteouts) {
    let options = UnpackOptions { whiteouts, ..UnpackOptions::default() };
    unpack(tar, Compression::None, target, &options, &|_| {}).unwrap();
}

fn names(tar: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(tar, &Limits::default());
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push(String::from_utf8_lossy(&entry.name).into_owned());
    }
    names
}

fn sh(directory: &Path, script: &str) {
    let done = Command::new("sh").args(["-ec", script]).current_dir(directory).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

pub(crate) fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg("--").arg(from.join(".")).arg(to).status().unwrap();
    assert!(done.success());
}

/// Entries of every kind, awkward names and times among them.
const TREE: &str = "mkdir -p etc/sub usr/bin; chmod 700 etc/sub; echo hello > etc/hello; : > etc/empty; \
    ln etc/hello usr/bin/same; ln -s /nowhere etc/dangling; ln -s hello etc/link; mknod null c 1 3; mkfifo pipe; \
    chmod 4755 etc/hello; touch -d '2001-02-03 04:05:06.789' etc/hello; touch -d '1965-01-01 00:00:00.25' etc/empty; \
    chown 12:34 pipe; chown -h 3000000:4000000 etc/link; setfattr -n user.a -v 'b=c' etc/empty; \
    setfattr -n trusted.t -v 1 usr; printf x > \"$(printf 'n%.0s' $(seq 255))\"; \
    mkdir -p \"$(printf 'very-long-name-%.0s' 1 2 3 4 5 6 7 8)/again-and-again-and-again\"; \
    ln -s \"$(printf 'target/%.0s' $(seq 30))\" far; printf '\\377' > \"$(printf 'raw\\377')\"; \
    mkdir -m 1777 tmp; mkdir -m 2755 setgid; head -c 700000 /dev/urandom > usr/bin/big";

#[test]
fn a_packed_tree_unpacks_to_itself() {
    let (tree, back) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    sh(tree.path(), TREE);
    let (packed, tar) = difference(None, tree.path());
    unpack_to(&tar, back.path(), Whiteouts::Overlay);
    assert_eq!(listing(back.path()), listing(tree.path()));
    assert_eq!(packed.diff_id, DiffId(packed.digest));
    assert_eq!(difference(None, back.path()).0, packed, "the same tree gives the same bytes");
}

#[test]
fn gnu_tar_and_umoci_and_python_unpack_what_we_pack() {
    let tree = tempfile::tempdir().unwrap();
    sh(tree.path(), TREE);
    let (_, tar) = difference(None, tree.path());
    let yard = tempfile::tempdir().unwrap();
    fs::write(yard.path().join("layer.tar"), &tar).unwrap();
    let wanted = listing(tree.path());
    sh(
        yard.path(),
        "mkdir gnu; tar -x --numeric-owner --same-permissions --same-owner --xattrs --xattrs-include='*' \
         -f layer.tar -C gnu",
    );
    assert_eq!(listing(&yard.path().join("gnu")), wanted);
    let python = "import tarfile; print(len(tarfile.open('layer.tar', errorlevel=2).getnames()))";
    sh(yard.path(), &format!("python3 -c \"{python}\" > count"));
    let count = fs::read_to_string(yard.path().join("count")).unwrap();
    assert_eq!(count.trim(), names(&tar).len().to_string());
    sh(
        yard.path(),
        "umoci init --layout image; umoci new --image image:one; \
         umoci raw add-layer --image image:one layer.tar; umoci unpack --image image:one bundle",
    );
    let mut theirs = listing(&yard.path().join("bundle/rootfs"));
    let mut ours = wanted;
    // umoci's Go leaves the times of links at whole seconds.
    for listing in [&mut ours, &mut theirs] {
        listing.retain(|_, facts| !facts.starts_with('l'));
    }
    assert_eq!(theirs, ours);
}

#[test]
fn the_difference_of_two_trees_makes_one_of_the_other() {
    let yard = tempfile::tempdir().unwrap();
    let (lower, upper, target) =
        (yard.path().join("lower"), yard.path().join("upper"), yard.path().join("target"));
    for path in [&lower, &upper, &target] {
        fs::create_dir(path).unwrap();
    }
    sh(&lower, TREE);
    copy(&lower, &upper);
    copy(&lower, &target);
    sh(
        &upper,
        "rm -r etc/sub; rm pipe; mkdir pipe; echo in > pipe/inside; rm -r usr/bin; echo file > usr/bin; \
         chmod 600 etc/empty; ln far further; mkdir new; mkdir new/deep; ln etc/hello new/deep/hello; \
         setfattr -x trusted.t usr; rm etc/link; ln -s elsewhere etc/link",
    );
    let (_, tar) = difference(Some(&lower), &upper);
    unpack_to(&tar, &target, Whiteouts::Apply);
    assert_eq!(listing(&target), listing(&upper));
    let names = names(&tar);
    assert!(names.contains(&"etc/.wh.sub".to_owned()), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("dangling") || name.contains("null")), "{names:?}");
    // Nothing changed: nothing but the end of the archive.
    assert_eq!(difference(Some(&upper), &upper).1, [0; 1024]);
}

#[test]
fn a_change_that_keeps_size_and_whole_second_is_found_by_its_content() {
    let yard = tempfile::tempdir().unwrap();
    sh(
        yard.path(),
        "mkdir a b; echo one > a/f; echo two > b/f; cp a/f a/g; cp a/g b/g; touch -d @1000 a/f b/f a/g b/g a b",
    );
    let (_, tar) = difference(Some(&yard.path().join("a")), &yard.path().join("b"));
    assert_eq!(names(&tar), ["f"]);
}

/// An overlay mounted for a test.
pub(crate) struct Mounted {
    yard: tempfile::TempDir,
    pub(crate) lowers: Vec<PathBuf>,
}

impl Mounted {
    /// Over layers made by shell scripts, the highest first.
    fn new(lowers: &[&str]) -> Self {
        let yard = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let mut paths = Vec::new();
        for (at, script) in lowers.iter().enumerate() {
            let path = yard.path().join(format!("lower{at}"));
            fs::create_dir(&path).unwrap();
            sh(&path, script);
            paths.push(path);
        }
        Self::over(yard, paths)
    }

    /// Over `lowers`, or over one layer that `make` fills.
    pub(crate) fn of(lowers: Vec<PathBuf>, make: impl FnOnce(&Path)) -> Self {
        let yard = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let made = yard.path().join("lower");
        fs::create_dir(&made).unwrap();
        make(&made);
        let lowers = if lowers.is_empty() { vec![made] } else { lowers };
        Self::over(yard, lowers)
    }

    fn over(yard: tempfile::TempDir, lowers: Vec<PathBuf>) -> Self {
        for name in ["upper", "work", "merged"] {
            fs::create_dir(yard.path().join(name)).unwrap();
        }
        let list: Vec<&str> = lowers.iter().map(|path| path.to_str().unwrap()).collect();
        let options = format!(
            "lowerdir={},upperdir=upper,workdir=work,redirect_dir=nofollow,metacopy=off",
            list.join(":")
        );
        sh(yard.path(), &format!("mount -t overlay overlay -o {options} merged"));
        Self { yard, lowers }
    }

    pub(crate) fn merged(&self) -> PathBuf {
        self.yard.path().join("merged")
    }

    pub(crate) fn upper(&self) -> PathBuf {
        self.yard.path().join("upper")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.merged()).status();
    }
}

#[test]
fn what_a_container_did_in_an_overlay_is_what_its_layer_does() {
    let mounted = Mounted::new(&[
        // The middle layer hides some of the lowest.
        "mkdir -p a/b; mknod a/gone c 0 0; setfattr -n trusted.overlay.opaque -v y a/b; echo middle > a/b/m",
        "mkdir -p a/b a/c; echo low > a/gone; echo low > a/b/hidden; echo low > a/c/f; echo x > keep; echo y > kill; \
         mkdir -p d/e; echo z > d/e/z; echo touched > t; touch -d @1000 t; ln keep keep2",
    ]);
    let before = tempfile::tempdir().unwrap();
    copy(&mounted.merged(), before.path());
    sh(
        &mounted.merged(),
        "rm kill; rm -r d/e; mkdir d/e; echo new > d/e/n; rm -r a/c; echo file > a/c; echo more >> a/b/m; \
         chmod 711 a; mv keep moved; echo 1 > made; rm made; mkdir -p x/y; echo x > x/y/z; ln x/y/z x/hard; \
         chmod 600 t; chmod 644 t; setfattr -n trusted.overlay.opaque -v y x; setfattr -n user.overlay.z -v 1 x/y",
    );
    let tar = overlay(&mounted.upper(), &mounted.lowers);
    let found = names(&tar);
    for wanted in [".wh.kill", "d/e/.wh..wh..opq", "a/c", ".wh.keep", "moved", "x/y/z"] {
        assert!(found.contains(&wanted.to_owned()), "{wanted} in {found:?}");
    }
    // Made and gone within the layer, hidden already, or copied up for nothing.
    for unwanted in [".wh.made", "a/.wh.gone", "a/b/.wh.hidden", "a/b/.wh..wh..opq", "t"] {
        assert!(!found.contains(&unwanted.to_owned()), "{unwanted} in {found:?}");
    }
    unpack_to(&tar, before.path(), Whiteouts::Apply);
    let wanted = listing(&mounted.merged());
    let mut got = listing(before.path());
    // A whole tree does not take overlayfs's attributes, an overlay does.
    let keys: Vec<String> = got.keys().filter(|key| wanted.get(*key) != got.get(*key)).cloned().collect();
    assert_eq!(keys, ["x", "x/y"].map(|name| format!("./{name}")));
    keys.iter().for_each(|key| drop(got.insert(key.clone(), wanted[key].clone())));
    assert_eq!(got, wanted);
    // Unpacked as an overlay's layer and mounted, it shows the container's tree, attributes and all.
    let again = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    sh(again.path(), "mkdir layer merged");
    unpack_to(&tar, &again.path().join("layer"), Whiteouts::Overlay);
    let lowers: Vec<&str> = mounted.lowers.iter().map(|path| path.to_str().unwrap()).collect();
    sh(again.path(), &format!("mount -t overlay overlay -o lowerdir=layer:{} merged", lowers.join(":")));
    let shown = listing(&again.path().join("merged"));
    sh(again.path(), "umount merged");
    // What is escaped for mounts with `userxattr` stays so in others.
    let wanted =
        wanted.into_iter().map(|(key, facts)| (key, facts.replace("user.overlay.", "user.overlay.overlay.")));
    assert_eq!(shown, wanted.collect());
}

#[test]
fn an_overlay_and_the_comparison_of_its_mounts_agree() {
    let mounted =
        Mounted::new(&["mkdir -p a/b; echo 1 > a/b/f; echo 2 > a/g; mkdir s; touch -d @5 a/g a/b/f"]);
    let before = tempfile::tempdir().unwrap();
    copy(&mounted.merged(), before.path());
    sh(&mounted.merged(), "echo 3 > a/b/f; rm a/g; mkdir s/t; ln -s x s/t/l; chmod 700 a");
    let (_, compared) = difference(Some(before.path()), &mounted.merged());
    assert_eq!(names(&overlay(&mounted.upper(), &mounted.lowers)), names(&compared));
}

#[test]
fn an_upper_directory_that_only_refers_is_refused() {
    let yard = tempfile::tempdir().unwrap();
    for mark in ["redirect", "metacopy"] {
        let upper = yard.path().join(mark);
        fs::create_dir_all(upper.join("d")).unwrap();
        sh(&upper, &format!("setfattr -n trusted.overlay.{mark} -v /elsewhere d"));
        let error = pack_overlay(&upper, &[], Vec::new(), &plain()).unwrap_err();
        assert!(error.to_string().contains("compare the mounted trees"), "{error}");
    }
}

#[test]
fn a_file_named_like_a_whiteout_is_refused_and_not_turned_into_a_deletion() {
    let yard = tempfile::tempdir().unwrap();
    fs::write(yard.path().join(".wh.etc"), "").unwrap();
    let error = pack_difference(None, yard.path(), Vec::new(), &plain()).unwrap_err();
    assert!(matches!(error, PackError::Entry { .. }), "{error}");
}

#[test]
fn the_epoch_bounds_times_and_makes_builds_alike() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let options = PackOptions { source_date_epoch: Some(epoch), ..PackOptions::default() };
    let mut digests = Vec::new();
    for tree in [&one, &two] {
        sh(tree.path(), "mkdir d; echo now > d/now; echo then > d/then; touch -d @1000 d/then");
        digests.push(pack_difference(None, tree.path(), Vec::new(), &options).unwrap());
    }
    assert_eq!(digests[0], digests[1]);
    let mut tar = Vec::new();
    let options = PackOptions { source_date_epoch: Some(epoch), ..plain() };
    pack_difference(None, one.path(), &mut tar, &options).unwrap();
    let mut reader = Reader::new(&tar[..], &Limits::default());
    while let Some(entry) = reader.next_entry().unwrap() {
        let wanted = if entry.name.ends_with(b"then") { 1000 } else { 1_000_000_000 };
        assert_eq!(entry.mtime, Timestamp { seconds: wanted, nanoseconds: 0 });
    }
}

#[test]
fn a_sink_that_fails_is_the_error_and_ends_the_work() {
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let noise = std::io::Read::take(fs::File::open("/dev/urandom").unwrap(), 1 << 30);
    let error = recompress(noise, Compression::None, Full(3 << 20), Compression::Gzip, Some(1)).unwrap_err();
    assert!(
        matches!(&error, PackError::Sink(cause) if cause.kind() == std::io::ErrorKind::StorageFull),
        "{error}"
    );
}

#[test]
fn recompressing_keeps_the_tar_and_says_both_digests() {
    let tar: Vec<u8> = (0..2_000_000u32).flat_map(|at| (at / 7).to_le_bytes()).collect();
    let kinds = [Compression::None, Compression::Gzip, Compression::Zstd];
    for (from, to) in kinds.into_iter().flat_map(|from| kinds.map(|to| (from, to))) {
        let (mut first, mut second, mut again) = (Vec::new(), Vec::new(), Vec::new());
        recompress(&tar[..], Compression::None, &mut first, from, Some(1)).unwrap();
        let packed = recompress(&first[..], from, &mut second, to, None).unwrap();
        assert_eq!(packed.diff_id, DiffId(Digest::of(&tar)));
        assert_eq!((packed.digest, packed.size), (Digest::of(&second), second.len() as u64));
        recompress(&second[..], to, &mut again, Compression::None, None).unwrap();
        assert_eq!(again, tar);
        let repeated = recompress(&first[..], from, std::io::sink(), to, None).unwrap();
        assert_eq!(repeated, packed);
    }
    for (to, level) in [(Compression::Gzip, 10), (Compression::Gzip, -1), (Compression::Zstd, 23)] {
        let error = recompress(&tar[..], Compression::None, Vec::new(), to, Some(level)).unwrap_err();
        assert!(matches!(error, PackError::Level { .. }), "{error}");
    }
    let error =
        recompress(&b"\x1f\x8b\x08broken"[..], Compression::Gzip, Vec::new(), Compression::Zstd, None);
    assert!(matches!(error, Err(PackError::Layer(_))));
}
