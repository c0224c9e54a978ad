//! Named pipes, and private directories to have them in.
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode};

/// Names tried before giving up: the first is free unless a process of the same number left one behind.
const ATTEMPTS: u32 = 1000;

/// Makes a named pipe at `path` for this user alone.
///
/// # Errors
/// `EEXIST` when something is there, and those of making a file.
pub fn make(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?)
}

/// Makes a directory that only this user may enter, below `XDG_RUNTIME_DIR` or the directory of temporary files.
///
/// # Errors
/// Those of making a directory.
pub fn private_directory(prefix: &str) -> io::Result<PathBuf> {
    let base = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
    let base = base.unwrap_or_else(std::env::temp_dir);
    let mut failed = io::Error::from(io::ErrorKind::AlreadyExists);
    for number in 0..ATTEMPTS {
        // It need not be secret: making it fails when somebody else has it.
        let path = base.join(format!("{prefix}.{}.{number}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => failed = error,
            Err(error) => return Err(error),
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};

    #[test]
    fn a_pipe_lies_where_nobody_else_comes() {
        let directory = private_directory("windlass-test").unwrap();
        assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let path = directory.join("pipe");
        make(&path).unwrap();
        assert!(path.metadata().unwrap().file_type().is_fifo());
        assert_eq!(make(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
