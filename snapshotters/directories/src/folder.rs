//! The folder of all snapshots: where each has its directory, how directories come to be, what they take.

use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};

use snapshotters_contract::{SnapshotError, Usage};
use storage_content::Store;

use crate::group::Group;
use crate::numbers::{Held, Numbers};

/// Owner and mode of a top directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Top {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Top {
    /// What a snapshot on nothing begins with. Made by root; anyone else's begin as their own.
    pub const EMPTY: Self = Self { uid: 0, gid: 0, mode: 0o755 };

    /// This owner and mode; of `mode`, the permission bits.
    pub fn new(uid: u32, gid: u32, mode: u32) -> Self {
        Self { uid, gid, mode: mode & 0o7777 }
    }
}

/// The folder `snapshots` of a store. All snapshotters share it: numbers are unique over all of them.
#[derive(Debug)]
pub struct Folder {
    store: Store,
    path: PathBuf,
    numbers: Numbers,
    group: Group,
}

impl Folder {
    /// Opens the folder, which exists: the store makes it.
    pub(crate) fn open(store: &Store) -> Result<Self, SnapshotError> {
        let path = store.root().join("snapshots");
        if path.to_str().is_none() {
            return Err(SnapshotError::Root { path });
        }
        // Foreign programs lie in there: nobody but us looks in.
        fs::set_permissions(&path, Permissions::from_mode(0o700))
            .map_err(|source| SnapshotError::io("close to others", &path, source))?;
        if let Err(error) = storage_sys::durable::spread_subdirectories(&path) {
            tracing::debug!(%error, "the file system takes no advice on where snapshots go");
        }
        Ok(Self { store: store.clone(), path, numbers: Numbers::default(), group: Group::default() })
    }

    /// The store it belongs to.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Directory of one snapshot.
    pub fn of(&self, number: u64) -> PathBuf {
        self.path.join(number.to_string())
    }

    /// Waits until nobody else makes, seals or removes the directory of `number`.
    pub(crate) fn lock(&self, number: u64) -> Held<'_> {
        self.numbers.lock(number)
    }

    /// Makes everything written to the store's file system before this call durable. Calls made at once share the work.
    ///
    /// # Errors
    /// Kind `Internal` if any write was lost.
    pub fn sync(&self) -> Result<(), SnapshotError> {
        Ok(self.group.sync(&self.store)?)
    }

    /// Makes the files at `path` durable, and returns what they take.
    ///
    /// By one `syncfs`, however few they are: a file, its directory and the two names above it are up to four `fsync`s, and
    /// each flushes the disk's cache. Three of them took 10 to 12 ms where a `syncfs` took 6 to 7 (ext4, medians of 60).
    ///
    /// # Errors
    /// [`SnapshotError::Io`], or kind `Internal` if any write was lost.
    pub fn count_and_sync(&self, path: &Path) -> Result<Usage, SnapshotError> {
        let usage = self.usage(path)?;
        self.sync()?;
        Ok(usage)
    }

    /// Moves a directory out of sight, to be unlinked by a thread of the store.
    ///
    /// # Errors
    /// Those of the store; it is then where it was.
    pub fn discard(&self, path: &Path) -> Result<(), SnapshotError> {
        Ok(self.store.discard(path)?)
    }

    /// [`discard`](Self::discard) for what is rarely there: wakes no thread for nothing.
    ///
    /// # Errors
    /// Those of the store; it is then where it was.
    pub fn discard_if_there(&self, path: &Path) -> Result<(), SnapshotError> {
        if path.symlink_metadata().is_ok() { self.discard(path) } else { Ok(()) }
    }

    /// Discards the directories that no record names.
    pub(crate) fn discard_unowned(&self) -> Result<(), SnapshotError> {
        // In this order: a directory listed now had its record before.
        let found = self.list()?;
        let known = self.store.snapshot_numbers()?;
        let mut first_error = None;
        for number in found.into_iter().filter(|number| !known.contains(number)) {
            tracing::debug!(number, "discarding a directory that no snapshot owns");
            if let Err(error) = self.discard(&self.of(number)) {
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Numbers of all directories there are.
    fn list(&self) -> Result<Vec<u64>, SnapshotError> {
        let error = |source| SnapshotError::io("list", &self.path, source);
        let mut numbers = Vec::new();
        for entry in self.path.read_dir().map_err(error)? {
            let name = entry.map_err(error)?.file_name();
            // Only names that `of` makes: anything else is not ours to judge.
            let number =
                name.to_str().and_then(|name| name.parse::<u64>().ok().filter(|n| n.to_string() == name));
            match number {
                Some(number) => numbers.push(number),
                None => {
                    tracing::warn!(?name, folder = %self.path.display(), "a file of unknown origin is left alone");
                }
            }
        }
        Ok(numbers)
    }

    /// Makes the directory of one snapshot, unless it is there.
    ///
    /// # Errors
    /// [`SnapshotError::Io`], [`SnapshotError::Full`].
    pub fn make(&self, number: u64) -> Result<PathBuf, SnapshotError> {
        let path = self.of(number);
        create(&path, 0o700)?;
        Ok(path)
    }

    /// Makes the directory `path` in one step, unless it is there: `fill` works on it under another name, and what it
    /// leaves half-done is never seen.
    ///
    /// # Errors
    /// Those of `fill`; [`SnapshotError::Io`], [`SnapshotError::Full`].
    pub fn appear(
        &self,
        path: &Path,
        fill: impl FnOnce(&Path) -> Result<(), SnapshotError>,
    ) -> Result<(), SnapshotError> {
        if path.symlink_metadata().is_ok() {
            return Ok(());
        }
        let new = path.with_extension("new");
        self.discard_if_there(&new)?;
        create(&new, 0o700)?;
        fill(&new)?;
        fs::rename(&new, path).map_err(|source| SnapshotError::io("create", path, source))
    }

    /// What the files below `path` take; nothing if there is none.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] for what cannot be read.
    pub fn usage(&self, path: &Path) -> Result<Usage, SnapshotError> {
        match storage_sys::usage::disk_usage(path) {
            Ok(usage) => Ok(Usage { bytes: usage.bytes, inodes: usage.inodes }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Usage::default()),
            Err(source) => Err(SnapshotError::io("count what is in", path, source)),
        }
    }
}

impl Top {
    /// Owner and mode of the directory of files of the committed snapshot `key`.
    ///
    /// # Errors
    /// [`SnapshotError::Missing`] if it is not there or no directory.
    pub fn of_committed(path: PathBuf, key: &str) -> Result<Self, SnapshotError> {
        match path.symlink_metadata() {
            Ok(facts) if facts.is_dir() => Ok(Self::of(&facts)),
            Ok(_) => Err(SnapshotError::Missing { key: key.to_owned(), path }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(SnapshotError::Missing { key: key.to_owned(), path })
            }
            Err(source) => Err(SnapshotError::io("inspect", path, source)),
        }
    }

    /// Owner and mode of the directory `path`.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn read(path: &Path) -> Result<Self, SnapshotError> {
        let facts = path.symlink_metadata().map_err(|source| SnapshotError::io("inspect", path, source))?;
        Ok(Self::of(&facts))
    }

    fn of(facts: &Metadata) -> Self {
        Self { uid: facts.uid(), gid: facts.gid(), mode: facts.mode() & 0o7777 }
    }

    /// Gives them to the directory `path`: owner, then mode, because changing the owner clears set-user-ID bits.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn give(self, path: &Path) -> Result<(), SnapshotError> {
        let error = |source| SnapshotError::io("set owner and mode of", path, source);
        let facts = path.symlink_metadata().map_err(error)?;
        // What begins empty belongs to whoever makes it, root or not.
        if self != Self::EMPTY && (facts.uid(), facts.gid()) != (self.uid, self.gid) {
            lchown(path, Some(self.uid), Some(self.gid)).map_err(error)?;
        }
        fs::set_permissions(path, Permissions::from_mode(self.mode)).map_err(error)
    }

    /// Gives them durably.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn give_durably(self, path: &Path) -> Result<(), SnapshotError> {
        self.give(path)?;
        let synced = File::open(path).and_then(|directory| directory.sync_all());
        synced.map_err(|source| SnapshotError::io("sync", path, source))
    }
}

/// Makes one directory with exactly this mode, unless it is there.
///
/// # Errors
/// [`SnapshotError::Io`], [`SnapshotError::Full`].
pub fn create(path: &Path, mode: u32) -> Result<(), SnapshotError> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(SnapshotError::io("create", path, source)),
    }
}
