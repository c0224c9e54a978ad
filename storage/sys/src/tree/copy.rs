//! Attributes of a directory in one tree, copied to the same directory in another.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::OPAQUE;
use super::attributes::{Attributes, OwnedAttributes, Timestamp};
use super::path::EntryPath;

/// What a layer of an overlay has under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lower {
    /// A directory: its attributes were copied.
    Copied,
    /// Nothing: a layer further down may have it.
    Absent,
    /// Something else, a whiteout, or nothing in a directory that is opaque: what layers further down have is hidden.
    Hidden,
}

/// Gives directory `path` of layer `to` the owner, mode, extended attributes (overlayfs's own excepted) and times it
/// has in layer `from`. Symbolic links are followed in neither.
///
/// # Errors
/// Those of opening either root or the directory in `to`, and of reading and setting attributes.
pub fn copy_directory_attributes(from: &Path, to: &Path, path: &EntryPath) -> io::Result<Lower> {
    let source = match open(from, path) {
        Ok(fd) => fd,
        Err(Errno::NOENT) if from.is_dir() => {
            return Ok(if hides_below(from, path)? { Lower::Hidden } else { Lower::Absent });
        }
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Lower::Hidden),
        Err(errno) => return Err(errno.into()),
    };
    let mut attributes = read_all(&source)?;
    let own = |name: &[u8]| name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    let escaped = |name: &[u8]| {
        name.starts_with(b"trusted.overlay.overlay.") || name.starts_with(b"user.overlay.overlay.")
    };
    attributes.xattrs.retain(|(name, _)| !own(name) || escaped(name));
    attributes.apply_to_directory(&open(to, path)?)?;
    Ok(Lower::Copied)
}

/// Whether an overlay layer hides what layers further down have at `path`: a directory on the way (`path` itself does
/// not count) is opaque, or something on the way is no directory.
///
/// # Errors
/// Those of opening the root and of reading attributes.
pub fn hides_below(layer: &Path, path: &EntryPath) -> io::Result<bool> {
    let mut above = Vec::new();
    let mut next = path.clone();
    while !next.is_root() {
        next = next.parent();
        above.push(next.clone());
    }
    for directory in above.into_iter().rev() {
        let fd = match open(layer, &directory) {
            Ok(fd) => fd,
            Err(Errno::NOENT) if !directory.is_root() => return Ok(false),
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        };
        let mut value = [0; 1];
        match rustix::fs::fgetxattr(&fd, OPAQUE, &mut value[..]) {
            Ok(_) if value == *b"y" => return Ok(true),
            Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(false)
}

pub(super) fn open(root: &Path, path: &EntryPath) -> rustix::io::Result<OwnedFd> {
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let path = if path.is_root() { b".".as_slice() } else { path.as_bytes() };
    rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve)
}

/// All attributes of an open directory.
pub(super) fn read_all(fd: &OwnedFd) -> io::Result<OwnedAttributes> {
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
        let mut value = vec![0; rustix::fs::fgetxattr_query(fd, name)?];
        let length = if value.is_empty() { 0 } else { rustix::fs::fgetxattr(fd, name, &mut value[..])? };
        value.truncate(length);
        xattrs.push((name.to_vec(), value));
    }
    Ok(OwnedAttributes { fixed, xattrs })
}
