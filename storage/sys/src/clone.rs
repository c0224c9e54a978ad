//! Whole trees made of others: [`clone_tree`] copies one, [`merge_layer`] puts an overlay's upper directory on one.
//!
//! Both act through descriptors and single names, so whatever a foreign tree's links point to, nothing outside is read
//! or written; depth has no limit. Contents are shared where the file system can (`FICLONE`: btrfs, XFS), copied inside
//! the kernel where it cannot, and holes stay holes. Names of one file stay names of one file.
//!
//! An error leaves the target as far as it got: it is made under a name that nobody looks at, and removed by the caller.
//! Not here: durability (one `syncfs` by the caller), who may see the result (`snapshotters`).

mod attributes;
mod content;
mod merge;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};

pub use content::How;
pub use merge::{has_whiteouts, merge_layer};

use crate::place::Place;
use attributes::{Copier, Which};
use content::Contents;

/// What a copy made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cloned {
    /// Inodes made, the top directory not counted: it was there.
    pub inodes: u64,
    /// How the contents of the last file were copied; [`How::Shared`] if there was none.
    pub how: How,
}

/// Copies everything in `from` into the empty directory `to`, on the same file system: types, contents, holes, owners,
/// modes, times of change and of access, extended attributes, hard links within the tree; and gives `to` itself the
/// attributes of `from`.
///
/// `from` must not change meanwhile. What is mounted inside it is refused (`EXDEV`).
///
/// # Errors
/// Those of the kernel; `EEXIST` if `to` is not empty. `to` is then a part of the tree and to be removed.
pub fn clone_tree(from: &Path, to: &Path) -> io::Result<Cloned> {
    let mut cloner =
        Cloner { contents: Contents::default(), copier: Copier::new(), links: HashMap::new(), inodes: 0 };
    let mut pending = vec![(Place::root(from)?, Place::root(to)?)];
    while let Some((source, target)) = pending.pop() {
        cloner.directory(source, target, &mut pending)?;
    }
    Ok(Cloned { inodes: cloner.inodes, how: cloner.contents.how() })
}

/// A copy under way.
struct Cloner {
    contents: Contents,
    copier: Copier,
    /// Where the first name of a file of several names was made, by its inode in the source.
    links: HashMap<u64, Place>,
    inodes: u64,
}

impl Cloner {
    /// Copies what is directly in one directory, notes the directories below, and ends with its attributes: making the
    /// entries changes its time, and what it would hand down to them (a group, an ACL) must not be there yet.
    fn directory(
        &mut self,
        source: Place,
        target: Place,
        pending: &mut Vec<(Place, Place)>,
    ) -> io::Result<()> {
        let (from, source) = source.open()?;
        let (to, target) = target.open()?;
        for entry in Dir::read_from(&from)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let facts = rustix::fs::statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(facts.st_mode) == FileType::Directory {
                rustix::fs::mkdirat(&to, name, Mode::RWXU)?;
                self.inodes += 1;
                pending.push((source.child(name), target.child(name)));
            } else if facts.st_nlink > 1 {
                self.one_of_several(&from, &to, &target, name, &facts)?;
            } else {
                self.entry(&from, &to, name, &facts)?;
            }
        }
        self.copier.directory(&from, &to, Which::All)
    }

    /// A file of several names: the first is copied, the others are linked to it.
    fn one_of_several(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        target: &Place,
        name: &[u8],
        facts: &Stat,
    ) -> io::Result<()> {
        if let Some(first) = self.links.get(&facts.st_ino) {
            return Ok(rustix::fs::linkat(first.base(), first.path(), to, name, AtFlags::empty())?);
        }
        self.entry(from, to, name, facts)?;
        self.links.insert(facts.st_ino, target.child(name));
        Ok(())
    }

    fn entry(&mut self, from: &OwnedFd, to: &OwnedFd, name: &[u8], facts: &Stat) -> io::Result<()> {
        self.inodes += 1;
        match FileType::from_raw_mode(facts.st_mode) {
            FileType::RegularFile => {
                let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let source = rustix::fs::openat(from, name, read, Mode::empty())?;
                let facts = &rustix::fs::fstat(&source)?;
                let make = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let made = rustix::fs::openat(to, name, make, Mode::RUSR | Mode::WUSR)?;
                self.contents.copy(&source, &made, facts)?;
                self.copier.open(&source, facts, &made, Which::All)
            }
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(&*link, to, name)?;
                self.copier.named(from, facts, to, name)
            }
            kind => {
                rustix::fs::mknodat(to, name, kind, Mode::empty(), facts.st_rdev)?;
                self.copier.named(from, facts, to, name)
            }
        }
    }
}
