//! Tar archives written byte by byte: good ones with every kind of entry, and bad ones on purpose.
//!
//! Independent of `storage-layer`, whose reader they test.

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Regular file with this content.
    File(Vec<u8>),
    /// Directory.
    Directory,
    /// Symbolic link to this text.
    Symlink(String),
    /// Another name of this path.
    Hardlink(String),
    /// Character device: major, minor.
    Character(u32, u32),
    /// Block device: major, minor.
    Block(u32, u32),
    /// Named pipe.
    Fifo,
}

/// One entry of an archive.
#[derive(Debug, Clone)]
pub struct Entry {
    path: String,
    kind: Kind,
    mode: u32,
    owner: (u64, u64),
    mtime: (u64, u32),
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Entry {
    /// An entry of root's with the usual mode (0755 for directories, 0644 otherwise) and a fixed time.
    pub fn new(path: impl Into<String>, kind: Kind) -> Self {
        let mode = if kind == Kind::Directory { 0o755 } else { 0o644 };
        Self { path: path.into(), kind, mode, owner: (0, 0), mtime: (1_700_000_000, 0), xattrs: Vec::new() }
    }

    /// A regular file.
    pub fn file(path: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        Self::new(path, Kind::File(content.into()))
    }

    /// A directory.
    pub fn directory(path: impl Into<String>) -> Self {
        Self::new(path, Kind::Directory)
    }

    /// With these permission bits, set-id and sticky included.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// With this user and group.
    #[must_use]
    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.owner = (uid, gid);
        self
    }

    /// Last changed at these seconds and nanoseconds since 1970.
    #[must_use]
    pub fn mtime(mut self, seconds: u64, nanoseconds: u32) -> Self {
        self.mtime = (seconds, nanoseconds);
        self
    }

    /// With an extended attribute.
    #[must_use]
    pub fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        self.xattrs.push((name.to_owned(), value.to_vec()));
        self
    }
}

/// An archive that grows.
#[derive(Debug, Clone, Default)]
pub struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    /// An archive of these entries, in this order.
    pub fn of(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut tar = Self::default();
        for entry in entries {
            tar.push(&entry);
        }
        tar
    }

    /// Appends one entry, preceded by PAX records where the old header is too small.
    pub fn push(&mut self, entry: &Entry) {
        let (flag, link, device, content): (u8, &str, (u32, u32), &[u8]) = match &entry.kind {
            Kind::File(content) => (b'0', "", (0, 0), content),
            Kind::Hardlink(target) => (b'1', target, (0, 0), &[]),
            Kind::Symlink(target) => (b'2', target, (0, 0), &[]),
            Kind::Character(major, minor) => (b'3', "", (*major, *minor), &[]),
            Kind::Block(major, minor) => (b'4', "", (*major, *minor), &[]),
            Kind::Directory => (b'5', "", (0, 0), &[]),
            Kind::Fifo => (b'6', "", (0, 0), &[]),
        };
        let records = pax_records(entry, link);
        if !records.is_empty() {
            let header = Header {
                flag: b'x',
                name: "pax",
                link: "",
                mode: 0o644,
                owner: (0, 0),
                mtime: 0,
                device: (0, 0),
            };
            self.member(&header, &records);
        }
        let header = Header {
            flag,
            name: &entry.path,
            link,
            mode: entry.mode,
            owner: entry.owner,
            mtime: entry.mtime.0,
            device,
        };
        self.member(&header, content);
    }

    /// The archive with its two closing blocks of zeros.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }

    fn member(&mut self, header: &Header<'_>, content: &[u8]) {
        self.bytes.extend_from_slice(&header.block(content.len() as u64));
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }
}

/// The fields of a ustar header.
struct Header<'a> {
    flag: u8,
    name: &'a str,
    link: &'a str,
    mode: u32,
    owner: (u64, u64),
    mtime: u64,
    device: (u32, u32),
}

impl Header<'_> {
    fn block(&self, size: u64) -> [u8; 512] {
        let mut block = [0; 512];
        text(&mut block[0..100], self.name);
        octal(&mut block[100..108], u64::from(self.mode));
        octal(&mut block[108..116], self.owner.0);
        octal(&mut block[116..124], self.owner.1);
        octal(&mut block[124..136], size);
        octal(&mut block[136..148], self.mtime);
        block[148..156].fill(b' ');
        block[156] = self.flag;
        text(&mut block[157..257], self.link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut block[329..337], u64::from(self.device.0));
        octal(&mut block[337..345], u64::from(self.device.1));
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        octal(&mut block[148..155], sum);
        block
    }
}

/// What fits; the rest stands in a PAX record.
fn text(field: &mut [u8], text: &str) {
    let count = text.len().min(field.len());
    field[..count].copy_from_slice(&text.as_bytes()[..count]);
}

/// Octal digits and a NUL; a number too large is written as zero, its value stands in a PAX record.
fn octal(field: &mut [u8], number: u64) {
    let width = field.len() - 1;
    let digits = format!("{number:0width$o}");
    let digits = if digits.len() > width { "0".repeat(width) } else { digits };
    field[..width].copy_from_slice(digits.as_bytes());
}

/// Largest user or group id that the seven octal digits of the old header hold.
const OCTAL_ID_MAX: u64 = 0o7_777_777;

fn pax_records(entry: &Entry, link: &str) -> Vec<u8> {
    let mut records = Vec::new();
    if entry.path.len() > 100 || !entry.path.is_ascii() {
        record(&mut records, "path", entry.path.as_bytes());
    }
    if link.len() > 100 || !link.is_ascii() {
        record(&mut records, "linkpath", link.as_bytes());
    }
    if entry.owner.0 > OCTAL_ID_MAX {
        record(&mut records, "uid", entry.owner.0.to_string().as_bytes());
    }
    if entry.owner.1 > OCTAL_ID_MAX {
        record(&mut records, "gid", entry.owner.1.to_string().as_bytes());
    }
    if entry.mtime.1 != 0 {
        record(&mut records, "mtime", format!("{}.{:09}", entry.mtime.0, entry.mtime.1).as_bytes());
    }
    for (name, value) in &entry.xattrs {
        record(&mut records, &format!("SCHILY.xattr.{name}"), value);
    }
    records
}

/// `LENGTH key=value\n`, where the length counts its own digits.
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn gnu_tar_reads_what_is_written_here() {
        let long = format!("{}/end", "long-directory-name/".repeat(10).trim_end_matches('/'));
        let archive = Tar::of([
            Entry::directory("d/"),
            Entry::file("d/f", "content").mode(0o4755).owner(3_000_000, 7),
            Entry::new("d/h", Kind::Hardlink("d/f".to_owned())),
            Entry::file(long.clone(), "x").mtime(5, 250_000_000),
        ])
        .finish();
        let mut tar = Command::new("tar")
            .args(["--list", "--verbose", "--numeric-owner", "--file", "-"])
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        tar.stdin.take().unwrap().write_all(&archive).unwrap();
        let output = tar.wait_with_output().unwrap();
        assert!(output.status.success());
        let listing = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<_> = listing.lines().collect();
        assert_eq!(lines.len(), 4, "{listing}");
        assert!(lines[1].starts_with("-rwsr-xr-x 3000000/7"), "{listing}");
        assert!(lines[2].ends_with("d/h link to d/f"), "{listing}");
        assert!(lines[3].ends_with(&long), "{listing}");
    }
}
