//! Single entries of a tree replaced by those of another, while others may read the tree.
//!
//! An entry is linked under a name nobody else uses and renamed over the bad one: at every moment the name leads to
//! the old entry or to the new. Directories stay where they are unless something else has their name. Both trees are
//! on one file system; links inside are never followed. A crash leaves at most an entry named `.mending-NUMBER`.
//!
//! Not here: what is to be replaced (`storage-layer`), durability (one `syncfs` by the caller).

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, RenameFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::attributes::Timestamp;
use super::copy::{open, read_all};
use super::path::EntryPath;
use super::remove;

/// A tree being mended from another.
#[derive(Debug)]
pub struct Mending<'p> {
    tree: &'p Path,
    fresh: &'p Path,
    turn: u64,
}

/// The times of a directory: last access, last change.
pub type Times = (Timestamp, Timestamp);

impl<'p> Mending<'p> {
    /// Mends the tree at `tree` with entries of the tree at `fresh`, both existing directories on trusted paths.
    pub fn new(tree: &'p Path, fresh: &'p Path) -> Self {
        Self { tree, fresh, turn: 0 }
    }

    /// Puts the entry that `fresh` has at `path`, no directory, in the place of whatever the tree has there.
    ///
    /// # Errors
    /// `EXDEV` for trees on two file systems, and those of the kernel. The name leads to the old entry or to the new.
    pub fn take(&mut self, path: &EntryPath) -> io::Result<()> {
        self.link_from(self.fresh, path, path)
    }

    /// Makes `path` another name of the tree's own entry `first`, in the place of whatever it has there.
    ///
    /// # Errors
    /// As [`Mending::take`].
    pub fn link(&mut self, first: &EntryPath, path: &EntryPath) -> io::Result<()> {
        self.link_from(self.tree, first, path)
    }

    /// Makes an empty directory at `path` unless there is one; anything else there is removed.
    ///
    /// # Errors
    /// Those of the kernel. The name leads to the old entry or to the new.
    pub fn directory(&mut self, path: &EntryPath) -> io::Result<()> {
        let (parent, leaf) = parent_in(self.tree, path)?;
        if kind(&parent, leaf)? == Some(FileType::Directory) {
            return Ok(());
        }
        let free = self.free_name(|name| rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)))?;
        put(&parent, &free, leaf)
    }

    /// Removes what the tree has at `path` and all below it; nothing there is no error.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn remove(&mut self, path: &EntryPath) -> io::Result<()> {
        let (parent, leaf) = parent_in(self.tree, path)?;
        match remove::remove(&parent, leaf) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map(drop),
        }
    }

    /// Gives the directory `path` the owner, mode, times and all extended attributes it has in `fresh`, an overlay's
    /// opaque mark among them.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn dress_directory(&self, path: &EntryPath) -> io::Result<()> {
        read_all(&open(self.fresh, path)?)?.replace_in_directory(&open(self.tree, path)?)
    }

    /// The times of a directory of the tree.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn times(&self, path: &EntryPath) -> io::Result<Times> {
        let fixed = read_all(&open(self.tree, path)?)?.fixed;
        Ok((fixed.atime, fixed.mtime))
    }

    /// Sets the times of a directory of the tree.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn set_times(&self, path: &EntryPath, (atime, mtime): Times) -> io::Result<()> {
        let spec = |at: Timestamp| Timespec { tv_sec: at.seconds, tv_nsec: i64::from(at.nanoseconds) };
        let times = Timestamps { last_access: spec(atime), last_modification: spec(mtime) };
        Ok(rustix::fs::futimens(&open(self.tree, path)?, &times)?)
    }

    fn link_from(&mut self, from: &Path, source: &EntryPath, path: &EntryPath) -> io::Result<()> {
        let (from, from_leaf) = parent_in(from, source)?;
        let (parent, leaf) = parent_in(self.tree, path)?;
        let free =
            self.free_name(|name| rustix::fs::linkat(&from, from_leaf, &parent, name, AtFlags::empty()))?;
        put(&parent, &free, leaf)
    }

    fn free_name(&mut self, mut make: impl FnMut(&str) -> rustix::io::Result<()>) -> io::Result<String> {
        loop {
            self.turn += 1;
            let name = format!(".mending-{}", self.turn);
            match make(&name) {
                Err(Errno::EXIST) => {}
                made => return Ok(made.map(|()| name)?),
            }
        }
    }
}

/// Renames the new entry over the old one; where a rename cannot (a directory in the way, or over a file), they change
/// places and the old one is removed.
fn put(parent: &OwnedFd, free: &str, leaf: &[u8]) -> io::Result<()> {
    match rustix::fs::renameat(parent, free, parent, leaf) {
        Ok(()) => {}
        Err(Errno::ISDIR | Errno::NOTDIR | Errno::NOTEMPTY | Errno::EXIST) => {
            rustix::fs::renameat_with(parent, free, parent, leaf, RenameFlags::EXCHANGE)?;
        }
        Err(errno) => return Err(errno.into()),
    }
    // Two names of one file are left alone by a rename: then the new one is still there.
    match remove::remove(parent, free.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map(drop),
    }
}

fn parent_in<'e>(root: &Path, path: &'e EntryPath) -> io::Result<(OwnedFd, &'e [u8])> {
    let (_, leaf) = path.split().ok_or(Errno::ISDIR)?;
    Ok((open(root, &path.parent())?, leaf))
}

fn kind(parent: &OwnedFd, leaf: &[u8]) -> io::Result<Option<FileType>> {
    match rustix::fs::statat(parent, leaf, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
