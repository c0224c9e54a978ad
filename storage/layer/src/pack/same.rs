//! Whether two entries are the same, and which extended attributes count.

use std::io::{self, Read};

use storage_sys::tree::{EntryPath, Facts, Kind, View};

use super::error::{PackError, reading};
use crate::escape::is_a_label;
use crate::tar::Xattrs;

/// The extended attributes of an entry that are the image's.
pub(super) fn image_xattrs(view: &mut View, path: &EntryPath) -> Result<Xattrs, PackError> {
    let mut xattrs = view.xattrs(path).map_err(reading(path, "read the extended attributes of"))?;
    xattrs.retain(|(name, _)| !is_a_label(name));
    Ok(xattrs)
}

/// One side of a comparison.
pub(super) struct Side<'a> {
    pub(super) view: &'a mut View,
    pub(super) facts: &'a Facts,
    pub(super) xattrs: &'a Xattrs,
}

/// Whether an entry is the same on both sides: kind, mode, owner, device, attributes; for all but directories also
/// size, target, time and, where times may hide a change, content.
pub(super) fn same(path: &EntryPath, one: Side<'_>, other: Side<'_>) -> Result<bool, PackError> {
    let (a, b) = (one.facts, other.facts);
    let outside = |facts: &Facts| (facts.kind, facts.mode, facts.uid, facts.gid, facts.device);
    if outside(a) != outside(b) || one.xattrs != other.xattrs {
        return Ok(false);
    }
    match a.kind {
        // The time of the root changes with every mount that is prepared for it.
        Kind::Directory => Ok(path.is_root() || a.mtime == b.mtime),
        Kind::Symlink => {
            let target =
                |view: &mut View| view.read_link(path).map_err(reading(path, "read the symbolic link"));
            Ok(a.mtime == b.mtime && target(one.view)? == target(other.view)?)
        }
        Kind::File => {
            if a.size != b.size || a.mtime != b.mtime {
                return Ok(false);
            }
            // Whole seconds come from an archive, and a second is long. An inode seen through two overlays keeps its
            // number and its change time, which nobody can set: then it is one file.
            let unread = a.mtime.nanoseconds != 0 || (a.inode, a.ctime) == (b.inode, b.ctime);
            Ok(unread || same_content(path, one.view, other.view)?)
        }
        _ => Ok(a.mtime == b.mtime),
    }
}

fn same_content(path: &EntryPath, one: &mut View, other: &mut View) -> Result<bool, PackError> {
    let open = |view: &mut View| view.file(path).map_err(reading(path, "open"));
    let (mut one, mut other) = (open(one)?, open(other)?);
    let mut buffers = (vec![0; 128 * 1024], vec![0; 128 * 1024]);
    loop {
        let a = fill(&mut one, &mut buffers.0).map_err(reading(path, "read"))?;
        let b = fill(&mut other, &mut buffers.1).map_err(reading(path, "read"))?;
        if buffers.0[..a] != buffers.1[..b] {
            return Ok(false);
        }
        if a == 0 {
            return Ok(true);
        }
    }
}

fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
