//! Archives made byte by byte, a place to unpack them, and a guard around it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use storage_layer::{LayerError, UnpackOptions, Unpacked, Whiteouts, unpack};
use storage_model::{Compression, Digest};
use storage_sys::tree::{EntryPath, View};
use tempfile::TempDir;

/// A header block being made.
#[derive(Clone)]
pub(crate) struct Header(pub(crate) [u8; 512]);

impl Header {
    pub(crate) fn new(name: impl AsRef<[u8]>, kind: u8) -> Self {
        let mut raw = [0; 512];
        let name = name.as_ref();
        raw[..name.len()].copy_from_slice(name);
        raw[100..108].copy_from_slice(b"0000644\0");
        raw[108..116].copy_from_slice(b"0000000\0");
        raw[116..124].copy_from_slice(b"0000000\0");
        raw[124..136].copy_from_slice(b"00000000000\0");
        raw[136..148].copy_from_slice(b"14000000000\0");
        raw[156] = kind;
        raw[257..265].copy_from_slice(b"ustar\x0000");
        raw[329..337].copy_from_slice(b"0000000\0");
        raw[337..345].copy_from_slice(b"0000000\0");
        Self(raw)
    }

    pub(crate) fn set(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn mode(self, mode: u32) -> Self {
        self.set(100, format!("{mode:07o}\0").as_bytes())
    }

    pub(crate) fn owner(self, uid: u32, gid: u32) -> Self {
        self.set(108, format!("{uid:07o}\0{gid:07o}\0").as_bytes())
    }

    pub(crate) fn size(self, size: u64) -> Self {
        self.set(124, format!("{size:011o}\0").as_bytes())
    }

    pub(crate) fn link(self, target: impl AsRef<[u8]>) -> Self {
        self.set(157, target.as_ref())
    }

    pub(crate) fn device(self, major: u32, minor: u32) -> Self {
        self.set(329, format!("{major:07o}\0{minor:07o}\0").as_bytes())
    }

    pub(crate) fn gnu(self) -> Self {
        self.set(257, b"ustar  \0")
    }

    pub(crate) fn sealed(mut self) -> [u8; 512] {
        self.0[148..156].fill(b' ');
        let sum: u32 = self.0.iter().map(|&byte| u32::from(byte)).sum();
        self.set(148, format!("{sum:06o}\0 ").as_bytes()).0
    }
}

/// An archive being made.
#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn entry(mut self, header: Header, body: &[u8]) -> Self {
        self.0.extend_from_slice(&header.sealed());
        self.body(body)
    }

    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.0.extend_from_slice(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn dir(self, name: &str, mode: u32) -> Self {
        self.entry(Header::new(name, b'5').mode(mode), b"")
    }

    pub(crate) fn file(self, name: &str, body: &[u8]) -> Self {
        self.entry(Header::new(name, b'0').size(body.len() as u64), body)
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(Header::new(name, b'2').mode(0o777).link(target), b"")
    }

    pub(crate) fn link(self, name: &str, target: &str) -> Self {
        self.entry(Header::new(name, b'1').link(target), b"")
    }

    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.extended(b'x', records)
    }

    pub(crate) fn extended(self, kind: u8, records: &[(&str, &[u8])]) -> Self {
        let body: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        self.entry(Header::new("PaxHeaders/x", kind).size(body.len() as u64), &body)
    }

    pub(crate) fn gnu_long(self, kind: u8, name: &[u8]) -> Self {
        let body = [name, b"\0"].concat();
        self.entry(Header::new("././@LongLink", kind).gnu().size(body.len() as u64), &body)
    }

    /// The two blocks of zeros.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// One PAX record, its length counted as it must be.
pub(crate) fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length += 1;
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

/// Files and directories around a target, which no archive may touch.
pub(crate) struct Yard {
    pub(crate) directory: TempDir,
    before: BTreeMap<PathBuf, String>,
}

impl Yard {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path();
        fs::create_dir_all(outside.join("outer/root")).unwrap();
        for victim in ["victim", "outer/victim"] {
            fs::create_dir(outside.join(victim)).unwrap();
            fs::write(outside.join(victim).join("passwd"), "outside").unwrap();
        }
        fs::write(outside.join("outer/file"), "outside").unwrap();
        let before = picture(outside, &["outer/root"]);
        Self { directory, before }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("outer/root")
    }

    /// Absolute path of a directory outside.
    pub(crate) fn victim(&self) -> String {
        self.directory.path().join("victim").to_str().unwrap().to_owned()
    }

    pub(crate) fn unpack_as(&self, tar: &[u8], whiteouts: Whiteouts) -> Result<Unpacked, LayerError> {
        let options = UnpackOptions { whiteouts, ..UnpackOptions::default() };
        let done = unpack(tar, Compression::None, &self.root(), &options, &|_| {});
        self.assert_untouched();
        done
    }

    pub(crate) fn unpack(&self, tar: &[u8]) -> Result<Unpacked, LayerError> {
        self.unpack_as(tar, Whiteouts::Overlay)
    }

    pub(crate) fn assert_untouched(&self) {
        assert_eq!(picture(self.directory.path(), &["outer/root"]), self.before, "something outside changed");
    }

    /// What is in the target, by path.
    pub(crate) fn picture(&self) -> BTreeMap<PathBuf, String> {
        picture(&self.root(), &[])
    }

    pub(crate) fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.root().join(path)).unwrap()
    }

    pub(crate) fn stat(&self, path: &str) -> fs::Metadata {
        fs::symlink_metadata(self.root().join(path)).unwrap()
    }

    pub(crate) fn is_missing(&self, path: &str) -> bool {
        fs::symlink_metadata(self.root().join(path)).is_err()
    }

    pub(crate) fn is_whiteout(&self, path: &str) -> bool {
        fs::symlink_metadata(self.root().join(path))
            .is_ok_and(|stat| stat.file_type().is_char_device() && stat.rdev() == 0)
    }

    pub(crate) fn xattr(&self, path: &str, name: &str) -> Option<Vec<u8>> {
        storage_sys::tree::read_xattr(&self.root().join(path), name).unwrap()
    }

    pub(crate) fn is_opaque(&self, path: &str) -> bool {
        self.xattr(path, "trusted.overlay.opaque").as_deref() == Some(b"y")
    }

    pub(crate) fn same_file(&self, one: &str, other: &str) -> bool {
        self.stat(one).ino() == self.stat(other).ino()
    }
}

/// Unpacks in overlay form into a yard that is thrown away; what it was refused for.
pub(crate) fn refusal(tar: &[u8]) -> String {
    Yard::new().unpack(tar).expect_err("it was accepted").to_string()
}

/// Unpacks in overlay form; the yard afterwards.
pub(crate) fn unpacked(tar: &[u8]) -> Yard {
    let yard = Yard::new();
    yard.unpack(tar).unwrap();
    yard
}

/// Every path below `root` but those below `skip`, with what can be seen of it.
fn picture(root: &Path, skip: &[&str]) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().to_owned();
        let content = match stat.file_type() {
            kind if kind.is_dir() => {
                if skip.iter().any(|skip| name == Path::new(skip)) {
                    continue;
                }
                todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                String::new()
            }
            kind if kind.is_symlink() => format!("-> {}", fs::read_link(&path).unwrap().display()),
            kind if kind.is_file() => format!("{:?}", fs::read(&path).unwrap().escape_ascii().to_string()),
            _ => format!("device {}", stat.rdev()),
        };
        // Directories that hold the target get new times; the root of the picture is one.
        let time = if stat.is_dir() { 0 } else { stat.mtime() };
        seen.insert(name, format!("{:o} {}:{} {time} {content}", stat.mode(), stat.uid(), stat.gid()));
    }
    seen
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 3).unwrap()
}

/// Runs one `#[ignore]`d test of this binary in a process of its own; its output.
pub(crate) fn in_own_process(test: &str, set_up: impl FnOnce(&mut std::process::Command)) -> String {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
    set_up(&mut command);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Everything below `root` that a layer can carry: kind, mode, owner, time to the nanosecond, size and content, target,
/// device, extended attributes, and which names are one file.
pub(crate) fn listing(root: &Path) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    let mut first_names = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            seen.insert(path.clone(), fs::symlink_metadata(&path).unwrap());
            if seen[&path].is_dir() {
                todo.push(path);
            }
        }
    }
    let mut view = View::open(root).unwrap();
    let mut listing = BTreeMap::new();
    for (path, stat) in seen {
        let name = path.strip_prefix(root).unwrap().as_os_str().as_encoded_bytes().to_vec();
        let xattrs: Vec<String> = view
            .xattrs(&EntryPath::parse(&name).unwrap())
            .unwrap()
            .into_iter()
            .map(|(name, value)| format!("{}={}", name.escape_ascii(), value.escape_ascii()))
            .collect();
        let name = format!("./{}", name.escape_ascii());
        let kind = stat.file_type();
        let content = match kind {
            _ if kind.is_dir() => "d".to_owned(),
            _ if kind.is_symlink() => format!("l {:?}", fs::read_link(&path).unwrap()),
            _ if kind.is_file() => format!("f {} {}", stat.len(), Digest::of(&fs::read(&path).unwrap())),
            _ if kind.is_char_device() => format!("c {}", stat.rdev()),
            _ if kind.is_block_device() => format!("b {}", stat.rdev()),
            _ => "p".to_owned(),
        };
        let first = match kind.is_dir() {
            true => String::new(),
            false => first_names.entry((stat.dev(), stat.ino())).or_insert_with(|| name.clone()).clone(),
        };
        let facts = format!(
            "{content} {:o} {}:{} {}.{:09} {first} {xattrs:?}",
            stat.mode() & 0o7777,
            stat.uid(),
            stat.gid(),
            stat.mtime(),
            stat.mtime_nsec()
        );
        listing.insert(name, facts);
    }
    listing
}
