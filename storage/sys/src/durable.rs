//! What makes bytes durable: syncs of a directory and of a file system, and who owns a root.
//!
//! `std` already syncs a file ([`std::fs::File::sync_data`]) and locks one ([`std::fs::File::try_lock`]); here is what it lacks.
//! A failed sync is reported once by the kernel and the pages are dropped: whoever gets an error from this module treats
//! what was written as lost and never syncs the same descriptor again to see whether it works now.
//!
//! Not here: the order of the steps (`storage-content`).

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{FallocateFlags, IFlags, Mode, OFlags};

/// Makes the names in `directory` durable: what was created, renamed into or removed from it before the call.
///
/// # Errors
/// `ENOTDIR` if it is something else (a symbolic link at the end included), `EIO` if the disk refused.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let descriptor = rustix::fs::open(directory, flags, Mode::empty())?;
    Ok(rustix::fs::fsync(descriptor)?)
}

/// Opens `directory` so that [`sync_file_system`] can be called on it.
///
/// The kernel reports an error of writing back to every descriptor that was open when it happened: keep this one open from
/// before the first write, and no error is missed.
///
/// # Errors
/// `ENOTDIR` if it is something else, or why it could not be opened.
pub fn open_directory(directory: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(directory, flags, Mode::empty())?))
}

/// Writes back everything the file system of `descriptor` holds, and waits for it (`syncfs(2)`).
///
/// # Errors
/// The first error of writing back since the last call on this descriptor (Linux 5.8 and later), whatever file it hit.
pub fn sync_file_system(descriptor: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::syncfs(descriptor)?)
}

/// Tells the file system that the subdirectories of `directory` have nothing to do with one another (`FS_TOPDIR_FL`), so
/// that ext4 spreads them over its block groups instead of keeping them near their parent (the kernel's `fs/ext4/ialloc.c`,
/// Orlov's allocator).
///
/// For trees that are made and deleted as a whole. Without it all of them crowd into one group, and where ext4 has no
/// journal each new file there has to step over every inode that was freed in the last minute: a layer of 20,000 files
/// unpacked after another was deleted took 8.4 s, spread 1.8 s.
///
/// # Errors
/// `ENOTTY` or `EOPNOTSUPP` where the file system has no such flag; it is advice, and may be ignored.
pub fn spread_subdirectories(directory: &Path) -> io::Result<()> {
    let directory = open_directory(directory)?;
    let flags = rustix::fs::ioctl_getflags(&directory)?;
    Ok(rustix::fs::ioctl_setflags(&directory, flags | IFlags::TOPDIR)?)
}

/// The user this process acts as, for comparison with the owner of a file.
pub fn effective_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Bytes of the file system of `path` that this user may still take. Root may take what is reserved for it.
///
/// # Errors
/// Why the file system could not be asked.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let answer = rustix::fs::statvfs(path)?;
    let blocks = if effective_user() == 0 { answer.f_bfree } else { answer.f_bavail };
    Ok(blocks.saturating_mul(answer.f_frsize))
}

/// Makes `file` take `bytes` on disk, without writing them.
///
/// # Errors
/// `ENOSPC` if there is no room, `EOPNOTSUPP` if the file system cannot.
pub fn preallocate(file: impl AsFd, bytes: u64) -> io::Result<()> {
    Ok(rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_synced_and_a_file_or_a_link_is_refused() {
        let root = tempfile::tempdir().unwrap();
        sync_directory(root.path()).unwrap();
        std::fs::write(root.path().join("file"), b"x").unwrap();
        assert_eq!(
            sync_directory(&root.path().join("file")).unwrap_err().kind(),
            io::ErrorKind::NotADirectory
        );
        std::os::unix::fs::symlink(root.path(), root.path().join("link")).unwrap();
        assert!(sync_directory(&root.path().join("link")).is_err());
    }

    #[test]
    fn the_file_system_of_an_open_directory_is_synced() {
        let root = tempfile::tempdir().unwrap();
        sync_file_system(open_directory(root.path()).unwrap()).unwrap();
        assert!(free_bytes(root.path()).unwrap() > 0);
    }

    #[test]
    fn what_is_preallocated_takes_room() {
        use std::os::unix::fs::MetadataExt as _;
        let root = tempfile::tempdir().unwrap();
        let file = File::create(root.path().join("reserve")).unwrap();
        preallocate(&file, 1 << 20).unwrap();
        assert!(file.metadata().unwrap().blocks() * 512 >= 1 << 20);
    }
}
