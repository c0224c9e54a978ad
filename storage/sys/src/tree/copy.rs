//! Attributes of a directory in one tree, copied to the same directory in another.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::attributes::{Attributes, OwnedAttributes, Timestamp};
use super::path::EntryPath;

/// What the source has under the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lower {
    /// A directory: its attributes were copied.
    Copied,
    /// Nothing: a tree further down may have it.
    Absent,
    /// Something else, which hides what trees further down have.
    Hidden,
}

/// Gives directory `path` of tree `to` the owner, mode, extended attributes (overlayfs's own excepted) and times it
/// has in tree `from`. Symbolic links are followed in neither.
///
/// # Errors
/// Those of opening either root or the directory in `to`, and of reading and setting attributes.
pub fn copy_directory_attributes(from: &Path, to: &Path, path: &EntryPath) -> io::Result<Lower> {
    let source = match open(from, path) {
        Ok(fd) => fd,
        Err(Errno::NOENT) if from.is_dir() => return Ok(Lower::Absent),
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Lower::Hidden),
        Err(errno) => return Err(errno.into()),
    };
    read(&source)?.apply_to_directory(&open(to, path)?)?;
    Ok(Lower::Copied)
}

fn open(root: &Path, path: &EntryPath) -> rustix::io::Result<OwnedFd> {
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let path = if path.is_root() { b".".as_slice() } else { path.as_bytes() };
    rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve)
}

fn read(fd: &OwnedFd) -> io::Result<OwnedAttributes> {
    let stat = rustix::fs::fstat(fd)?;
    let time = |seconds: i64, nanoseconds: u64| Timestamp {
        seconds,
        nanoseconds: u32::try_from(nanoseconds).unwrap_or(0),
    };
    let fixed = Attributes {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        atime: time(stat.st_atime, stat.st_atime_nsec),
        xattrs: &[],
    };
    let mut names = vec![0; rustix::fs::flistxattr_query(fd).unwrap_or(0)];
    let length = if names.is_empty() { 0 } else { rustix::fs::flistxattr(fd, &mut names[..])? };
    let mut xattrs = Vec::new();
    for name in names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        if !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay.") {
            let mut value = vec![0; rustix::fs::fgetxattr_query(fd, name)?];
            let length = rustix::fs::fgetxattr(fd, name, &mut value[..])?;
            value.truncate(length);
            xattrs.push((name.to_vec(), value));
        }
    }
    Ok(OwnedAttributes { fixed, xattrs })
}
