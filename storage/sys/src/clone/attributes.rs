//! Owner, mode, extended attributes and times, from one entry to another.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

/// Which extended attributes are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// All.
    All,
    /// All but overlayfs's own (`trusted.overlay.*`), and what the target has beside them goes. An image's attributes in
    /// that space were escaped (`trusted.overlay.overlay.*`) when it was unpacked, and stay so.
    NotOverlays,
}

impl Which {
    fn leaves_out(self, name: &[u8]) -> bool {
        let own = name.strip_prefix(b"trusted.overlay.").is_some_and(|rest| !rest.starts_with(b"overlay."));
        self == Self::NotOverlays && own
    }
}

/// Copies attributes; keeps its buffers.
#[derive(Debug)]
pub(super) struct Copier {
    /// Whom a new file belongs to.
    ours: (u32, u32),
    names: Vec<u8>,
    value: Vec<u8>,
}

/// Longest list of names and longest value: the kernel's `XATTR_LIST_MAX` and `XATTR_SIZE_MAX`.
const XATTR_BYTES_MAX: usize = 65536;

impl Copier {
    pub(super) fn new() -> Self {
        let ours = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self { ours, names: vec![0; XATTR_BYTES_MAX], value: vec![0; XATTR_BYTES_MAX] }
    }

    /// From directory to directory.
    pub(super) fn directory(&mut self, from: &OwnedFd, to: &OwnedFd, which: Which) -> io::Result<()> {
        let facts = rustix::fs::fstat(from)?;
        // Its owner is not known to be ours: it may have been somebody else's before.
        rustix::fs::fchown(to, Some(Uid::from_raw(facts.st_uid)), Some(Gid::from_raw(facts.st_gid)))?;
        self.mode_and_rest(from, &facts, to, which)
    }

    /// From a file to one that was just made.
    pub(super) fn open(
        &mut self,
        from: &OwnedFd,
        facts: &Stat,
        to: &OwnedFd,
        which: Which,
    ) -> io::Result<()> {
        if self.ours != (facts.st_uid, facts.st_gid) {
            rustix::fs::fchown(to, Some(Uid::from_raw(facts.st_uid)), Some(Gid::from_raw(facts.st_gid)))?;
        }
        self.mode_and_rest(from, facts, to, which)
    }

    /// In this order, because each may undo a later one.
    fn mode_and_rest(&mut self, from: &OwnedFd, facts: &Stat, to: &OwnedFd, which: Which) -> io::Result<()> {
        rustix::fs::fchmod(to, Mode::from_raw_mode(facts.st_mode & 0o7777))?;
        if which == Which::NotOverlays {
            self.remove_xattrs(to)?;
        }
        let Self { names, value, .. } = self;
        let length = listed(rustix::fs::flistxattr(from, &mut names[..]))?;
        for name in split(&names[..length]) {
            if which.leaves_out(name) {
                continue;
            }
            let length = rustix::fs::fgetxattr(from, name, &mut value[..])?;
            rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty())?;
        }
        Ok(rustix::fs::futimens(to, &times(facts))?)
    }

    fn remove_xattrs(&mut self, to: &OwnedFd) -> io::Result<()> {
        let length = listed(rustix::fs::flistxattr(to, &mut self.names[..]))?;
        for name in split(&self.names[..length]) {
            match rustix::fs::fremovexattr(to, name) {
                // A security module's label stays with the file.
                Ok(()) | Err(Errno::NODATA | Errno::ACCESS | Errno::PERM | Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// From link to link, node to node, by name: these have no descriptor to act on.
    pub(super) fn named(
        &mut self,
        from: &OwnedFd,
        facts: &Stat,
        to: &OwnedFd,
        name: &[u8],
    ) -> io::Result<()> {
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        let (uid, gid) = (Uid::from_raw(facts.st_uid), Gid::from_raw(facts.st_gid));
        rustix::fs::chownat(to, name, Some(uid), Some(gid), nofollow)?;
        if FileType::from_raw_mode(facts.st_mode) != FileType::Symlink {
            // chmod of a descriptor's magic link: it cannot be led elsewhere, and works before fchmodat2 (Linux 6.6).
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let place = rustix::fs::openat(to, name, flags, Mode::empty())?;
            rustix::fs::chmod(magic(&place, b""), Mode::from_raw_mode(facts.st_mode & 0o7777))?;
        }
        let (source, target) = (magic(from, name), magic(to, name));
        let Self { names, value, .. } = self;
        let length = listed(rustix::fs::llistxattr(&*source, &mut names[..]))?;
        for name in split(&names[..length]) {
            let length = rustix::fs::lgetxattr(&*source, name, &mut value[..])?;
            rustix::fs::lsetxattr(&*target, name, &value[..length], XattrFlags::empty())?;
        }
        Ok(rustix::fs::utimensat(to, name, &times(facts), nofollow)?)
    }
}

/// Path of `name` in an open directory, for calls that take no descriptor; the link is ours.
pub(super) fn magic(directory: impl AsFd, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd()).into_bytes();
    if !name.is_empty() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    path
}

/// A file system without extended attributes has none.
fn listed(length: rustix::io::Result<usize>) -> io::Result<usize> {
    match length {
        Err(Errno::OPNOTSUPP) => Ok(0),
        length => Ok(length?),
    }
}

fn split(names: &[u8]) -> impl Iterator<Item = &[u8]> {
    names.split(|&byte| byte == 0).filter(|name| !name.is_empty())
}

fn times(facts: &Stat) -> Timestamps {
    let spec = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: spec(facts.st_atime, facts.st_atime_nsec),
        last_modification: spec(facts.st_mtime, facts.st_mtime_nsec),
    }
}
