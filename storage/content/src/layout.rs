//! Where things lie under the root, and who may have it.
//!
//! The lock is an advisory one on `<root>/lock`, which the kernel drops when its holder dies: a lock is never stale.
//! Taking it never waits; who is refused reads the holder's process id from the file.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use storage_model::Digest;
use storage_sys::durable::{effective_user, sync_directory};

use crate::StoreError;
use crate::error::IoContext as _;

/// Directories the store makes; `snapshots` is filled by the snapshotters.
const DIRECTORIES: [&str; 7] =
    ["blobs", "blobs/sha256", "ingests", "metadata", "quarantine", "snapshots", "trash"];

/// What may lie in a root that is no store yet: an interrupted creation, the log of the daemon that is about to open it,
/// and what a fresh file system brings.
const NOT_FOREIGN: [&str; 11] = [
    "blobs",
    "ingests",
    "metadata",
    "quarantine",
    "snapshots",
    "trash",
    "lock",
    "reserve",
    "VERSION.new",
    "daemon.log",
    "lost+found",
];

/// The paths of a store.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) root: PathBuf,
    pub(crate) blobs: PathBuf,
    pub(crate) ingests: PathBuf,
    pub(crate) metadata: PathBuf,
    pub(crate) quarantine: PathBuf,
    pub(crate) trash: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self {
            blobs: root.join("blobs/sha256"),
            ingests: root.join("ingests"),
            metadata: root.join("metadata"),
            quarantine: root.join("quarantine"),
            trash: root.join("trash"),
            root,
        }
    }

    /// File of a blob.
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// What there are files of, recorded or not.
    pub(crate) fn blob_digests(&self) -> Result<Vec<Digest>, StoreError> {
        let mut found = Vec::new();
        for entry in self.blobs.read_dir().doing("list", &self.blobs)? {
            let name = entry.doing("list", &self.blobs)?.file_name();
            found.extend(name.to_str().and_then(|name| Digest::from_hex(name).ok()));
        }
        Ok(found)
    }

    /// The directories of snapshots, of whichever snapshotter, by number.
    pub(crate) fn snapshot_directories(&self) -> Result<Vec<(u64, PathBuf)>, StoreError> {
        let directory = self.root.join("snapshots");
        let mut found = Vec::new();
        for entry in directory.read_dir().doing("list", &directory)? {
            let entry = entry.doing("list", &directory)?;
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            found.extend(number.map(|number| (number, entry.path())));
        }
        Ok(found)
    }

    /// Makes the directories that are absent, durably.
    pub(crate) fn create(&self) -> Result<(), StoreError> {
        let mut made = false;
        for name in DIRECTORIES {
            let path = self.root.join(name);
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => made = true,
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(StoreError::io("create", &path, error)),
            }
        }
        if made {
            let blobs = self.root.join("blobs");
            sync_directory(&blobs).doing("sync", &blobs)?;
            sync_directory(&self.root).doing("sync", &self.root)?;
        }
        Ok(())
    }
}

/// Makes `root` if it is absent, checks that it is ours, and closes it to others.
pub(crate) fn prepare_root(root: &Path) -> Result<PathBuf, StoreError> {
    let root = std::path::absolute(root).doing("find", root)?;
    let made: Vec<&Path> = root.ancestors().take_while(|path| !path.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(&root).doing("create", &root)?;
    for parent in made.iter().filter_map(|path| path.parent()) {
        sync_directory(&parent.canonicalize().doing("find", parent)?).doing("sync", parent)?;
    }
    let root = root.canonicalize().doing("find", &root)?;
    let facts = root.metadata().doing("inspect", &root)?;
    let user = effective_user();
    if facts.uid() != user {
        return Err(StoreError::NotOwned { path: root, owner: facts.uid(), user });
    }
    refuse_foreign(&root)?;
    if facts.mode() & 0o077 != 0 {
        std::fs::set_permissions(&root, Permissions::from_mode(0o700)).doing("close to others", &root)?;
    }
    Ok(root)
}

/// Refuses a directory that holds something else: `--root /` must not turn `/` into a store.
fn refuse_foreign(root: &Path) -> Result<(), StoreError> {
    if root.join(crate::format::FILE).exists() {
        return Ok(());
    }
    for entry in root.read_dir().doing("list", root)? {
        let name = entry.doing("list", root)?.file_name();
        if !NOT_FOREIGN.iter().any(|known| name == *known) {
            return Err(StoreError::NotAStore {
                path: root.to_path_buf(),
                found: name.to_string_lossy().into_owned(),
            });
        }
    }
    Ok(())
}

/// Takes the lock of `root` and writes our process id into it; it is held as long as the file is open.
pub(crate) fn lock(root: &Path) -> Result<File, StoreError> {
    let path = root.join("lock");
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).open(&path).doing("open", &path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(StoreError::InUse { root: root.to_path_buf(), holder: read_holder(&mut file) });
        }
        Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", &path, error)),
    }
    file.set_len(0).doing("write", &path)?;
    file.rewind().doing("write", &path)?;
    writeln!(file, "{}", std::process::id()).doing("write", &path)?;
    Ok(file)
}

fn read_holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
