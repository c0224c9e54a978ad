//! The directories of snapshots: where they are, how they come to be, what they take.

use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use snapshotters_contract::{SnapshotError, Usage};

/// Owner and mode of a top directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Top {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Top {
    /// What a snapshot on nothing begins with. Made by root; anyone else's begin as their own.
    const EMPTY: Self = Self { uid: 0, gid: 0, mode: 0o755 };
}

/// The folder of all snapshots.
#[derive(Debug)]
pub(crate) struct Directories {
    folder: PathBuf,
    /// Who makes a directory holds the lock of its number.
    making: [Mutex<()>; 16],
}

impl Directories {
    /// Opens the folder, which exists: the store makes it.
    pub(crate) fn open(folder: PathBuf) -> Result<Self, SnapshotError> {
        if folder.to_str().is_none() {
            return Err(SnapshotError::Root { path: folder });
        }
        // Foreign programs lie in there: nobody but us looks in.
        fs::set_permissions(&folder, Permissions::from_mode(0o700))
            .map_err(|source| SnapshotError::io("close to others", &folder, source))?;
        if let Err(error) = storage_sys::durable::spread_subdirectories(&folder) {
            tracing::debug!(%error, "the file system takes no advice on where snapshots go");
        }
        Ok(Self { folder, making: Default::default() })
    }

    /// Directory of one snapshot.
    pub(crate) fn of(&self, number: u64) -> PathBuf {
        self.folder.join(number.to_string())
    }

    /// Where its files are.
    pub(crate) fn files(&self, number: u64) -> PathBuf {
        self.of(number).join("fs")
    }

    /// Where overlayfs prepares what it writes to it.
    pub(crate) fn work(&self, number: u64) -> PathBuf {
        self.of(number).join("work")
    }

    /// Numbers of all directories there are.
    pub(crate) fn list(&self) -> Result<Vec<u64>, SnapshotError> {
        let error = |source| SnapshotError::io("list", &self.folder, source);
        let mut numbers = Vec::new();
        for entry in self.folder.read_dir().map_err(error)? {
            let name = entry.map_err(error)?.file_name();
            // Only names that `of` makes: anything else is not ours to judge.
            let number =
                name.to_str().and_then(|name| name.parse::<u64>().ok().filter(|n| n.to_string() == name));
            match number {
                Some(number) => numbers.push(number),
                None => {
                    tracing::warn!(?name, folder = %self.folder.display(), "a file of unknown origin is left alone")
                }
            }
        }
        Ok(numbers)
    }

    /// Makes what is absent of a snapshot's directory. Its files appear with owner and mode of `top` (without one: ours,
    /// and 0755) or not at all.
    pub(crate) fn make(&self, number: u64, top: Option<Top>, with_work: bool) -> Result<(), SnapshotError> {
        let lock = &self.making[usize::try_from(number % 16).unwrap_or(0)];
        let _guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let (directory, files) = (self.of(number), self.files(number));
        create(&directory, 0o700)?;
        if with_work {
            create(&self.work(number), 0o711)?;
        }
        if files.symlink_metadata().is_err() {
            let new = directory.join("fs.new");
            create(&new, 0o700)?;
            match top {
                Some(top) => set_top(&new, top)?,
                None => set_mode(&new, Top::EMPTY.mode)?,
            }
            fs::rename(&new, &files).map_err(|source| SnapshotError::io("create", &files, source))?;
        }
        Ok(())
    }

    /// Owner and mode of a committed snapshot's top directory.
    pub(crate) fn top(&self, number: u64, key: &str) -> Result<Top, SnapshotError> {
        let path = self.files(number);
        match path.symlink_metadata() {
            Ok(facts) if facts.is_dir() => Ok(top_of(&facts)),
            Ok(_) => Err(SnapshotError::Missing { key: key.to_owned(), path }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(SnapshotError::Missing { key: key.to_owned(), path })
            }
            Err(source) => Err(SnapshotError::io("inspect", path, source)),
        }
    }

    /// Gives a top directory that nobody has changed the owner and mode of another, durably.
    pub(crate) fn inherit_top(&self, number: u64, top: Top) -> Result<(), SnapshotError> {
        let path = self.files(number);
        let facts = path.symlink_metadata().map_err(|source| SnapshotError::io("inspect", &path, source))?;
        if top_of(&facts) != Top::EMPTY || top == Top::EMPTY {
            return Ok(());
        }
        set_top(&path, top)?;
        let synced = File::open(&path).and_then(|directory| directory.sync_all());
        synced.map_err(|source| SnapshotError::io("sync", path, source))
    }

    /// What a snapshot's files take.
    pub(crate) fn usage(&self, number: u64) -> Result<Usage, SnapshotError> {
        let path = self.files(number);
        match storage_sys::usage::disk_usage(&path) {
            Ok(usage) => Ok(Usage { bytes: usage.bytes, inodes: usage.inodes }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Usage::default()),
            Err(source) => Err(SnapshotError::io("count what is in", path, source)),
        }
    }
}

/// Makes one directory with exactly this mode, unless it is there.
fn create(path: &Path, mode: u32) -> Result<(), SnapshotError> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(SnapshotError::io("create", path, source)),
    }
}

/// Sets owner, then mode: changing the owner clears set-user-ID bits.
fn set_top(path: &Path, top: Top) -> Result<(), SnapshotError> {
    let error = |source| SnapshotError::io("set owner and mode of", path, source);
    let facts = path.symlink_metadata().map_err(error)?;
    if (facts.uid(), facts.gid()) != (top.uid, top.gid) {
        lchown(path, Some(top.uid), Some(top.gid)).map_err(error)?;
    }
    set_mode(path, top.mode)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), SnapshotError> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(|source| SnapshotError::io("set the mode of", path, source))
}

fn top_of(facts: &Metadata) -> Top {
    Top { uid: facts.uid(), gid: facts.gid(), mode: facts.mode() & 0o7777 }
}
