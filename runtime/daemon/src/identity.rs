//! The daemon's identity: a UUID that stays with its root directory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Name of the file in the root directory.
const FILE: &str = "uuid";

/// Where the kernel makes random UUIDs (random(4)).
const KERNEL_UUID: &str = "/proc/sys/kernel/random/uuid";

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path}")]
pub struct IdentityError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The UUID of `root`, made when there is none yet, or when the file is damaged: nothing depends on its staying the
/// same but the memory of clients.
///
/// # Errors
/// [`IdentityError`] if the file cannot be read or written.
pub(crate) fn uuid(root: &Path) -> Result<String, IdentityError> {
    let path = root.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) if is_uuid(text.trim()) => return Ok(text.trim().to_owned()),
        Ok(_) => tracing::warn!(path = %path.display(), "the daemon's UUID is damaged: a new one is made"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(IdentityError { what: "read", path, source }),
    }
    let kernel = || fs::read_to_string(KERNEL_UUID).map(|text| text.trim().to_owned());
    let fresh =
        kernel().map_err(|source| IdentityError { what: "read", path: KERNEL_UUID.into(), source })?;
    write_durably(root, &path, &fresh).map_err(|source| IdentityError { what: "write", path, source })?;
    Ok(fresh)
}

fn write_durably(root: &Path, path: &Path, text: &str) -> io::Result<()> {
    let temporary = root.join(".uuid.new");
    let mut file = File::create(&temporary)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(root)?.sync_all()
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_stays_and_a_damaged_one_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let first = uuid(root.path()).unwrap();
        assert!(is_uuid(&first));
        assert_eq!(uuid(root.path()).unwrap(), first);
        fs::write(root.path().join(FILE), "not a uuid").unwrap();
        let second = uuid(root.path()).unwrap();
        assert!(is_uuid(&second) && second != first);
    }
}
