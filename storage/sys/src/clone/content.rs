//! The bytes of one file, by the cheapest way that the file system has.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{SeekFrom, Stat};
use rustix::io::Errno;

/// How contents are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// `FICLONE`: both files have the same blocks until one is written to.
    Shared,
    /// `copy_file_range`: inside the kernel.
    Kernel,
    /// Read and written.
    Plain,
}

/// Most bytes of one `copy_file_range`, so that a signal or a stop is noticed now and then.
const RANGE_BYTES_MAX: u64 = 1 << 30;
/// Bytes read and written at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// Copies contents, and remembers what the file system refused: it is asked for one file, not for each.
#[derive(Debug)]
pub(super) struct Contents {
    how: How,
    buffer: Vec<u8>,
}

impl Default for Contents {
    fn default() -> Self {
        Self { how: How::Shared, buffer: Vec::new() }
    }
}

impl Contents {
    pub(super) fn how(&self) -> How {
        self.how
    }

    /// Gives the new file `to` the contents of `from`, of which `facts` tells.
    pub(super) fn copy(&mut self, from: &OwnedFd, to: &OwnedFd, facts: &Stat) -> io::Result<()> {
        let length = u64::try_from(facts.st_size).unwrap_or(0);
        if length == 0 {
            return Ok(());
        }
        if self.how == How::Shared {
            match rustix::fs::ioctl_ficlone(to, from) {
                Ok(()) => return Ok(()),
                // Not this file system, or not these two files (other mount options).
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::XDEV | Errno::NOTTY | Errno::NOSYS) => {
                    self.how = How::Kernel;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        let is_sparse = u64::try_from(facts.st_blocks).unwrap_or(0).saturating_mul(512) < length;
        if !is_sparse {
            return self.range(from, to, 0, length);
        }
        rustix::fs::ftruncate(to, length)?;
        let mut at = 0;
        while let Some((begin, end)) = next_data(from, at, length)? {
            self.range(from, to, begin, end)?;
            at = end;
        }
        Ok(())
    }

    /// Copies the bytes from `at` up to `end`.
    fn range(&mut self, from: &OwnedFd, to: &OwnedFd, mut at: u64, end: u64) -> io::Result<()> {
        while at < end && self.how != How::Plain {
            let (mut read, mut written) = (at, at);
            let wanted = usize::try_from((end - at).min(RANGE_BYTES_MAX)).unwrap_or(usize::MAX);
            match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), wanted) {
                // Shorter than it was: copied as it is found.
                Ok(0) => return Ok(()),
                Ok(copied) => at += copied as u64,
                Err(Errno::INTR) => {}
                Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::PERM) => {
                    self.how = How::Plain;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        if at < end { self.read_and_write(from, to, at, end) } else { Ok(()) }
    }

    fn read_and_write(&mut self, from: impl AsFd, to: impl AsFd, mut at: u64, end: u64) -> io::Result<()> {
        self.buffer.resize(BUFFER_BYTES, 0);
        while at < end {
            let wanted = usize::try_from(end - at).map_or(BUFFER_BYTES, |left| left.min(BUFFER_BYTES));
            let read = match rustix::io::pread(&from, &mut self.buffer[..wanted], at) {
                Err(Errno::INTR) => continue,
                read => read?,
            };
            if read == 0 {
                break;
            }
            let mut written = 0;
            while written < read {
                match rustix::io::pwrite(&to, &self.buffer[written..read], at + written as u64) {
                    Err(Errno::INTR) => {}
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    done => written += done?,
                }
            }
            at += read as u64;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn only(how: How) -> Self {
        Self { how, buffer: Vec::new() }
    }
}

/// The next bytes from `at` on that are no hole; all of the rest where the file system cannot tell.
fn next_data(file: &OwnedFd, at: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= length {
        return Ok(None);
    }
    let begin = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(begin) => begin,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((at, length))),
        Err(errno) => return Err(errno.into()),
    };
    let end = rustix::fs::seek(file, SeekFrom::Hole(begin))?;
    Ok((begin < length).then(|| (begin, end.min(length))))
}
