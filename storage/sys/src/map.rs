//! A file of our own, mapped into memory to be read.
//!
//! For immutable files only: written beside their place, synced, renamed, never changed afterwards. Pages come from the
//! page cache when they are touched and go under pressure, so a map costs memory only for what is in use.
//!
//! Not here: files that grow, shrink or come from somebody else. A file that is cut off under its map kills the reader
//! with `SIGBUS`, and reading one that changes is undefined; [`Map::open`] refuses what another user could do that to.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::ptr::NonNull;

/// The bytes of an immutable file.
#[derive(Debug)]
pub struct Map {
    /// First byte of the mapping; dangling and never read if `length` is 0.
    start: NonNull<u8>,
    /// Bytes mapped, the length of the file when it was opened.
    length: usize,
}

// SAFETY: the mapping is private, is only read, and belongs to the process, not to a thread.
unsafe impl Send for Map {}
// SAFETY: as above; nothing behind `&Map` can be written.
unsafe impl Sync for Map {}

impl Map {
    /// Maps the regular file at `path`, at most `bytes_max` bytes of it, read-only.
    ///
    /// # Errors
    /// `EFBIG` if it is longer than `bytes_max`; `EPERM` if it belongs to another user than this process and root, or
    /// others may write it; `EINVAL` if it is no regular file; those of `open` and `mmap`.
    pub fn open(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let error = |errno| Err(io::Error::from_raw_os_error(errno));
        if !metadata.is_file() {
            return error(libc::EINVAL);
        }
        let ours = metadata.uid() == 0 || metadata.uid() == crate::durable::effective_user();
        if !ours || metadata.mode() & 0o022 != 0 {
            return error(libc::EPERM);
        }
        if metadata.len() > bytes_max {
            return error(libc::EFBIG);
        }
        match usize::try_from(metadata.len()) {
            Ok(0) => Ok(Self { start: NonNull::dangling(), length: 0 }),
            Ok(length) => Self::pages(&file, length),
            Err(_) => error(libc::EFBIG),
        }
    }

    /// Lets go of the memory that reading has brought in so far; what is read next comes from the page cache again.
    ///
    /// Advice: where the kernel does not take it, nothing changes.
    pub fn release(&self) {
        if self.length == 0 {
            return;
        }
        // SAFETY: the range is the mapping's own. It is private, never written and backed by a file, so pages that are
        // dropped come back with the same bytes; slices of it stay valid.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.length, libc::MADV_DONTNEED) };
    }

    fn pages(file: &File, length: usize) -> io::Result<Self> {
        // SAFETY: with a null hint the kernel chooses an address range that nothing else in this process uses, so no
        // memory of ours changes meaning. The descriptor is open for the whole call, `file` being borrowed; the mapping
        // keeps the file afterwards.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(start.cast())
            .map(|start| Self { start, length })
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` is valid for `length` bytes from `pages` until `drop` (and for none if `length` is 0), and the
        // slice cannot outlive `self`. `u8` has no alignment and no invalid value. The bytes do not change: the file is
        // one that only this user or root can write (checked when it was opened), and those, this program, replace such
        // files by rename and never write into them.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if self.length == 0 {
            return;
        }
        // SAFETY: the range is exactly what `pages` got from the kernel, it is unmapped once, and no slice of it is left
        // because each borrows `self`. The only error, a range that is none, cannot happen, so the result says nothing.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(bytes: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn a_map_shows_the_file_also_after_it_was_replaced_by_name() {
        let bytes: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
        let (file, next) = (file(&bytes, 0o644), file(b"next", 0o644));
        let map = Map::open(file.path(), 1 << 20).unwrap();
        std::fs::rename(next.path(), file.path()).unwrap();
        assert_eq!(&*map, bytes);
        map.release();
        assert_eq!(&*map, bytes);
        assert_eq!(&*Map::open(file.path(), 1 << 20).unwrap(), b"next");
    }

    #[test]
    fn an_empty_file_is_an_empty_map() {
        assert_eq!(&*Map::open(file(b"", 0o600).path(), 0).unwrap(), b"");
    }

    #[test]
    fn what_others_could_change_what_is_no_file_and_what_is_too_long_is_refused() {
        let errno = |path: &Path, max| Map::open(path, max).unwrap_err().raw_os_error();
        assert_eq!(errno(file(b"x", 0o666).path(), 9), Some(libc::EPERM));
        assert_eq!(errno(file(b"x", 0o620).path(), 9), Some(libc::EPERM));
        assert_eq!(errno(file(b"12345", 0o600).path(), 4), Some(libc::EFBIG));
        assert_eq!(errno(Path::new("/"), 9), Some(libc::EINVAL));
    }
}
