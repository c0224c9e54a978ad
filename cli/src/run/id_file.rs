//! `--cidfile` and `--pid-file`: a container's id and its process's, for scripts.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::CliError;

/// A file that was made for an id; dropped without one, it goes.
#[derive(Debug)]
pub(super) struct Taken {
    path: PathBuf,
    file: File,
    filled: bool,
}

impl Taken {
    /// Makes the file, which must not exist.
    ///
    /// # Errors
    /// [`CliError::File`].
    pub(super) fn take(path: &Path) -> Result<Self, CliError> {
        let file = File::create_new(path).map_err(failed(path))?;
        Ok(Self { path: path.to_owned(), file, filled: false })
    }

    /// Writes the id, without a line end, as Docker does.
    ///
    /// # Errors
    /// [`CliError::File`].
    pub(super) fn fill(&mut self, id: &str) -> Result<(), CliError> {
        self.file.write_all(id.as_bytes()).map_err(failed(&self.path))?;
        self.filled = true;
        Ok(())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.filled {
            // The container was not made, and that is what is told.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Writes a process id, whole or not at all, as a reader may wait for it.
///
/// # Errors
/// [`CliError::File`].
pub(super) fn write_pid(path: &Path, pid: u32) -> Result<(), CliError> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    fs::write(&new, pid.to_string()).and_then(|()| fs::rename(&new, path)).map_err(failed(path))
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> CliError {
    move |source| CliError::File { what: "write", path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_is_refused_and_one_without_an_id_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id");
        drop(Taken::take(&path).unwrap());
        assert!(!path.exists());
        Taken::take(&path).unwrap().fill("web").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "web");
        assert!(Taken::take(&path).is_err());
        write_pid(&path, 42).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "42");
    }
}
