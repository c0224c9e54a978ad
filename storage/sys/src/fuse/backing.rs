//! Files the kernel reads by itself (`FUSE_PASSTHROUGH`, Linux 6.9): registering one with a connection.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::Device;

/// `_IOW(229, 1, struct fuse_backing_map)`: 16 bytes.
const BACKING_OPEN: libc::Ioctl = (1 << 30) | (16 << 16) | (229 << 8) | 1;

/// `_IOW(229, 2, uint32_t)`.
const BACKING_CLOSE: libc::Ioctl = (1 << 30) | (4 << 16) | (229 << 8) | 2;

/// `struct fuse_backing_map`.
#[repr(C)]
struct BackingMap {
    fd: i32,
    flags: u32,
    padding: u64,
}

/// Number of a registered file within its connection, above 0.
pub type BackingId = u32;

impl Device {
    /// Registers `file` to be read by the kernel itself for whoever opens a node with the returned number. The kernel
    /// keeps it open until [`Device::close_backing`] or the end of the connection; `file` may be closed.
    ///
    /// # Errors
    /// `EPERM` without CAP_SYS_ADMIN, `ELOOP` for a file on a stacked file system, `EOPNOTSUPP` where the file cannot be
    /// read that way or the connection was not opened for it.
    pub fn open_backing(&self, file: impl AsFd) -> io::Result<BackingId> {
        let map = BackingMap { fd: file.as_fd().as_raw_fd(), flags: 0, padding: 0 };
        // SAFETY: BACKING_OPEN is declared as writing 16 bytes to the kernel, which is the size of `map`, a struct of C
        // layout without padding that lives until after the call; the kernel writes to no memory of ours. Both
        // descriptors stay open for the whole call because `self` and `file` are borrowed or owned across it.
        let id = unsafe { libc::ioctl(self.as_fd().as_raw_fd(), BACKING_OPEN, &raw const map) };
        if id > 0 { Ok(id.unsigned_abs()) } else { Err(io::Error::last_os_error()) }
    }

    /// Gives a registered file up. Those who have it open go on reading it.
    ///
    /// # Errors
    /// `ENOENT` when it is not registered.
    pub fn close_backing(&self, id: BackingId) -> io::Result<()> {
        // SAFETY: BACKING_CLOSE is declared as writing 4 bytes to the kernel, which is the size of `id`; it lives until
        // after the call and the kernel writes to no memory of ours. The device stays open because `self` is borrowed.
        let result = unsafe { libc::ioctl(self.as_fd().as_raw_fd(), BACKING_CLOSE, &raw const id) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
