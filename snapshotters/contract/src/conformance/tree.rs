//! A tree written down, to be compared.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What is seen of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Type and permissions, as `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last change of a file's content; none for directories, whose entries come and go.
    pub modified: Option<SystemTime>,
    /// Content of a file, target of a link; empty for others.
    pub content: Vec<u8>,
}

/// Every entry below `root`, and `root` itself as the empty path.
///
/// # Panics
/// If something cannot be read.
pub fn describe(root: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut entries = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let facts = path.symlink_metadata().unwrap();
        let kind = facts.file_type();
        let content = if kind.is_file() {
            fs::read(&path).unwrap()
        } else if kind.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else {
            assert!(!kind.is_char_device() || facts.rdev() != 0, "a whiteout is visible: {path:?}");
            Vec::new()
        };
        if kind.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let entry = Entry {
            mode: facts.mode(),
            uid: facts.uid(),
            gid: facts.gid(),
            modified: (!kind.is_dir()).then(|| facts.modified().unwrap()),
            content,
        };
        entries.insert(path.strip_prefix(root).unwrap().to_owned(), entry);
    }
    entries
}
