//! Removes a tree through descriptors, however deep, with at most three of them open and no recursion.
//!
//! Depth is turned into breadth: a directory that is not empty is moved up into the directory being removed, so no
//! path grows, `..` is never used, and a directory swapped for a link under way is unlinked, not followed
//! (CVE-2022-21658).
//!
//! `remove_dir_all` of the standard library recurses with one descriptor a level: 10^5 levels end it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Inodes that lost their last name.
    pub inodes: u64,
    /// Bytes on disk these took.
    pub disk_bytes: u64,
    /// The name was a directory's.
    pub directory: bool,
}

/// Names read from a directory before they are acted on: bounds the memory for directories of any size.
const BATCH: usize = 4096;

/// Removes `path` and all that is below it. The directory it lies in is trusted; what is below is not.
///
/// # Errors
/// `ENOENT` if nothing has that name; `EINVAL` if the path has no last name; those of the kernel (`EBUSY` for a mount
/// point). What was removed before stays removed.
pub fn remove_all(path: &Path) -> io::Result<Removed> {
    let leaf: &OsStr = path.file_name().ok_or(Errno::INVAL)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = rustix::fs::open(directory, flags, Mode::empty())?;
    remove(&parent, leaf.as_bytes())
}

/// Removes one name of `parent`, with all that is below it.
pub(super) fn remove(parent: &OwnedFd, leaf: &[u8]) -> io::Result<Removed> {
    let mut removed = Removed::default();
    if remove_leaf(parent, leaf, &mut removed)? == Left::Gone {
        return Ok(removed);
    }
    let top = open_directory(parent, leaf)?;
    let mut moved = 0u64;
    loop {
        let names = batch(&top)?;
        if names.is_empty() {
            break;
        }
        for name in names {
            if remove_if_there(&top, &name, &mut removed)? == Left::Full {
                empty_into(&top, &name, &mut moved, &mut removed)?;
                remove_if_there(&top, &name, &mut removed)?;
            }
        }
    }
    match remove_leaf(parent, leaf, &mut removed)? {
        Left::Gone => Ok(Removed { directory: true, ..removed }),
        Left::Full => Err(Errno::NOTEMPTY.into()),
    }
}

/// Empties the directory `name` of `top`: what is not empty below it moves up into `top`.
fn empty_into(top: &OwnedFd, name: &[u8], moved: &mut u64, removed: &mut Removed) -> io::Result<()> {
    let child = open_directory(top, name)?;
    loop {
        let names = batch(&child)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            if remove_if_there(&child, &name, removed)? == Left::Full {
                move_up(&child, &name, top, moved)?;
            }
        }
    }
}

fn move_up(from: &OwnedFd, name: &[u8], top: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        let free = format!(".removed-{moved}");
        match rustix::fs::renameat_with(from, name, top, &*free, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            Err(Errno::NOENT) => return Ok(()),
            done => return Ok(done?),
        }
    }
}

#[derive(PartialEq, Eq)]
enum Left {
    Gone,
    Full,
}

/// As [`remove_leaf`], but a name that somebody else removed meanwhile is gone.
fn remove_if_there(parent: &OwnedFd, name: &[u8], removed: &mut Removed) -> io::Result<Left> {
    match remove_leaf(parent, name, removed) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Left::Gone),
        done => done,
    }
}

/// Removes a name that is no directory or an empty one, and counts it.
fn remove_leaf(parent: &OwnedFd, name: &[u8], removed: &mut Removed) -> io::Result<Left> {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    match rustix::fs::unlinkat(parent, name, flags) {
        Ok(()) => {
            if directory || stat.st_nlink == 1 {
                removed.inodes += 1;
                removed.disk_bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
            }
            removed.directory |= directory;
            Ok(Left::Gone)
        }
        Err(Errno::NOTEMPTY | Errno::EXIST) if directory => Ok(Left::Full),
        Err(errno) => Err(errno.into()),
    }
}

fn open_directory(parent: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// Up to [`BATCH`] names of a directory, read from its start.
fn batch(directory: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
        if names.len() == BATCH {
            break;
        }
    }
    Ok(names)
}

/// All names of a directory (a descriptor that need not be readable), and whether each is a directory.
pub(super) fn list(directory: &OwnedFd) -> io::Result<Vec<(Vec<u8>, bool)>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(open_directory(directory, b".")?)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            let stat = rustix::fs::statat(directory, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)?;
            names.push((name, FileType::from_raw_mode(stat.st_mode) == FileType::Directory));
        }
    }
    Ok(names)
}
