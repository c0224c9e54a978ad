//! Owner, mode, extended attributes and times of an entry, and the file that takes them at its end.

use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

/// A point in time: seconds since 1970 (may be negative) and nanoseconds below 10^9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds after these, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// What an entry is given besides its content.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// Permission, set-ID and sticky bits: `mode & 0o7777` counts.
    pub mode: u32,
    /// Owner; not `u32::MAX`, which the kernel reads as "leave it".
    pub uid: u32,
    /// Group; not `u32::MAX`.
    pub gid: u32,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last access.
    pub atime: Timestamp,
    /// Extended attributes, name and value, set after owner and mode.
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

impl Attributes<'_> {
    pub(super) fn owner(&self) -> (Uid, Gid) {
        (Uid::from_raw(self.uid), Gid::from_raw(self.gid))
    }

    pub(super) fn full_mode(&self) -> Mode {
        Mode::from_raw_mode(self.mode & 0o7777)
    }

    pub(super) fn timestamps(&self) -> Timestamps {
        let spec = |at: Timestamp| Timespec { tv_sec: at.seconds, tv_nsec: i64::from(at.nanoseconds) };
        Timestamps { last_access: spec(self.atime), last_modification: spec(self.mtime) }
    }

    /// Lets pass what no file system could do: attributes it does not know, and `user.*` on what is neither file nor
    /// directory (`special`), which the kernel forbids.
    pub(super) fn tolerate(&self, name: &[u8], set: io::Result<()>, special: bool) -> io::Result<()> {
        match set {
            Err(error) if is(&error, Errno::OPNOTSUPP) => Ok(()),
            Err(error) if special && is(&error, Errno::PERM) && name.starts_with(b"user.") => Ok(()),
            set => set,
        }
    }

    /// Gives them to an open file or directory: owner, mode, attributes, times, because each may undo a later one.
    fn apply(&self, fd: &impl AsFd, owner: bool, mode: bool) -> io::Result<()> {
        if owner {
            let (uid, gid) = self.owner();
            rustix::fs::fchown(fd, Some(uid), Some(gid))?;
        }
        if mode {
            rustix::fs::fchmod(fd, self.full_mode())?;
        }
        for (name, value) in self.xattrs {
            let set = rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty());
            self.tolerate(name, set.map_err(io::Error::from), false)?;
        }
        Ok(rustix::fs::futimens(fd, &self.timestamps())?)
    }

    pub(super) fn keep(self) -> OwnedAttributes {
        OwnedAttributes { fixed: Attributes { xattrs: &[], ..self }, xattrs: self.xattrs.to_vec() }
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// Attributes that wait.
#[derive(Debug)]
pub(super) struct OwnedAttributes {
    pub(super) fixed: Attributes<'static>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl OwnedAttributes {
    /// About what it takes in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let lists: usize = self.xattrs.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
        size_of::<Self>() + lists
    }

    pub(super) fn apply_to_directory(&self, fd: &OwnedFd) -> io::Result<()> {
        Attributes { xattrs: &self.xattrs, ..self.fixed }.apply(fd, true, true)
    }

    /// Takes away what the directory had before and does not have in these attributes, labels of the machine excepted.
    pub(super) fn replace_in_directory(&self, fd: &OwnedFd) -> io::Result<()> {
        let mut names = vec![0; rustix::fs::flistxattr_query(fd).unwrap_or(0)];
        let length = if names.is_empty() { 0 } else { rustix::fs::flistxattr(fd, &mut names[..])? };
        for name in names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            let kept = self.xattrs.iter().any(|(other, _)| other == name);
            if !kept && !name.starts_with(b"security.") {
                rustix::fs::fremovexattr(fd, name)?;
            }
        }
        self.apply_to_directory(fd)
    }
}

/// A file that was just made and is being written.
#[derive(Debug)]
pub struct NewFile {
    file: std::fs::File,
    takes_group: bool,
    chmod_always: bool,
    /// Bytes written, without holes.
    data_bytes: u64,
    ends_in_hole: bool,
    length: u64,
}

impl NewFile {
    pub(super) fn new(fd: OwnedFd, takes_group: bool, chmod_always: bool) -> Self {
        Self { file: fd.into(), takes_group, chmod_always, data_bytes: 0, ends_in_hole: false, length: 0 }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// Those of `write(2)`: no space, quota, input or output.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.data_bytes += bytes.len() as u64;
        self.length += bytes.len() as u64;
        self.ends_in_hole = false;
        Ok(())
    }

    /// Appends `bytes` zeros that take no space.
    ///
    /// # Errors
    /// `EFBIG` past the largest file offset, and those of the kernel.
    pub fn hole(&mut self, bytes: u64) -> io::Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let end =
            self.length.checked_add(bytes).filter(|end| i64::try_from(*end).is_ok()).ok_or(Errno::FBIG)?;
        io::Seek::seek(&mut self.file, io::SeekFrom::Start(end))?;
        self.length = end;
        self.ends_in_hole = true;
        Ok(())
    }

    /// Gives the file its attributes; returns it with the bytes of data written. `ours` are the effective IDs of the
    /// process, which the file has already unless its directory gave it a group.
    pub(super) fn finish(
        self,
        attributes: &Attributes<'_>,
        ours: (u32, u32),
    ) -> io::Result<(std::fs::File, u64)> {
        if self.ends_in_hole {
            rustix::fs::ftruncate(&self.file, self.length)?;
        }
        let owner = self.takes_group || ours != (attributes.uid, attributes.gid);
        let mode = self.chmod_always || attributes.mode & 0o7000 != 0;
        attributes.apply(&self.file, owner, mode)?;
        Ok((self.file, self.data_bytes))
    }
}

/// An extended attribute of `path` itself, never of what a link leads to; `None` if it has none of that name.
///
/// # Errors
/// Those of `lgetxattr(2)`.
pub fn read_xattr(path: &std::path::Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; 65536];
    match rustix::fs::lgetxattr(path, name, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
