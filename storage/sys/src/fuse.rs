//! The kernel's end of a FUSE connection, as far as `fuse-backend-rs` has it not: the first handshake, reading and
//! answering requests without an event loop, asking for lost requests again, and files the kernel reads by itself.
//!
//! Constants and layouts are those of `include/uapi/linux/fuse.h`, protocol 7.40. A [`Device`] is `/dev/fuse` opened once
//! and mounted once: a connection. It ends when its last mount is gone ([`Device::read`] gives `None`), and breaks for all
//! its users when its last descriptor is closed, which is why one is kept in another process.
//!
//! Not here: what the requests mean (`lazy-mount`, `fuse-backend-rs`), mounting (`mount`).

mod abort;
mod backing;
mod init;

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

pub use abort::{Abort, abort_connection};
pub use backing::BackingId;
pub use init::{InitAnswer, InitRequest, flags};

/// Most bytes of one read, and of one answer without its header: 256 pages, the kernel's limit for a request.
pub const READ_BYTES_MAX: u32 = 1024 * 1024;

/// Bytes of the header of a request (`struct fuse_in_header`).
pub const REQUEST_HEADER_BYTES: usize = 40;

/// Bytes of the header of an answer (`struct fuse_out_header`).
pub const ANSWER_HEADER_BYTES: usize = 16;

/// Room for any request to a file system that is never written to: the kernel's least (`FUSE_MIN_READ_BUFFER`).
pub const REQUEST_BYTES_MAX: usize = 8192;

/// `FUSE_NOTIFY_RESEND` (Linux 6.9).
const NOTIFY_RESEND: i32 = 7;

/// One descriptor of a connection.
#[derive(Debug)]
pub struct Device(File);

impl Device {
    /// Opens `/dev/fuse`: a connection that is not mounted yet.
    ///
    /// # Errors
    /// Those of opening it: `ENOENT` or `ENODEV` where the kernel has no FUSE.
    pub fn open() -> io::Result<Self> {
        File::options().read(true).write(true).open("/dev/fuse").map(Self)
    }

    /// Another descriptor of the same connection, close-on-exec.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Waits for a request and reads it into `buffer`, which must have at least [`REQUEST_BYTES_MAX`] bytes. One waiting
    /// thread is woken for each request. `None` when the connection has ended.
    ///
    /// # Errors
    /// `EINVAL` for a smaller buffer, `EPERM` when it was never mounted, `ECONNABORTED` when it was aborted.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match rustix::io::read(&self.0, &mut *buffer) {
                Ok(count) => return Ok(Some(count)),
                Err(Errno::NODEV) => return Ok(None),
                // ENOENT: the request was taken back before it could be read.
                Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends an answer that is complete, header and all.
    ///
    /// # Errors
    /// `ENOENT` when nobody waits for it any more, `EINVAL` for one that is malformed.
    pub fn write(&self, answer: &[u8]) -> io::Result<()> {
        rustix::io::write(&self.0, answer)?;
        Ok(())
    }

    /// Answers the request `unique` with data.
    ///
    /// # Errors
    /// As [`Device::write`].
    pub fn answer(&self, unique: u64, data: &[u8]) -> io::Result<()> {
        let header = answer_header(ANSWER_HEADER_BYTES + data.len(), 0, unique);
        rustix::io::writev(&self.0, &[IoSlice::new(&header), IoSlice::new(data)])?;
        Ok(())
    }

    /// Answers the request `unique` with an error number, positive as in `errno.h`.
    ///
    /// # Errors
    /// As [`Device::write`].
    pub fn refuse(&self, unique: u64, errno: i32) -> io::Result<()> {
        self.write(&answer_header(ANSWER_HEADER_BYTES, -errno, unique))
    }

    /// Asks the kernel to give all requests again that were read by anybody and not answered.
    ///
    /// # Errors
    /// `EINVAL` before Linux 6.9.
    pub fn resend(&self) -> io::Result<()> {
        self.write(&answer_header(ANSWER_HEADER_BYTES, NOTIFY_RESEND, 0))
    }
}

impl From<OwnedFd> for Device {
    fn from(descriptor: OwnedFd) -> Self {
        Self(File::from(descriptor))
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The header of an answer of `length` bytes, itself included (`struct fuse_out_header`).
pub fn answer_header(length: usize, error: i32, unique: u64) -> [u8; ANSWER_HEADER_BYTES] {
    let mut header = [0; ANSWER_HEADER_BYTES];
    header[..4].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    header[4..8].copy_from_slice(&error.to_ne_bytes());
    header[8..].copy_from_slice(&unique.to_ne_bytes());
    header
}

/// The header of a request (`struct fuse_in_header`), as far as it is needed before somebody else parses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    /// Bytes of the request, this header included.
    pub length: u32,
    /// What is asked.
    pub opcode: u32,
    /// Number of the request; its highest bit says that it was sent before ([`Device::resend`]).
    pub unique: u64,
    /// The node it is about.
    pub node: u64,
}

impl RequestHeader {
    /// The header of `request`; `None` if it is shorter than one.
    pub fn parse(request: &[u8]) -> Option<Self> {
        Some(Self {
            length: u32_at(request, 0)?,
            opcode: u32_at(request, 4)?,
            unique: u64_at(request, 8)?,
            node: u64_at(request, 16)?,
        })
        .filter(|_| request.len() >= REQUEST_HEADER_BYTES)
    }
}

/// What a read asks (`struct fuse_read_in`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRequest {
    /// First byte.
    pub offset: u64,
    /// Bytes, at most [`READ_BYTES_MAX`] on a connection that was mounted with this limit.
    pub size: u32,
}

impl ReadRequest {
    /// The read in `request`, its header included; `None` if it is too short.
    pub fn parse(request: &[u8]) -> Option<Self> {
        let body = request.get(REQUEST_HEADER_BYTES..)?;
        Some(Self { offset: u64_at(body, 8)?, size: u32_at(body, 16)? })
    }
}

/// Error numbers a file system answers with.
pub mod errno {
    /// The bytes cannot be had, or not verified.
    pub const IO: i32 = libc::EIO;
    /// Wrong kind of node for this.
    pub const INVAL: i32 = libc::EINVAL;
    /// A name too long.
    pub const NAMETOOLONG: i32 = libc::ENAMETOOLONG;
    /// No such extended attribute.
    pub const NODATA: i32 = libc::ENODATA;
    /// Never asked again by the kernel.
    pub const NOSYS: i32 = libc::ENOSYS;
    /// A number too large for its field.
    pub const OVERFLOW: i32 = libc::EOVERFLOW;
    /// The room given is too small.
    pub const RANGE: i32 = libc::ERANGE;
    /// No such node.
    pub const STALE: i32 = libc::ESTALE;
    /// An answer too large.
    pub const TOOBIG: i32 = libc::E2BIG;
}

/// The answer's body to an open (`struct fuse_open_out`): no handle, cached pages stay valid, and with `backing` the
/// kernel reads that file by itself.
pub fn open_answer(backing: Option<BackingId>) -> [u8; 16] {
    /// `FOPEN_KEEP_CACHE`.
    const KEEP_CACHE: u32 = 1 << 1;
    /// `FOPEN_PASSTHROUGH`.
    const PASSTHROUGH: u32 = 1 << 7;
    let flags = if backing.is_some() { PASSTHROUGH } else { KEEP_CACHE };
    let mut body = [0; 16];
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..].copy_from_slice(&backing.unwrap_or(0).to_ne_bytes());
    body
}

/// Whether `path` lies on a FUSE file system.
///
/// # Errors
/// Those of `statfs`.
pub fn is_on_fuse(path: &std::path::Path) -> io::Result<bool> {
    /// `FUSE_SUPER_MAGIC`.
    const MAGIC: u64 = 0x6573_5546;
    Ok(rustix::fs::statfs(path)?.f_type as u64 == MAGIC)
}

/// The device number of a major and a minor number.
pub fn device_number(major: u32, minor: u32) -> u64 {
    rustix::fs::makedev(major, minor)
}

/// Major and minor number of the device of a mount's file system. The file system itself is not asked, so this works before
/// anybody serves it.
///
/// # Errors
/// Those of `statx`.
pub fn mount_device(mount: impl AsFd) -> io::Result<(u32, u32)> {
    use rustix::fs::{AtFlags, StatxFlags};
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let answer = rustix::fs::statx(mount, "", flags, StatxFlags::empty())?;
    Ok((answer.stx_dev_major, answer.stx_dev_minor))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_laid_out_as_the_kernel_has_them() {
        let header = answer_header(20, -5, 0x0102_0304_0506_0708);
        assert_eq!(u32_at(&header, 0), Some(20));
        assert_eq!(u32_at(&header, 4), Some((-5i32) as u32));
        assert_eq!(u64_at(&header, 8), Some(0x0102_0304_0506_0708));
        let mut request = vec![0; REQUEST_HEADER_BYTES + 40];
        request[4..8].copy_from_slice(&15u32.to_ne_bytes());
        request[16..24].copy_from_slice(&7u64.to_ne_bytes());
        request[48..56].copy_from_slice(&4096u64.to_ne_bytes());
        request[56..60].copy_from_slice(&100u32.to_ne_bytes());
        let parsed = RequestHeader::parse(&request).unwrap();
        assert_eq!((parsed.opcode, parsed.node), (15, 7));
        assert_eq!(ReadRequest::parse(&request), Some(ReadRequest { offset: 4096, size: 100 }));
        for length in 0..60 {
            assert!(ReadRequest::parse(&request[..length]).is_none(), "{length}");
        }
        assert!(RequestHeader::parse(&request[..39]).is_none());
    }
}
