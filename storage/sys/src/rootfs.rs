//! Looking into a container's root from outside, without being led out of it.
//!
//! Every path is resolved by the kernel with the root as `/` (`openat2`, `RESOLVE_IN_ROOT`): symbolic links and `..`
//! of the image stay inside, also while something in the container changes them. Only regular files are ever opened
//! for reading: opening a FIFO would hang, opening a device node could act.
//!
//! Not here: writing into a root (`tree`).
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Attempts at one path while the kernel answers EAGAIN (a rename raced with `..` or a mount moved).
const RACED_ATTEMPTS_MAX: u32 = 32;

/// An open container root.
#[derive(Debug)]
pub struct Rootfs(OwnedFd);

/// What a path inside a root leads to.
#[derive(Debug)]
pub struct Entry {
    handle: OwnedFd,
    kind: FileType,
    /// Permission bits, with set-id and sticky.
    pub mode: u32,
    /// Size in bytes.
    pub size: u64,
}

impl Rootfs {
    /// Opens the directory `root`.
    ///
    /// # Errors
    /// Those of opening it.
    pub fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(root, flags, Mode::empty())?))
    }

    /// What `path` leads to inside the root; `None` when there is nothing. Nothing is opened for reading.
    ///
    /// # Errors
    /// `ELOOP` for links in a circle, `EACCES`, or what the file system answers.
    pub fn find(&self, path: &str) -> io::Result<Option<Entry>> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut attempts = 0;
        let handle = loop {
            match rustix::fs::openat2(&self.0, path, flags, Mode::empty(), resolve) {
                Ok(handle) => break handle,
                Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
                Err(Errno::AGAIN | Errno::INTR) if attempts < RACED_ATTEMPTS_MAX => attempts += 1,
                Err(error) => return Err(error.into()),
            }
        };
        let stat = rustix::fs::fstat(&handle)?;
        Ok(Some(Entry {
            handle,
            kind: FileType::from_raw_mode(stat.st_mode),
            mode: stat.st_mode & 0o7777,
            size: u64::try_from(stat.st_size).unwrap_or(0),
        }))
    }
}

impl Entry {
    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == FileType::RegularFile
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// What it is, in words.
    pub fn describe(&self) -> &'static str {
        match self.kind {
            FileType::RegularFile => "a regular file",
            FileType::Directory => "a directory",
            FileType::Symlink => "a symbolic link",
            FileType::Fifo => "a FIFO",
            FileType::Socket => "a socket",
            FileType::CharacterDevice | FileType::BlockDevice => "a device",
            FileType::Unknown => "of unknown type",
        }
    }

    /// Reads at most the first `bytes_max` bytes of a regular file.
    ///
    /// # Errors
    /// `InvalidInput` when it is not a regular file; those of reading.
    pub fn read(&self, bytes_max: u64) -> io::Result<Vec<u8>> {
        if !self.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let file = File::open(crate::process::descriptor_path(&self.handle))?;
        let mut bytes = Vec::new();
        file.take(bytes_max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_and_dots_of_the_image_stay_inside_the_root() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("secret"), "host").unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(root.join("etc/inside"), "image").unwrap();
        symlink("/etc/inside", root.join("absolute")).unwrap();
        symlink("../../secret", root.join("etc/up")).unwrap();
        symlink("/proc/self/exe", root.join("magic")).unwrap();
        let rootfs = Rootfs::open(&root).unwrap();
        assert_eq!(rootfs.find("/absolute").unwrap().unwrap().read(100).unwrap(), b"image");
        assert_eq!(rootfs.find("/etc/../../../etc/inside").unwrap().unwrap().read(2).unwrap(), b"im");
        for outside in ["/etc/up", "/../secret", "/magic", "/etc/inside/below"] {
            assert!(rootfs.find(outside).unwrap().is_none(), "{outside}");
        }
    }

    #[test]
    fn only_regular_files_are_opened_for_reading() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let entry = Rootfs::open(directory.path()).unwrap().find("/fifo").unwrap().unwrap();
        assert_eq!(entry.describe(), "a FIFO");
        assert!(entry.read(10).is_err());
    }
}
