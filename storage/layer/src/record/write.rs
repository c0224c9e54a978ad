//! Writing a record: notes while files are made, one walk at the end.
//!
//! What an entry's path is in the end, only the finished tree knows: later entries replace earlier ones, links lead
//! elsewhere, whiteouts delete. So a file is noted by its inode when it is closed, with the digest of its content, and
//! the walk brings paths and notes together. Reading the directories just written costs some 5 microseconds each.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use storage_sys::tree::{EntryPath, Facts, Kind, Timestamp, View};

use super::{Content, END, Hash, MAGIC, Recorded, Walk, What, flags, xattr_digest};

/// What was seen of a file when it was closed.
#[derive(Debug)]
struct Note {
    facts: Facts,
    content: Option<Hash>,
    /// It may have extended attributes.
    look: bool,
}

/// The notes of one unpacking.
#[derive(Debug)]
pub(crate) struct Recording {
    files: HashMap<u64, Note>,
    /// Content of the file being written.
    pub(crate) content: Content,
}

impl Recording {
    pub(crate) fn new() -> Self {
        Self { files: HashMap::new(), content: Content::new() }
    }

    /// Notes a file that was closed; its content was started and given before.
    pub(crate) fn file(&mut self, facts: Facts, may_have_xattrs: bool) {
        let note = Note { facts, content: self.content.digest(), look: may_have_xattrs };
        self.files.insert(facts.inode, note);
    }

    /// Walks the finished tree and writes its record to `path`. `implied` are the directories without attributes yet;
    /// if nothing but files is `marked`, nothing else is asked for extended attributes.
    pub(crate) fn write(
        &self,
        tree: &Path,
        path: &Path,
        implied: &HashSet<&EntryPath>,
        marked: bool,
    ) -> io::Result<()> {
        let mut writer = RecordWriter::new(BufWriter::with_capacity(256 * 1024, File::create(path)?))?;
        let mut view = View::open(tree)?;
        let mut finding = Finding { implied, marked, firsts: HashMap::new() };
        writer.entry(&finding.entry(&mut view, EntryPath::root(), None, 0)?)?;
        let mut walk = Walk::new(&mut view)?;
        while let Some((path, name)) = walk.next() {
            let note = self.files.get(&name.inode).filter(|_| name.kind == Some(Kind::File));
            let entry = finding.entry(&mut view, path.clone(), note, writer.count)?;
            writer.entry(&entry)?;
            if entry.what == What::Directory {
                walk.enter(&mut view, path)?;
            }
        }
        writer.finish()?.into_inner()?;
        Ok(())
    }
}

/// What an entry's record depends on besides the entry.
struct Finding<'i> {
    implied: &'i HashSet<&'i EntryPath>,
    marked: bool,
    /// Numbers of entries by their inode, for those that come after with the same.
    firsts: HashMap<u64, u64>,
}

impl Finding<'_> {
    /// The record of the entry of that number.
    fn entry(
        &mut self,
        view: &mut View,
        path: EntryPath,
        note: Option<&Note>,
        number: u64,
    ) -> io::Result<Recorded> {
        let facts = match note {
            Some(note) => note.facts,
            None => view.facts(&path)?.ok_or(io::ErrorKind::NotFound)?,
        };
        let look = note.map_or(self.marked, |note| note.look);
        let xattrs = if look { view.xattrs(&path)? } else { Vec::new() };
        let what = self.what(view, &path, &facts, note)?;
        let is_directory = what == What::Directory;
        if !is_directory && !facts.is_whiteout() {
            self.firsts.entry(facts.inode).or_insert(number);
        }
        let opaque = xattrs.iter().any(|(name, value)| name == b"trusted.overlay.opaque" && value == b"y");
        let bare = Recorded {
            implied: is_directory && self.implied.contains(&path),
            opaque: is_directory && opaque,
            path,
            what,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            xattrs: None,
        };
        // Of a whiteout nothing but its being there means anything, and its time is that of the unpacking.
        if bare.implied || facts.is_whiteout() || matches!(bare.what, What::Link { .. }) {
            return Ok(bare);
        }
        let (mode, uid, gid, mtime) = (facts.mode, facts.uid, facts.gid, facts.mtime);
        Ok(Recorded { mode, uid, gid, mtime, xattrs: xattr_digest(&xattrs), ..bare })
    }

    fn what(
        &self,
        view: &mut View,
        path: &EntryPath,
        facts: &Facts,
        note: Option<&Note>,
    ) -> io::Result<What> {
        let (major, minor) = facts.device;
        Ok(match (facts.kind, self.firsts.get(&facts.inode)) {
            (Kind::Directory, _) => What::Directory,
            // The number of names was that of the moment the file was closed: any file may have got another since.
            (_, Some(&first)) => What::Link { first },
            (Kind::File, _) => What::File { size: facts.size, content: note.and_then(|note| note.content) },
            (Kind::Symlink, _) => What::Symlink { target: view.read_link(path)? },
            (Kind::Char, _) => What::Char { major, minor },
            (Kind::Block, _) => What::Block { major, minor },
            (Kind::Fifo, _) => What::Fifo,
            (Kind::Socket, _) => return Err(io::ErrorKind::InvalidData.into()),
        })
    }
}

/// Compares paths as a walk meets them: a directory's entries come right after it.
pub(crate) fn in_order(one: &EntryPath, other: &EntryPath) -> Ordering {
    let key = |path: &EntryPath| {
        let raw = path.as_bytes().to_vec();
        raw.into_iter().map(|byte| if byte == b'/' { 0 } else { byte })
    };
    key(one).cmp(key(other))
}

/// Writes the bytes of a record.
pub(super) struct RecordWriter<W> {
    output: W,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    before: Vec<u8>,
    /// Entries written.
    count: u64,
}

impl<W: Write> RecordWriter<W> {
    pub(super) fn new(output: W) -> io::Result<Self> {
        let mut this = Self {
            output,
            hasher: blake3::Hasher::new(),
            buffer: MAGIC.to_vec(),
            before: Vec::new(),
            count: 0,
        };
        this.flush()?;
        Ok(this)
    }

    pub(super) fn entry(&mut self, entry: &Recorded) -> io::Result<()> {
        let content = match entry.what {
            What::File { content, .. } => content,
            _ => None,
        };
        let mut first = match entry.what {
            What::Directory => flags::DIRECTORY,
            What::File { .. } => flags::FILE,
            What::Link { .. } => flags::LINK,
            What::Symlink { .. } => flags::SYMLINK,
            What::Char { .. } => flags::CHAR,
            What::Block { .. } => flags::BLOCK,
            What::Fifo => flags::FIFO,
        };
        for (flag, set) in [
            (flags::IMPLIED, entry.implied),
            (flags::OPAQUE, entry.opaque),
            (flags::XATTRS, entry.xattrs.is_some()),
            (flags::CONTENT, content.is_some()),
        ] {
            first |= if set { flag } else { 0 };
        }
        self.buffer.push(first);
        let path = entry.path.as_bytes();
        let shared = path.iter().zip(&self.before).take_while(|(one, other)| one == other).count();
        self.number(shared as u64);
        self.bytes(&path[shared..]);
        self.before = path.to_vec();
        if !matches!(entry.what, What::Link { .. }) {
            self.number(u64::from(entry.mode));
            self.number(u64::from(entry.uid));
            self.number(u64::from(entry.gid));
            self.number(zigzag(entry.mtime.seconds));
            self.number(u64::from(entry.mtime.nanoseconds));
            self.buffer.extend_from_slice(entry.xattrs.as_ref().map_or(&[][..], |hash| &hash[..]));
        }
        match &entry.what {
            What::File { size, .. } => self.number(*size),
            What::Link { first } => self.number(*first),
            What::Symlink { target } => self.bytes(target),
            What::Char { major, minor } | What::Block { major, minor } => {
                self.number(u64::from(*major));
                self.number(u64::from(*minor));
            }
            What::Directory | What::Fifo => {}
        }
        self.buffer.extend_from_slice(content.as_ref().map_or(&[][..], |hash| &hash[..]));
        self.count += 1;
        if self.buffer.len() >= 64 * 1024 { self.flush() } else { Ok(()) }
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.buffer.push(END);
        self.number(self.count);
        self.flush()?;
        self.output.write_all(self.hasher.finalize().as_bytes())?;
        Ok(self.output)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hasher.update(&self.buffer);
        self.output.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.buffer.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.push(value as u8);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.buffer.extend_from_slice(bytes);
    }
}

/// Signed numbers with small ones first: 0, -1, 1, -2.
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}
