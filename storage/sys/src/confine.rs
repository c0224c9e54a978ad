//! A thread that sees nothing but one tree.
//!
//! Paths of foreign trees change while they are walked: a directory becomes a link to elsewhere between a look and a step
//! (CVE-2018-15664). A thread whose root *is* the tree has no elsewhere: absolute paths, links and `..` all stay inside.
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::thread::UnshareFlags;

/// Opens the directory `path` as a root for [`confine_thread`].
///
/// # Errors
/// Those of opening a directory.
pub fn open_root(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// Makes `root` the root and working directory of the calling thread, for good. To be called by a thread that is started for
/// this and ends with its work; the other threads keep their root.
///
/// # Errors
/// `EPERM` without CAP_SYS_CHROOT; the thread may then be half on its way and must end.
pub fn confine_thread(root: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the only danger of unshare is a descriptor table no longer shared between threads (CLONE_FILES); CLONE_FS
    // gives this thread its own record of root, working directory and umask, and leaves descriptors shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
    rustix::process::fchdir(root)?;
    rustix::process::chroot(".")?;
    Ok(rustix::process::chdir("/")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::AsFd;

    #[test]
    fn a_confined_thread_sees_its_tree_alone_and_others_see_all() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("inside"), "in").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("link")).unwrap();
        let root = open_root(directory.path()).unwrap();
        std::thread::spawn(move || {
            confine_thread(root.as_fd()).unwrap();
            assert_eq!(fs::read_to_string("/inside").unwrap(), "in");
            assert_eq!(fs::read_to_string("/../../inside").unwrap(), "in");
            assert!(fs::read("/link").is_err() && fs::read("/etc/passwd").is_err());
        })
        .join()
        .unwrap();
        assert!(fs::read("/etc/passwd").is_ok());
    }
}
