//! The writer: entries to blocks, byte for byte the same for the same entries.
//!
//! A number or name that ustar (POSIX.1-1988) can hold stands in the header; anything else is a PAX record
//! (POSIX.1-2001) before it, sorted by key, in a header that names no time, user or process. Names are bytes: legal
//! ones pass unchanged, whether they are UTF-8 or not. What [`super::Reader`] would refuse is not written.
//!
//! Not here: walking a tree (`pack`), sparse files (holes are written as zeros), compression.

use std::io::{self, Read, Write};

use storage_sys::tree::Timestamp;

use super::header::BLOCK;
use super::reader::SECONDS_MAX;
use super::{Entry, EntryKind};
use crate::{EntryName, Limits};

/// Writes a tar. See the module.
///
/// [`Writer::entry`], then [`Writer::data`] until a file's announced length is there (or [`Writer::file`] for both), to
/// the last entry; then [`Writer::finish`]. After an error the archive is unusable.
#[derive(Debug)]
pub struct Writer<W> {
    output: W,
    /// Bytes written so far.
    offset: u64,
    /// Length of the present entry.
    size: u64,
    /// Bytes of it not yet written: `left <= size`.
    left: u64,
    /// Name of the present entry, for errors.
    name: Vec<u8>,
}

/// Why a tar was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The output failed.
    #[error("writing the archive failed: {0}")]
    Output(#[source] io::Error),
    /// The reader of a file's content failed.
    #[error("reading the content of {name} failed: {source}")]
    Content {
        /// The entry.
        name: EntryName,
        /// The reader's word.
        source: io::Error,
    },
    /// More or fewer bytes than the entry announced: the file changed while it was read.
    #[error("{name} was announced with {announced_bytes} bytes and has {found_bytes}; it changed under way")]
    Length {
        /// The entry.
        name: EntryName,
        /// Length in the header.
        announced_bytes: u64,
        /// How many came.
        found_bytes: u64,
    },
    /// An entry that no tar can hold, or that readers would understand differently.
    #[error("{name} cannot be put into a tar: {reason}")]
    Entry {
        /// The entry.
        name: EntryName,
        /// Why.
        reason: EntryUnwritable,
    },
}

/// Why an entry cannot be put into a tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryUnwritable {
    /// A NUL byte in a name or target, an empty name, or a slash at the end of what is no directory.
    Name,
    /// Mode beyond 12 bits, owner 2^32 - 1, a time 34,000 years away, nanoseconds of 10^9 or more.
    Number,
    /// A length for what has no data.
    Size,
    /// The name of an extended attribute is empty or contains `=` or NUL, or occurs twice.
    XattrName,
    /// Names and extended attributes of more than 1 MiB.
    TooLong,
}

impl std::fmt::Display for EntryUnwritable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Name => "its name or target is empty, contains a NUL byte or ends with a slash",
            Self::Number => "its mode, owner or time is out of range",
            Self::Size => "it has a length but no data",
            Self::XattrName => {
                "the name of one of its extended attributes is empty, double or contains \"=\""
            }
            Self::TooLong => "its names and extended attributes are longer than 1 MiB",
        })
    }
}

impl<W: Write> Writer<W> {
    /// A writer at the start of an archive.
    pub fn new(output: W) -> Self {
        Self { output, offset: 0, size: 0, left: 0, name: Vec::new() }
    }

    /// Bytes of the archive written so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Starts an entry. A directory gets its slash here; the empty name is the root.
    ///
    /// # Errors
    /// [`WriteError::Length`] if the entry before lacks data, [`WriteError::Entry`], [`WriteError::Output`].
    pub fn entry(&mut self, entry: &Entry) -> Result<(), WriteError> {
        self.complete()?;
        let blocks = blocks(entry)
            .map_err(|reason| WriteError::Entry { name: EntryName(entry.name.clone()), reason })?;
        self.put(&blocks)?;
        self.name.clone_from(&entry.name);
        (self.size, self.left) = (entry.size, entry.size);
        Ok(())
    }

    /// Writes some of the data of the present entry.
    ///
    /// # Errors
    /// [`WriteError::Length`] if they are more than announced, [`WriteError::Output`].
    pub fn data(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let length = bytes.len() as u64;
        let Some(left) = self.left.checked_sub(length) else {
            return Err(self.wrong_length(self.size - self.left + length));
        };
        self.put(bytes)?;
        self.left = left;
        if left == 0 && length > 0 {
            self.pad()?;
        }
        Ok(())
    }

    /// Writes an entry with the content of a reader, of which just `entry.size` bytes are taken.
    ///
    /// # Errors
    /// As [`Writer::entry`] and [`Writer::data`]; [`WriteError::Content`] if the reader fails, [`WriteError::Length`] if
    /// it ends early.
    pub fn file(&mut self, entry: &Entry, mut content: impl Read) -> Result<(), WriteError> {
        self.entry(entry)?;
        let mut buffer = vec![0; usize::try_from(self.left.min(128 * 1024)).unwrap_or(0)];
        while self.left > 0 {
            let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
            match content.read(&mut buffer[..want]) {
                Ok(0) => return self.complete(),
                Ok(read) => self.data(&buffer[..read])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(WriteError::Content { name: EntryName(self.name.clone()), source });
                }
            }
        }
        Ok(())
    }

    /// Ends the archive with two blocks of zeros and gives the output back, not flushed.
    ///
    /// # Errors
    /// As [`Writer::entry`].
    pub fn finish(mut self) -> Result<W, WriteError> {
        self.complete()?;
        self.put(&[0; 2 * BLOCK])?;
        Ok(self.output)
    }

    fn complete(&self) -> Result<(), WriteError> {
        if self.left > 0 { Err(self.wrong_length(self.size - self.left)) } else { Ok(()) }
    }

    fn wrong_length(&self, found_bytes: u64) -> WriteError {
        let name = EntryName(self.name.clone());
        WriteError::Length { name, announced_bytes: self.size, found_bytes }
    }

    fn pad(&mut self) -> Result<(), WriteError> {
        let padding = usize::try_from(self.offset.wrapping_neg() % BLOCK as u64).expect("below 512");
        self.put(&[0; BLOCK][..padding])
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.output.write_all(bytes).map_err(WriteError::Output)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

/// All blocks of an entry before its data.
fn blocks(entry: &Entry) -> Result<Vec<u8>, EntryUnwritable> {
    check(entry)?;
    let name = written_name(entry);
    let mut records = Records::default();
    let mut header = Header::new();
    if let Some((prefix, leaf)) = split(&name) {
        header.bytes(345, prefix);
        header.bytes(0, leaf);
    } else {
        records.add("path", &name);
        header.bytes(0, &name[..name.len().min(100)]);
    }
    let (kind, link, device) = facts(&entry.kind);
    header.0[156] = kind;
    if link.len() > 100 {
        records.add("linkpath", link);
    }
    header.bytes(157, &link[..link.len().min(100)]);
    header.octal(100, 8, u64::from(entry.mode));
    for (at, width, key, value) in [
        (108, 8, "uid", u64::from(entry.uid)),
        (116, 8, "gid", u64::from(entry.gid)),
        (124, 12, "size", entry.size),
    ] {
        if !header.octal(at, width, value) {
            records.add(key, value.to_string().as_bytes());
        }
    }
    for (at, value) in [(329, device.0), (337, device.1)] {
        if !header.octal(at, 8, u64::from(value)) {
            return Err(EntryUnwritable::Number);
        }
    }
    let whole = u64::try_from(entry.mtime.seconds).is_ok_and(|seconds| header.octal(136, 12, seconds));
    if !whole || entry.mtime.nanoseconds > 0 {
        records.add("mtime", decimal(entry.mtime).as_bytes());
    }
    if let Some(atime) = entry.atime {
        records.add("atime", decimal(atime).as_bytes());
    }
    for (name, value) in &entry.xattrs {
        records.add_bytes(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    let mut blocks = records.into_blocks(&name)?;
    blocks.extend_from_slice(&header.sealed());
    Ok(blocks)
}

fn check(entry: &Entry) -> Result<(), EntryUnwritable> {
    let is_file = entry.kind == EntryKind::File;
    let link = match &entry.kind {
        EntryKind::HardLink(target) | EntryKind::Symlink(target) => Some(target),
        _ => None,
    };
    let is_directory = entry.kind == EntryKind::Directory;
    let bare = !is_directory && (entry.name.is_empty() || entry.name.ends_with(b"/"));
    if bare || entry.name.contains(&0) || link.is_some_and(|link| link.is_empty() || link.contains(&0)) {
        return Err(EntryUnwritable::Name);
    }
    for time in [Some(entry.mtime), entry.atime].into_iter().flatten() {
        if time.seconds.unsigned_abs() > SECONDS_MAX || time.nanoseconds >= 1_000_000_000 {
            return Err(EntryUnwritable::Number);
        }
    }
    if entry.mode > 0o7777 || entry.uid == u32::MAX || entry.gid == u32::MAX {
        return Err(EntryUnwritable::Number);
    }
    if entry.size > 0 && !is_file || i64::try_from(entry.size).is_err() {
        return Err(EntryUnwritable::Size);
    }
    let mut seen = std::collections::BTreeSet::new();
    let bad = |name: &Vec<u8>| name.is_empty() || name.contains(&0) || name.contains(&b'=');
    if entry.xattrs.iter().any(|(name, _)| bad(name) || !seen.insert(name)) {
        return Err(EntryUnwritable::XattrName);
    }
    Ok(())
}

/// The name as it stands in the archive: a directory's ends with a slash.
fn written_name(entry: &Entry) -> Vec<u8> {
    let mut name = entry.name.clone();
    if entry.kind == EntryKind::Directory {
        if name.is_empty() {
            name.push(b'.');
        }
        if !name.ends_with(b"/") {
            name.push(b'/');
        }
    }
    name
}

/// The type's letter, the target and the device number.
fn facts(kind: &EntryKind) -> (u8, &[u8], (u32, u32)) {
    match kind {
        EntryKind::File => (b'0', b"", (0, 0)),
        EntryKind::HardLink(target) => (b'1', target, (0, 0)),
        EntryKind::Symlink(target) => (b'2', target, (0, 0)),
        EntryKind::Char { major, minor } => (b'3', b"", (*major, *minor)),
        EntryKind::Block { major, minor } => (b'4', b"", (*major, *minor)),
        EntryKind::Directory => (b'5', b"", (0, 0)),
        EntryKind::Fifo => (b'6', b"", (0, 0)),
    }
}

/// Prefix and name of a header, `None` if they have no room for it.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= 100 {
        return Some((b"", name));
    }
    // The name may not be empty: the slash that ends a directory's does not count.
    let end = (name.len() - 1).min(156);
    let slash = name[..end].iter().rposition(|&byte| byte == b'/').filter(|&slash| slash > 0)?;
    let (prefix, leaf) = (&name[..slash], &name[slash + 1..]);
    (leaf.len() <= 100).then_some((prefix, leaf))
}

/// `[-]seconds[.fraction]`.
fn decimal(time: Timestamp) -> String {
    let (sign, seconds, nanoseconds) = match time {
        Timestamp { seconds, nanoseconds: 0 } if seconds < 0 => ("-", seconds.unsigned_abs(), 0),
        Timestamp { seconds, nanoseconds } if seconds < 0 => {
            ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds)
        }
        Timestamp { seconds, nanoseconds } => ("", seconds.unsigned_abs(), nanoseconds),
    };
    match nanoseconds {
        0 => format!("{sign}{seconds}"),
        nanoseconds => {
            let fraction = format!("{nanoseconds:09}");
            format!("{sign}{seconds}.{}", fraction.trim_end_matches('0'))
        }
    }
}

/// A ustar header being made.
struct Header(Box<[u8; BLOCK]>);

impl Header {
    fn new() -> Self {
        let mut header = Self(Box::new([0; BLOCK]));
        header.bytes(257, b"ustar\x0000");
        header
    }

    fn bytes(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Octal digits and a NUL; zero and `false` if the value needs more.
    fn octal(&mut self, at: usize, width: usize, value: u64) -> bool {
        let digits = width - 1;
        let fits = value >> (3 * digits) == 0;
        self.bytes(at, format!("{:0digits$o}\0", if fits { value } else { 0 }).as_bytes());
        fits
    }

    fn sealed(mut self) -> [u8; BLOCK] {
        self.0[148..156].fill(b' ');
        let sum: u32 = self.0.iter().map(|&byte| u32::from(byte)).sum();
        self.bytes(148, format!("{sum:06o}\0 ").as_bytes());
        *self.0
    }
}

/// PAX records of one entry, sorted by key.
#[derive(Default)]
struct Records(std::collections::BTreeMap<Vec<u8>, Vec<u8>>);

impl Records {
    fn add(&mut self, key: &str, value: &[u8]) {
        self.add_bytes(key.as_bytes(), value);
    }

    fn add_bytes(&mut self, key: &[u8], value: &[u8]) {
        self.0.insert(key.to_vec(), value.to_vec());
    }

    /// The extended header and its body; nothing if there are no records.
    fn into_blocks(self, name: &[u8]) -> Result<Vec<u8>, EntryUnwritable> {
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        let mut body = Vec::new();
        for (key, value) in &self.0 {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while rest + length.to_string().len() != length {
                length += 1;
            }
            body.extend_from_slice(length.to_string().as_bytes());
            for part in [b" ", key.as_slice(), b"=", value, b"\n"] {
                body.extend_from_slice(part);
            }
        }
        if body.len() as u64 > Limits::default().extended_header_bytes_max {
            return Err(EntryUnwritable::TooLong);
        }
        let mut header = Header::new();
        let leaf = name.strip_suffix(b"/").unwrap_or(name).rsplit(|&byte| byte == b'/').next();
        let leaf = leaf.unwrap_or_default();
        header.bytes(0, &[b"PaxHeaders.0/", &leaf[..leaf.len().min(80)]].concat());
        header.0[156] = b'x';
        header.octal(100, 8, 0o644);
        for (at, width) in [(108, 8), (116, 8), (136, 12), (329, 8), (337, 8)] {
            header.octal(at, width, 0);
        }
        header.octal(124, 12, body.len() as u64);
        let mut blocks = header.sealed().to_vec();
        body.resize(body.len().next_multiple_of(BLOCK), 0);
        blocks.append(&mut body);
        Ok(blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_split_where_ustar_has_room_and_nowhere_else() {
        let name = |text: &str| text.as_bytes().to_vec();
        assert_eq!(split(&[b'x'; 100]), Some((&b""[..], &[b'x'; 100][..])));
        assert_eq!(split(&[b'x'; 101]), None);
        let long = name(&format!("{}/{}", "p".repeat(155), "n".repeat(100)));
        assert_eq!(split(&long), Some((&long[..155], &long[156..])));
        assert_eq!(split(&name(&format!("{}/{}", "p".repeat(156), "n".repeat(90)))), None);
        assert_eq!(split(&name(&format!("{}/", "d".repeat(120)))), None, "a directory's slash is no split");
        assert_eq!(split(&name(&format!("/{}", "n".repeat(100)))), None, "an absolute name keeps its slash");
    }

    #[test]
    fn times_are_written_as_posix_has_them() {
        let time = |seconds, nanoseconds| decimal(Timestamp { seconds, nanoseconds });
        assert_eq!(time(0, 0), "0");
        assert_eq!(time(1, 500_000_000), "1.5");
        assert_eq!(time(-1, 0), "-1");
        assert_eq!(time(-2, 500_000_000), "-1.5");
        assert_eq!(time(-1, 999_999_999), "-0.000000001");
    }
}
