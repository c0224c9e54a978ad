//! From an entry of a tree to an entry of the tar: links, whiteouts, times.

use std::collections::{HashMap, HashSet};

use storage_sys::tree::{EntryPath, Facts, Kind, Timestamp, View};

use super::error::{PackError, Unpackable, reading};
use super::same::image_xattrs;
use crate::EntryName;
use crate::compress::Feeder;
use crate::tar::{Entry, EntryKind, Writer, Xattrs};

/// An inode, wherever it has names.
type Inode = (u64, u64);

/// Writes entries, each inode once: later names are hard links to the first.
pub(super) struct Emitter<'f> {
    writer: Writer<&'f mut Feeder>,
    latest: Option<Timestamp>,
    /// First name in the tar of each inode with several.
    written: HashMap<Inode, Vec<u8>>,
    /// Names of inodes met and not written because they are the same below. If another name of the inode is written,
    /// these have to be as well, or they would part.
    unchanged: HashMap<Inode, Vec<EntryPath>>,
    /// Directories written: each once, whether it changed or is the parent of what did.
    directories: HashSet<EntryPath>,
    entries: u64,
}

impl<'f> Emitter<'f> {
    pub(super) fn new(writer: Writer<&'f mut Feeder>, latest: Option<Timestamp>) -> Self {
        let (written, unchanged, directories) = (HashMap::new(), HashMap::new(), HashSet::new());
        Self { writer, latest, written, unchanged, directories, entries: 0 }
    }

    /// Writes an entry; `xattrs` as the tar shall have them.
    pub(super) fn entry(
        &mut self,
        view: &mut View,
        path: &EntryPath,
        facts: &Facts,
        xattrs: Xattrs,
    ) -> Result<(), PackError> {
        let Some(kind) = tar_kind(view, path, facts)? else {
            tracing::debug!(%path, "left out: a socket");
            return Ok(());
        };
        if facts.kind == Kind::Directory && !self.directories.insert(path.clone()) {
            return Ok(());
        }
        let several = facts.kind != Kind::Directory && facts.links > 1;
        let inode = (facts.filesystem, facts.inode);
        if let Some(first) = self.written.get(&inode).filter(|_| several) {
            let link = EntryKind::HardLink(first.clone());
            return self.bare(path, link, facts);
        }
        let entry = Entry { xattrs, ..self.outline(path, kind, facts)? };
        self.entries += 1;
        if entry.kind == EntryKind::File {
            let file = view.file(path).map_err(reading(path, "open"))?;
            self.writer.file(&entry, file).map_err(PackError::Tar)?;
        } else {
            self.writer.entry(&entry).map_err(PackError::Tar)?;
        }
        if several {
            self.written.insert(inode, path.as_bytes().to_vec());
            for other in self.unchanged.remove(&inode).unwrap_or_default() {
                self.parents(view, &other)?;
                self.bare(&other, EntryKind::HardLink(path.as_bytes().to_vec()), facts)?;
            }
        }
        Ok(())
    }

    /// Whether another name of the inode was written: then this one has to be as well.
    pub(super) fn belongs_to_written(&self, facts: &Facts) -> bool {
        facts.links > 1 && self.written.contains_key(&(facts.filesystem, facts.inode))
    }

    /// Notes an entry that is the same below; it is written only if another name of its inode will be.
    pub(super) fn same(&mut self, path: &EntryPath, facts: &Facts) {
        if facts.kind != Kind::Directory && facts.links > 1 {
            let names = self.unchanged.entry((facts.filesystem, facts.inode)).or_default();
            names.push(path.clone());
        }
    }

    /// Writes the directories on the way to an entry that comes out of its turn.
    fn parents(&mut self, view: &mut View, path: &EntryPath) -> Result<(), PackError> {
        let mut missing = Vec::new();
        let mut next = path.parent();
        while !next.is_root() && !self.directories.contains(&next) {
            let above = next.parent();
            missing.push(std::mem::replace(&mut next, above));
        }
        for path in missing.into_iter().rev() {
            if let Some(facts) = view.facts(&path).map_err(reading(&path, "look at"))? {
                let xattrs = image_xattrs(view, &path)?;
                self.entry(view, &path, &facts, xattrs)?;
            }
        }
        Ok(())
    }

    /// Writes that `path` is gone.
    pub(super) fn whiteout(&mut self, path: &EntryPath) -> Result<(), PackError> {
        let (_, leaf) = path.split().expect("the root is never deleted");
        self.mark(path.parent().child(&[b".wh.", leaf].concat()))
    }

    /// Writes that what lower layers have in the directory is gone.
    pub(super) fn opaque(&mut self, directory: &EntryPath) -> Result<(), PackError> {
        self.mark(directory.child(b".wh..wh..opq"))
    }

    /// Ends the tar; how many entries it has.
    pub(super) fn finish(self) -> Result<u64, PackError> {
        self.writer.finish().map_err(PackError::Tar)?;
        Ok(self.entries)
    }

    fn mark(&mut self, path: EntryPath) -> Result<(), PackError> {
        let entry = Entry {
            name: path.as_bytes().to_vec(),
            kind: EntryKind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: self.latest.unwrap_or_default(),
            atime: None,
            xattrs: Vec::new(),
            size: 0,
        };
        self.entries += 1;
        self.writer.entry(&entry).map_err(PackError::Tar)
    }

    fn bare(&mut self, path: &EntryPath, kind: EntryKind, facts: &Facts) -> Result<(), PackError> {
        let entry = Entry { size: 0, ..self.outline(path, kind, facts)? };
        self.entries += 1;
        self.writer.entry(&entry).map_err(PackError::Tar)
    }

    fn outline(&self, path: &EntryPath, kind: EntryKind, facts: &Facts) -> Result<Entry, PackError> {
        let refused = |reason| PackError::Entry { name: EntryName(path.as_bytes().to_vec()), reason };
        if path.split().is_some_and(|(_, leaf)| leaf.starts_with(b".wh.")) {
            return Err(refused(Unpackable::WhiteoutName));
        }
        if path.as_bytes().len() > EntryPath::BYTES_MAX {
            return Err(refused(Unpackable::TooLong));
        }
        Ok(Entry {
            name: path.as_bytes().to_vec(),
            size: if kind == EntryKind::File { facts.size } else { 0 },
            kind,
            mode: facts.mode,
            uid: facts.uid,
            gid: facts.gid,
            mtime: self.latest.map_or(facts.mtime, |latest| facts.mtime.min(latest)),
            atime: None,
            xattrs: Vec::new(),
        })
    }
}

/// What the tar calls it; `None` for what no tar can hold.
fn tar_kind(view: &mut View, path: &EntryPath, facts: &Facts) -> Result<Option<EntryKind>, PackError> {
    let (major, minor) = facts.device;
    Ok(Some(match facts.kind {
        Kind::File => EntryKind::File,
        Kind::Directory => EntryKind::Directory,
        Kind::Symlink => {
            EntryKind::Symlink(view.read_link(path).map_err(reading(path, "read the symbolic link"))?)
        }
        Kind::Char => EntryKind::Char { major, minor },
        Kind::Block => EntryKind::Block { major, minor },
        Kind::Fifo => EntryKind::Fifo,
        Kind::Socket => return Ok(None),
    }))
}
