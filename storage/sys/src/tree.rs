//! A directory tree that is written entry by entry and cannot be left.
//!
//! [`Tree`] holds a descriptor of its root. Every operation finds the parent of its entry with `openat2` under
//! `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`, so that symbolic links inside the tree lead to places inside the tree
//! (an absolute link starts at the root, `..` stops there), and then acts on one name in that parent without
//! following it. No path string is used after it was resolved, so there is nothing to swap between check and use.
//!
//! An entry replaces what had its name; only a directory onto a directory merges. Descriptors of parents are kept in
//! a small cache, which is emptied whenever anything is replaced or removed (CVE-2025-47290 was such a cache that was
//! not). Owner, mode, extended attributes and times of directories wait for [`Tree::finish`], because entries below
//! would change the times, inherit a set-group-ID bit or a default ACL.
//!
//! Not here: what a tar means (`storage-layer`), durability (one `syncfs` by the caller), locking: one writer a tree.

mod attributes;
mod copy;
mod mend;
mod parents;
mod path;
mod remove;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

pub use attributes::{Attributes, NewFile, Timestamp, read_xattr};
pub use copy::{Lower, copy_directory_attributes, hides_below};
pub use mend::{Mending, Times};
pub use path::{EntryPath, PathRefused};
pub use remove::{Removed, remove_all};
pub use view::{Facts, Kind, Name, View};

use attributes::OwnedAttributes;
use parents::{Parent, Parents};

/// What the tree stands on when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The upper directory of an overlay: entries hide what lower layers have; a directory that takes the place of
    /// something else is marked opaque.
    Upper,
    /// A whole tree that is changed in place. Its directories may carry set-group-ID bits and default ACLs.
    Whole,
}

/// A file of no content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// A named pipe.
    Fifo,
    /// A character device.
    Char {
        /// Major number, below 2^12.
        major: u32,
        /// Minor number, below 2^20.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Major number, below 2^12.
        major: u32,
        /// Minor number, below 2^20.
        minor: u32,
    },
}

/// A tree being written. See the module for what it promises.
#[derive(Debug)]
pub struct Tree {
    parents: Parents,
    start: Start,
    /// Set the mode of every file although `open` was given it: a default ACL may have narrowed it.
    chmod_always: bool,
    /// User and group that what we make belongs to at first.
    ours: (u32, u32),
    deferred: BTreeMap<Vec<u8>, (u64, OwnedAttributes)>,
    deferred_bytes: usize,
    turn: u64,
    implied: BTreeSet<Vec<u8>>,
    inodes: u64,
    disk_bytes: u64,
    marked: bool,
}

/// What [`Tree::finish`] leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Inodes made and not removed again.
    pub inodes: u64,
    /// Bytes on disk of these: file data and directories in blocks of 4 KiB. An estimate; the file system decides.
    pub disk_bytes: u64,
    /// Directories that were made because an entry lies below them and that had no entry of their own, parents before
    /// children. Mode 0755 and owner 0:0 until the caller knows better.
    pub implied: Vec<EntryPath>,
    /// Whether anything but a file may have extended attributes; if not, nobody has to look for them.
    pub marked: bool,
}

/// Most bytes that deferred attributes of directories may take, in bytes.
///
/// A million directories with one short extended attribute fit; an archive that wants more wants the memory.
const DEFERRED_BYTES_MAX: usize = 256 * 1024 * 1024;
const BLOCK_BYTES: u64 = 4096;
const OPAQUE: &str = "trusted.overlay.opaque";

impl Tree {
    /// Opens the tree whose root is the existing directory `root`, a trusted path.
    ///
    /// # Errors
    /// Those of opening a directory; `ENOSYS` on a kernel before 5.6, which has no `openat2`.
    pub fn open(root: &Path, start: Start) -> io::Result<Self> {
        let parents = Parents::open(root)?;
        let chmod_always = start == Start::Whole || parents.root_has_default_acl();
        Ok(Self {
            parents,
            start,
            chmod_always,
            ours: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            deferred: BTreeMap::new(),
            deferred_bytes: 0,
            turn: 0,
            implied: BTreeSet::new(),
            inodes: 0,
            disk_bytes: 0,
            marked: chmod_always,
        })
    }

    /// Makes an empty file in place of whatever has the name; [`Tree::close`] gives it its attributes.
    ///
    /// # Errors
    /// `EISDIR` for the root itself, and those of the kernel.
    pub fn file(&mut self, path: &EntryPath, mode: u32) -> io::Result<NewFile> {
        let (parent, leaf) = self.make_parent(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let permissions = Mode::from_raw_mode(mode & 0o777);
        let fd = self.replacing(path, &parent, leaf, |at, name| {
            rustix::fs::openat(&at.fd, name, flags, permissions)
        })?;
        self.inodes += 1;
        Ok(NewFile::new(fd, parent.gives_group, self.chmod_always))
    }

    /// Gives a file its attributes and closes it.
    ///
    /// # Errors
    /// Those of the kernel. The file is left as it is.
    pub fn close(&mut self, file: NewFile, attributes: &Attributes<'_>) -> io::Result<()> {
        self.finish_file(file, attributes).map(drop)
    }

    /// As [`Tree::close`], and says what the file is now.
    ///
    /// # Errors
    /// Those of the kernel. The file is left as it is.
    pub fn close_and_look(&mut self, file: NewFile, attributes: &Attributes<'_>) -> io::Result<Facts> {
        let file = self.finish_file(file, attributes)?;
        Facts::of(&rustix::fs::fstat(&file)?)
    }

    fn finish_file(&mut self, file: NewFile, attributes: &Attributes<'_>) -> io::Result<std::fs::File> {
        let (file, data_bytes) = file.finish(attributes, self.ours)?;
        let blocks = data_bytes.div_ceil(BLOCK_BYTES);
        self.disk_bytes = self.disk_bytes.saturating_add(blocks.saturating_mul(BLOCK_BYTES));
        Ok(file)
    }

    /// Whether entries may get extended attributes they were not given: from a default ACL of their directory.
    pub fn inherits_attributes(&self) -> bool {
        self.chmod_always
    }

    /// Makes a directory, or keeps the one that is there; its attributes are set by [`Tree::finish`].
    ///
    /// # Errors
    /// `ENOMEM` when the waiting attributes exceed 256 MiB, and those of the kernel.
    pub fn directory(&mut self, path: &EntryPath, attributes: &Attributes<'_>) -> io::Result<()> {
        if !path.is_root() {
            let (parent, leaf) = self.make_parent(path)?;
            let first = rustix::fs::mkdirat(&parent.fd, leaf, Mode::from_raw_mode(0o755));
            match first {
                Ok(()) => self.count_directory(),
                Err(Errno::EXIST) => self.merge(path, &parent, leaf)?,
                Err(errno) => return Err(errno.into()),
            }
            self.implied.remove(path.as_bytes());
        }
        self.defer(path, attributes)
    }

    /// A directory entry meets a name that exists: a directory stays, anything else is replaced.
    fn merge(&mut self, path: &EntryPath, parent: &Parent, leaf: &[u8]) -> io::Result<()> {
        if FileType::from_raw_mode(stat(parent, leaf)?.st_mode) == FileType::Directory {
            return Ok(());
        }
        self.clear(path.as_bytes(), parent, leaf)?;
        rustix::fs::mkdirat(&parent.fd, leaf, Mode::from_raw_mode(0o755))?;
        self.count_directory();
        if self.start == Start::Upper {
            self.marked = true;
            parent.set_xattr(leaf, OPAQUE.as_bytes(), b"y")?;
        }
        Ok(())
    }

    /// Makes a symbolic link; `target` is kept as it is and never looked at.
    ///
    /// # Errors
    /// `EISDIR` for the root, and those of the kernel.
    pub fn symlink(
        &mut self,
        path: &EntryPath,
        target: &[u8],
        attributes: &Attributes<'_>,
    ) -> io::Result<()> {
        let (parent, leaf) = self.make_parent(path)?;
        self.replacing(path, &parent, leaf, |at, name| rustix::fs::symlinkat(target, &at.fd, name))?;
        self.inodes += 1;
        if target.len() >= 60 {
            self.disk_bytes += BLOCK_BYTES;
        }
        self.marked |= !attributes.xattrs.is_empty();
        parent.dress(leaf, attributes, false)
    }

    /// Makes `path` another name of `target`. A link to a symbolic link names the link itself.
    ///
    /// # Errors
    /// `ENOENT` if the tree has no `target`, `EPERM` if it is a directory, and those of the kernel.
    pub fn hard_link(&mut self, path: &EntryPath, target: &EntryPath) -> io::Result<()> {
        let (from, from_leaf) = self.find_parent(target)?;
        if FileType::from_raw_mode(stat(&from, from_leaf)?.st_mode) == FileType::Directory {
            return Err(Errno::PERM.into());
        }
        let (parent, leaf) = self.make_parent(path)?;
        self.replacing(path, &parent, leaf, |at, name| {
            rustix::fs::linkat(&from.fd, from_leaf, &at.fd, name, AtFlags::empty())
        })
    }

    /// Makes a device or a named pipe.
    ///
    /// # Errors
    /// `EINVAL` for a device number beyond the kernel's range or for 0:0 of a character device (an overlay's
    /// whiteout), `EISDIR` for the root, and those of the kernel.
    pub fn node(&mut self, path: &EntryPath, node: Node, attributes: &Attributes<'_>) -> io::Result<()> {
        let (kind, major, minor) = match node {
            Node::Fifo => (FileType::Fifo, 0, 0),
            Node::Char { major: 0, minor: 0 } => return Err(Errno::INVAL.into()),
            Node::Char { major, minor } => (FileType::CharacterDevice, major, minor),
            Node::Block { major, minor } => (FileType::BlockDevice, major, minor),
        };
        if major >= 1 << 12 || minor >= 1 << 20 {
            return Err(Errno::INVAL.into());
        }
        let (parent, leaf) = self.make_parent(path)?;
        let (device, mode) =
            (rustix::fs::makedev(major, minor), Mode::from_raw_mode(attributes.mode & 0o777));
        self.replacing(path, &parent, leaf, |at, name| {
            rustix::fs::mknodat(&at.fd, name, kind, mode, device)
        })?;
        self.inodes += 1;
        self.marked |= !attributes.xattrs.is_empty();
        parent.dress(leaf, attributes, true)
    }

    /// Hides what lower layers have under this name (overlay form: a character device 0:0).
    ///
    /// What this tree itself has under the name stays, whichever came first: a directory becomes opaque, anything
    /// else hides the name already.
    ///
    /// # Errors
    /// `EISDIR` for the root, and those of the kernel.
    pub fn whiteout(&mut self, path: &EntryPath) -> io::Result<()> {
        let (parent, leaf) = self.make_parent(path)?;
        match rustix::fs::mknodat(&parent.fd, leaf, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => {
                self.inodes += 1;
                Ok(())
            }
            Err(Errno::EXIST) => {
                if FileType::from_raw_mode(stat(&parent, leaf)?.st_mode) == FileType::Directory {
                    self.marked = true;
                    parent.set_xattr(leaf, OPAQUE.as_bytes(), b"y")?;
                }
                Ok(())
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Hides what lower layers have in this directory (overlay form); makes the directory if it is missing.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn opaque(&mut self, directory: &EntryPath) -> io::Result<()> {
        let parent = self.make_directory(directory.as_bytes())?;
        self.marked = true;
        parent.set_own_xattr(OPAQUE.as_bytes(), b"y")
    }

    /// Removes an entry and all that is below it; a missing one, or one in a missing directory, is no error.
    ///
    /// # Errors
    /// `EISDIR` for the root, and those of the kernel.
    pub fn remove(&mut self, path: &EntryPath) -> io::Result<()> {
        let (parent, leaf) = match self.find_parent(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        match self.clear(path.as_bytes(), &parent, leaf) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Names in a directory, with whether each is a directory itself; none if it is missing or no directory.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn children(&mut self, directory: &EntryPath) -> io::Result<Vec<(EntryPath, bool)>> {
        use io::ErrorKind::{NotADirectory, NotFound};
        let parent = match self.parents.find(directory.as_bytes()) {
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => return Ok(Vec::new()),
            found => found?,
        };
        let names = remove::list(&parent.fd)?;
        names.into_iter().map(|(name, is_directory)| Ok((directory.child(&name), is_directory))).collect()
    }

    /// Gives the directories their attributes and says what was made.
    ///
    /// # Errors
    /// The directory and the kernel's refusal.
    pub fn finish(mut self) -> Result<Finished, (EntryPath, io::Error)> {
        let mut waiting: Vec<_> = std::mem::take(&mut self.deferred).into_iter().collect();
        waiting.sort_unstable_by_key(|(_, (turn, _))| *turn);
        for (path, (_, attributes)) in waiting {
            let path = EntryPath::trusted(path);
            match self.parents.open_directory(path.as_bytes()) {
                Ok(fd) => match self.start {
                    Start::Upper => attributes.apply_to_directory(&fd),
                    // The directory of a lower layer may have been kept, but not its attributes.
                    Start::Whole => attributes.replace_in_directory(&fd),
                }
                .map_err(|error| (path, error))?,
                // Replaced since, through another name of its parent.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err((path, error)),
            }
        }
        let implied = std::mem::take(&mut self.implied).into_iter().map(EntryPath::trusted).collect();
        Ok(Finished { inodes: self.inodes, disk_bytes: self.disk_bytes, implied, marked: self.marked })
    }

    fn count_directory(&mut self) {
        self.inodes += 1;
        self.disk_bytes += BLOCK_BYTES;
    }

    fn defer(&mut self, path: &EntryPath, attributes: &Attributes<'_>) -> io::Result<()> {
        self.marked |= !attributes.xattrs.is_empty();
        let owned = attributes.keep();
        self.deferred_bytes += owned.bytes() + path.as_bytes().len();
        if self.deferred_bytes > DEFERRED_BYTES_MAX {
            return Err(Errno::NOMEM.into());
        }
        self.turn += 1;
        let turn = self.turn;
        if let Some((_, old)) = self.deferred.insert(path.as_bytes().to_vec(), (turn, owned)) {
            self.deferred_bytes -= old.bytes() + path.as_bytes().len();
        }
        Ok(())
    }

    /// Runs `make`; if the name is taken, removes what has it and runs it again.
    fn replacing<T>(
        &mut self,
        path: &EntryPath,
        parent: &Parent,
        leaf: &[u8],
        mut make: impl FnMut(&Parent, &[u8]) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        match make(parent, leaf) {
            Err(Errno::EXIST) => {
                self.clear(path.as_bytes(), parent, leaf)?;
                Ok(make(parent, leaf)?)
            }
            made => Ok(made?),
        }
    }

    /// Removes one name and everything that was remembered through it.
    fn clear(&mut self, path: &[u8], parent: &Parent, leaf: &[u8]) -> io::Result<()> {
        self.parents.forget();
        let removed = remove::remove(&parent.fd, leaf)?;
        self.inodes = self.inodes.saturating_sub(removed.inodes);
        self.disk_bytes = self.disk_bytes.saturating_sub(removed.disk_bytes);
        self.implied.remove(path);
        if removed.directory {
            let below =
                |key: &[u8]| key.len() > path.len() && key.starts_with(path) && key[path.len()] == b'/';
            self.implied.retain(|key| !below(key));
            self.deferred.retain(|key, _| key.as_slice() != path && !below(key));
        }
        Ok(())
    }

    fn make_parent<'p>(&mut self, path: &'p EntryPath) -> io::Result<(Arc<Parent>, &'p [u8])> {
        let (directory, leaf) = path.split().ok_or(Errno::ISDIR)?;
        Ok((self.make_directory(directory)?, leaf))
    }

    fn find_parent<'p>(&mut self, path: &'p EntryPath) -> io::Result<(Arc<Parent>, &'p [u8])> {
        let (directory, leaf) = path.split().ok_or(Errno::ISDIR)?;
        Ok((self.parents.find(directory)?, leaf))
    }

    /// The directory `path` leads to; what is missing on the way is made and remembered as implied.
    fn make_directory(&mut self, path: &[u8]) -> io::Result<Arc<Parent>> {
        match self.parents.find(path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            found => return found,
        }
        for (made, was_whiteout) in self.parents.make(path, self.start == Start::Upper)? {
            self.count_directory();
            if was_whiteout {
                // Deleted below and made anew: nothing to take from lower layers.
                self.inodes -= 1;
                self.marked = true;
            } else {
                self.implied.insert(made);
            }
        }
        self.parents.find(path)
    }
}

fn stat(parent: &Parent, leaf: &[u8]) -> io::Result<Stat> {
    Ok(rustix::fs::statat(&parent.fd, leaf, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Gives the calling thread a umask of its own, of zero, so that files are made with the mode that is asked for.
///
/// The rest of the process keeps its umask; the thread also gets a working directory of its own.
///
/// # Errors
/// `ENOMEM` if the kernel has no memory for it.
pub fn clear_thread_umask() -> io::Result<()> {
    // SAFETY: `unshare` is unsafe for flags that take the descriptor table or the address space away from other code
    // of this thread. CLONE_FS copies umask, root and working directory; no pointer or descriptor changes meaning.
    unsafe {
        rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS)?;
    }
    rustix::process::umask(Mode::empty());
    Ok(())
}

#[cfg(test)]
mod tests;
