//! Reading single files of a container's root: confined to it, regular files only, up to a limit.

use std::io;
use std::path::Path;

use storage_sys::rootfs::Rootfs;

/// Largest `/etc/passwd` or `/etc/group` that is read, in bytes (containerd's limit since CVE-2026-47262). A machine
/// with 100,000 accounts has about 6 MB.
pub const ACCOUNT_FILE_BYTES_MAX: u64 = 10 * 1024 * 1024;

/// Why a file of the root was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// A FIFO, a device, a directory in the place of a file: reading it could hang or act.
    #[error("{path} of the image is {kind}: only a regular file is read")]
    NotRegular {
        /// Path in the root.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// Larger than any real one.
    #[error("{path} of the image is {size} bytes: at most {max} are read", max = ACCOUNT_FILE_BYTES_MAX)]
    TooLarge {
        /// Path in the root.
        path: String,
        /// Its size in bytes.
        size: u64,
    },
    /// The file system refused.
    #[error("cannot read {path} of the image")]
    Io {
        /// Path in the root.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Reads files of a container's root by their path inside it.
///
/// Implementations never leave the root, open nothing but regular files, and read at most
/// [`ACCOUNT_FILE_BYTES_MAX`].
pub trait FileLookup {
    /// The content of the file at `path`; `None` when there is none.
    ///
    /// # Errors
    /// [`LookupError`]: not a regular file, too large, or refused by the file system.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, LookupError>;
}

/// [`FileLookup`] in a mounted root.
#[derive(Debug)]
pub struct MountedRoot(Rootfs);

impl MountedRoot {
    /// Looks into the directory `root`.
    ///
    /// # Errors
    /// Those of opening it.
    pub fn open(root: &Path) -> io::Result<Self> {
        Ok(Self(Rootfs::open(root)?))
    }

    /// The root itself, for other confined questions.
    pub fn rootfs(&self) -> &Rootfs {
        &self.0
    }
}

impl FileLookup for MountedRoot {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, LookupError> {
        let refused = |source| LookupError::Io { path: path.to_owned(), source };
        let Some(entry) = self.0.find(path).map_err(refused)? else {
            return Ok(None);
        };
        if !entry.is_file() {
            return Err(LookupError::NotRegular { path: path.to_owned(), kind: entry.describe() });
        }
        if entry.size > ACCOUNT_FILE_BYTES_MAX {
            return Err(LookupError::TooLarge { path: path.to_owned(), size: entry.size });
        }
        // One byte more than allowed tells a file that grew since from one that just fits.
        let bytes = entry.read(ACCOUNT_FILE_BYTES_MAX + 1).map_err(refused)?;
        let size = bytes.len() as u64;
        if size > ACCOUNT_FILE_BYTES_MAX {
            return Err(LookupError::TooLarge { path: path.to_owned(), size });
        }
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        root
    }

    #[test]
    fn vuln_r13_account_files_that_are_no_plain_files_are_refused_without_hanging() {
        let root = root();
        let passwd = root.path().join("etc/passwd");
        assert!(Command::new("mkfifo").arg(&passwd).status().unwrap().success());
        let files = MountedRoot::open(root.path()).unwrap();
        assert!(matches!(files.read("/etc/passwd"), Err(LookupError::NotRegular { kind: "a FIFO", .. })));
        std::fs::remove_file(&passwd).unwrap();
        std::fs::create_dir(&passwd).unwrap();
        assert!(matches!(files.read("/etc/passwd"), Err(LookupError::NotRegular { .. })));
    }

    #[test]
    fn vuln_r13_a_huge_account_file_is_refused_without_being_read() {
        let root = root();
        let file = std::fs::File::create(root.path().join("etc/group")).unwrap();
        file.set_len(1 << 30).unwrap();
        let files = MountedRoot::open(root.path()).unwrap();
        assert!(matches!(files.read("/etc/group"), Err(LookupError::TooLarge { size: 1_073_741_824, .. })));
        file.set_len(ACCOUNT_FILE_BYTES_MAX).unwrap();
        assert_eq!(files.read("/etc/group").unwrap().unwrap().len() as u64, ACCOUNT_FILE_BYTES_MAX);
    }

    #[test]
    fn vuln_r13_a_link_to_the_hosts_account_file_finds_the_images_own_or_nothing() {
        let root = root();
        symlink("../../../../../../etc/passwd", root.path().join("etc/passwd")).unwrap();
        let files = MountedRoot::open(root.path()).unwrap();
        // The link resolves to itself inside the root: a circle, never the host's file.
        assert!(!matches!(files.read("/etc/passwd"), Ok(Some(_))));
        symlink("/etc/hostname", root.path().join("etc/group")).unwrap();
        assert!(matches!(files.read("/etc/group"), Ok(None)));
    }
}
