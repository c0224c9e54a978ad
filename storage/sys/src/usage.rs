//! What a tree takes on the disk, counted through descriptors: nothing outside it is reached, however its links point or
//! change meanwhile.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, FileType, Stat};
use rustix::io::Errno;

use crate::place::Place;

/// What a tree takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskUsage {
    /// Bytes of allocated blocks.
    pub bytes: u64,
    /// Inodes, those of directories included.
    pub inodes: u64,
}

/// Counts `root` and everything below it on the same file system. An inode of several names counts once; symbolic links
/// are counted, not followed. Memory grows with the number of inodes that have several names; depth has no limit.
///
/// # Errors
/// Those of the kernel for `root` itself and for directories that cannot be read. What disappears while it is counted is
/// not an error.
pub fn disk_usage(root: &Path) -> io::Result<DiskUsage> {
    let top = Place::root(root)?;
    let stat = rustix::fs::fstat(top.base())?;
    let mut counter = Counter { usage: DiskUsage::default(), linked: HashSet::new(), device: stat.st_dev };
    counter.add(&stat);
    let mut pending = vec![top];
    while let Some(place) = pending.pop() {
        match place.open() {
            Ok((directory, place)) => counter.directory(&directory, &place, &mut pending)?,
            Err(error) if has_changed(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(counter.usage)
}

struct Counter {
    usage: DiskUsage,
    /// Inodes of several names that were counted.
    linked: HashSet<u64>,
    device: u64,
}

impl Counter {
    /// Counts the entries of `directory`, and notes those to descend into.
    fn directory(&mut self, directory: &OwnedFd, place: &Place, pending: &mut Vec<Place>) -> io::Result<()> {
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            if stat.st_dev != self.device {
                continue;
            }
            self.add(&stat);
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                pending.push(place.child(name.to_bytes()));
            }
        }
        Ok(())
    }

    fn add(&mut self, stat: &Stat) {
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !directory && stat.st_nlink > 1 && !self.linked.insert(stat.st_ino) {
            return;
        }
        // st_blocks counts units of 512 bytes whatever the file system's block is.
        self.usage.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        self.usage.inodes += 1;
    }
}

/// Whether the error only says that the tree changed since its names were read.
fn has_changed(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    #[test]
    fn an_inode_of_several_names_counts_once_and_links_are_not_followed() {
        let (outside, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("big"), vec![1; 1 << 20]).unwrap();
        let file = root.path().join("file");
        fs::write(&file, vec![1; 10_000]).unwrap();
        fs::create_dir(root.path().join("d")).unwrap();
        fs::hard_link(&file, root.path().join("d/again")).unwrap();
        symlink(outside.path(), root.path().join("d/link")).unwrap();
        let blocks = |path: &Path| path.symlink_metadata().unwrap().blocks() * 512;
        let paths = [root.path().to_owned(), file, root.path().join("d"), root.path().join("d/link")];
        let bytes = paths.iter().map(|path| blocks(path)).sum();
        assert_eq!(disk_usage(root.path()).unwrap(), DiskUsage { bytes, inodes: 4 });
    }

    #[test]
    fn depth_has_no_limit() {
        let root = tempfile::tempdir().unwrap();
        let name = "n".repeat(200);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut directory = rustix::fs::open(root.path(), flags, Mode::empty()).unwrap();
        for _ in 0..300 {
            rustix::fs::mkdirat(&directory, &*name, Mode::RWXU).unwrap();
            directory = rustix::fs::openat(&directory, &*name, flags, Mode::empty()).unwrap();
        }
        assert_eq!(disk_usage(root.path()).unwrap().inodes, 301);
        crate::tree::remove_all(root.path()).unwrap();
    }
}
