//! Files that are nobody's: for intermediate bytes that must not survive who made them.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

/// A new, empty file on the file system of `directory`, without a name: gone with its last descriptor, however its process
/// ends; close-on-exec, readable by its owner only.
///
/// # Errors
/// `EOPNOTSUPP` on file systems that have no files without a name (ext4, XFS, btrfs, tmpfs and overlayfs do); `EACCES`.
pub fn unnamed_file(directory: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(File::from(openat(CWD, directory, flags, Mode::RUSR | Mode::WUSR)?))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, Write as _};

    #[test]
    fn an_unnamed_file_is_written_and_read_and_in_no_directory() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = super::unnamed_file(directory.path()).unwrap();
        file.write_all(b"bytes").unwrap();
        file.rewind().unwrap();
        let mut found = String::new();
        file.read_to_string(&mut found).unwrap();
        assert_eq!(found, "bytes");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
