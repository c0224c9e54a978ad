//! An overlay's upper directory made part of a whole tree.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, Stat};
use rustix::io::Errno;

use super::attributes::{Copier, Which, magic};
use crate::place::Place;

/// Marks a directory that hides what lower layers have in it.
const OPAQUE: &str = "trusted.overlay.opaque";

/// Puts what lies in `layer`, in the form of an overlay's upper directory, on the whole tree `onto`, so that this shows
/// what an overlay of both would show: a character device 0:0 deletes, an opaque directory replaces, anything else hides
/// what had its name, and directories meet. Both lie on one file system.
///
/// Nothing is copied and `layer` does not change: its files get a second name in `onto`. The top directory of `onto` keeps
/// its attributes. Attributes of directories are those of `layer`, without overlayfs's own.
///
/// # Errors
/// Those of the kernel: `EMLINK` for a file of too many names. `onto` is then neither of both and to be removed.
pub fn merge_layer(layer: &Path, onto: &Path) -> io::Result<()> {
    let mut copier = Copier::new();
    let mut pending = vec![(Place::root(layer)?, Place::root(onto)?)];
    let mut top = true;
    while let Some((source, target)) = pending.pop() {
        let (from, source) = source.open()?;
        let (to, target) = target.open()?;
        for entry in Dir::read_from(&from)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") && merge_one(&from, &to, name)? == Met::Directories {
                pending.push((source.child(name), target.child(name)));
            }
        }
        if !top {
            copier.directory(&from, &to, Which::NotOverlays)?;
        }
        top = false;
    }
    Ok(())
}

/// What an entry of a layer met.
#[derive(PartialEq, Eq)]
enum Met {
    /// It is a directory, and there is one for it: what is in it comes next.
    Directories,
    /// It is done.
    Done,
}

fn merge_one(from: &OwnedFd, to: &OwnedFd, name: &[u8]) -> io::Result<Met> {
    let facts = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if is_whiteout(&facts) {
        remove(to, name)?;
        return Ok(Met::Done);
    }
    if FileType::from_raw_mode(facts.st_mode) == FileType::Directory {
        let there = rustix::fs::statat(to, name, AtFlags::SYMLINK_NOFOLLOW);
        let meets = there.is_ok_and(|it| FileType::from_raw_mode(it.st_mode) == FileType::Directory);
        if !meets || is_opaque(from, name)? {
            remove(to, name)?;
            rustix::fs::mkdirat(to, name, Mode::RWXU)?;
        }
        return Ok(Met::Directories);
    }
    loop {
        match rustix::fs::linkat(from, name, to, name, AtFlags::empty()) {
            Err(Errno::EXIST) => remove(to, name)?,
            linked => return Ok(linked.map(|()| Met::Done)?),
        }
    }
}

/// Whether something in `layer` is only there to hide what is below: as a lowest layer it is not a whole tree then.
///
/// # Errors
/// Those of the kernel.
pub fn has_whiteouts(layer: &Path) -> io::Result<bool> {
    let mut pending = vec![Place::root(layer)?];
    while let Some(place) = pending.pop() {
        let (directory, place) = place.open()?;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            match entry.file_type() {
                FileType::Directory => {}
                // Some file systems do not say here what an entry is.
                FileType::CharacterDevice | FileType::Unknown => {
                    let facts = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    if is_whiteout(&facts) {
                        return Ok(true);
                    }
                    if FileType::from_raw_mode(facts.st_mode) != FileType::Directory {
                        continue;
                    }
                }
                _ => continue,
            }
            if is_opaque(&directory, name)? {
                return Ok(true);
            }
            pending.push(place.child(name));
        }
    }
    Ok(false)
}

fn is_whiteout(facts: &Stat) -> bool {
    FileType::from_raw_mode(facts.st_mode) == FileType::CharacterDevice && facts.st_rdev == 0
}

fn is_opaque(parent: &OwnedFd, name: &[u8]) -> io::Result<bool> {
    let mut value = [0; 8];
    match rustix::fs::lgetxattr(magic(parent, name), OPAQUE, &mut value[..]) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        // Longer than any value of overlayfs.
        Err(Errno::RANGE) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes a name and what is below it, if it is there.
fn remove(parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
    let path = magic(parent, name);
    match crate::tree::remove_all(Path::new(std::ffi::OsStr::from_bytes(&path))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
