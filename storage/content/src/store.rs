//! The open store: one process, one root.
//!
//! [`Store::open`] takes the root (lock, owner, version), opens the metadata, and repairs what a crash left
//! ([`crate::Recovery`]). Everything else goes through a [`Space`], one per namespace.
//!
//! Not here: what is in the store (`blob`, `ingest`, `image`, `snapshot`, ...), and what leaves it (`collect`).

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use storage_model::{Digest, Namespace};
use storage_sys::durable::{open_directory, sync_file_system};

use crate::change::Observed;
use crate::collect::Gate;
use crate::error::IoContext as _;
use crate::layout::{Layout, lock, prepare_root};
use crate::metadata::{Metadata, MetadataState};
use crate::numbers::Numbers;
use crate::recovery::{self, Recovery};
use crate::space::Space;
use crate::trash::Trash;
use crate::{StoreError, format, rebuild};

/// A store, open. Clones are handles on the same one; the root is released when the last is dropped.
#[derive(Clone)]
pub struct Store(pub(crate) Arc<Inner>);

/// What the handles share.
pub(crate) struct Inner {
    pub(crate) metadata: Metadata,
    pub(crate) layout: Layout,
    pub(crate) trash: Trash,
    pub(crate) gate: Gate,
    pub(crate) digests: DigestLocks,
    /// Identifiers of the ingests that have a writer.
    pub(crate) writing: Mutex<HashSet<String>>,
    /// Namespaces that are known to have a record.
    pub(crate) namespaces: Mutex<HashSet<Namespace>>,
    pub(crate) numbers: Numbers,
    pub(crate) collecting: Mutex<()>,
    /// Whether there may be files of blobs that lost their records: see `recovery`.
    pub(crate) strays: AtomicBool,
    /// When the last collection looked.
    pub(crate) collected: Mutex<Option<SystemTime>>,
    pub(crate) observed: Observed,
    /// The root, open since before the first write: the kernel reports errors of writing back to it.
    root: Mutex<File>,
    /// Failed syncs so far.
    sync_failures: AtomicU64,
    recovery: Recovery,
    /// Held as long as the store is open. Last, so that everything else is closed when it is released.
    _lock: File,
}

impl Store {
    /// Opens the store in `root`, making it if the directory is absent or empty.
    ///
    /// Repairs what a crash left and saves what damage left of the metadata; [`Store::recovery`] says what. Leases labelled [`crate::EPHEMERAL_LABEL`] are gone.
    /// Takes well under a second for 100,000 blobs: no content is read.
    ///
    /// # Errors
    /// [`StoreError::InUse`] at once if another process (or handle) has it open; [`StoreError::NotOwned`],
    /// [`StoreError::NotAStore`] or [`StoreError::Format`] if the directory is not ours to use; nothing was changed.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let layout = Layout::new(prepare_root(root)?);
        let lock = lock(&layout.root)?;
        let descriptor = open_directory(&layout.root).doing("open", &layout.root)?;
        format::check_or_create(&layout.root)?;
        layout.create()?;
        let (metadata, found) = Metadata::open(&layout.metadata, &layout.quarantine)?;
        let trash = Trash::new(layout.trash.clone());
        let (recovery, numbers) = recover(&metadata, found, &layout, &trash)?;
        let store = Self(Arc::new(Inner {
            metadata,
            layout,
            trash,
            gate: Gate::default(),
            digests: DigestLocks::default(),
            writing: Mutex::default(),
            namespaces: Mutex::default(),
            numbers,
            collecting: Mutex::default(),
            strays: AtomicBool::new(recovery.rebuilt),
            collected: Mutex::default(),
            observed: Observed::default(),
            root: Mutex::new(descriptor),
            sync_failures: AtomicU64::new(0),
            recovery,
            _lock: lock,
        }));
        store.0.trash.empty_soon();
        Ok(store)
    }

    /// The root, absolute and without symbolic links.
    pub fn root(&self) -> &Path {
        &self.0.layout.root
    }

    /// What [`Store::open`] found and repaired.
    pub fn recovery(&self) -> &Recovery {
        &self.0.recovery
    }

    /// The view of one namespace. It needs not exist: it is recorded when something is written.
    pub fn space(&self, namespace: &Namespace) -> Space {
        Space::new(self.clone(), namespace.clone())
    }

    /// Makes everything written to the root's file system durable (`syncfs`).
    ///
    /// # Errors
    /// [`StoreError::Sync`] if any write since the last sync was lost, whoever made it.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.sync_since(self.sync_mark())
    }

    /// Marks a moment for [`Store::sync_since`].
    pub fn sync_mark(&self) -> SyncMark {
        SyncMark(self.0.sync_failures.load(Ordering::Acquire))
    }

    /// Like [`Store::sync`], and fails too if a sync failed since `mark`, for whomever: the kernel reports a lost write
    /// once, so whoever wrote since before must hear of it from us.
    ///
    /// # Errors
    /// [`StoreError::Sync`]: what was written since `mark` may be lost and must be written again.
    pub fn sync_since(&self, mark: SyncMark) -> Result<(), StoreError> {
        let root = self.0.root.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = sync_file_system(&*root);
        if outcome.is_err() {
            self.0.sync_failures.fetch_add(1, Ordering::AcqRel);
        }
        let path = || self.0.layout.root.clone();
        outcome.map_err(|source| StoreError::Sync { path: path(), source: Some(source) })?;
        if mark == self.sync_mark() { Ok(()) } else { Err(StoreError::Sync { path: path(), source: None }) }
    }

    /// Moves a file or tree of the root's file system out of sight, to be unlinked soon by a thread. Absent is fine.
    ///
    /// # Errors
    /// [`StoreError::Io`] if it could not be renamed; it is still where it was.
    pub fn discard(&self, path: &Path) -> Result<(), StoreError> {
        self.0.trash.discard(path)?;
        self.0.trash.empty_soon();
        Ok(())
    }

    /// Unlinks what was discarded; it is gone from the disk when this returns, but for what the kernel refuses.
    pub fn empty_trash(&self) {
        self.0.trash.empty();
    }

    /// Numbers of all snapshots, over all snapshotters and namespaces: they share `snapshots/`. A directory whose number is
    /// not among them, and was not made since, belongs to nobody.
    ///
    /// As long as the record of some snapshot cannot be read, nobody knows its number, and every directory there is
    /// counts as somebody's.
    ///
    /// # Errors
    /// [`StoreError::Metadata`] if the records cannot be read; [`StoreError::Io`] if the directories cannot.
    pub fn snapshot_numbers(&self) -> Result<BTreeSet<u64>, StoreError> {
        let mut numbers = BTreeSet::new();
        let outcome = crate::snapshot::walk_all(&self.0.metadata, |_, _, record| {
            numbers.insert(record.number);
            ControlFlow::Continue(())
        });
        match outcome {
            Err(error @ StoreError::Record { .. }) => {
                tracing::warn!(%error, "no directory of a snapshot is taken for nobody's");
                numbers.extend(self.0.layout.snapshot_directories()?.into_iter().map(|(number, _)| number));
                crate::snapshot::walk_readable(&self.0.metadata, |_, _, record| {
                    numbers.insert(record.number);
                    ControlFlow::Continue(())
                })?;
            }
            other => other?,
        }
        Ok(numbers)
    }

    /// File of a blob, there or not.
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.0.layout.blob(digest)
    }
}

/// Repairs what a crash left. A damaged record on the way is dropped, and what it took with it made good.
fn recover(
    metadata: &Metadata,
    found: MetadataState,
    layout: &Layout,
    trash: &Trash,
) -> Result<(Recovery, Numbers), StoreError> {
    let used = layout.snapshot_directories()?.into_iter().map(|(number, _)| number).max().unwrap_or(0);
    let attempt =
        |found| Ok((recovery::run(metadata, found, layout, trash)?, Numbers::load(metadata, used)?));
    match attempt(found.clone()) {
        Err(error @ StoreError::Record { .. }) if !error.is_later_version() => {
            tracing::error!(%error, "a record is damaged");
            rebuild::demand(&layout.root)?;
            attempt(found)
        }
        other => other,
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store").field(&self.0.layout.root).finish()
    }
}

/// A moment, in failed syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncMark(u64);

/// Locks by digest: while one is held, nobody else puts that blob's file in place or takes it away.
///
/// They are needed because a file and its record cannot change in one step: without them a deletion could take away the
/// file that a new commit of the same content has just put in place. Taken in ascending order, so never in a circle.
pub(crate) struct DigestLocks([Mutex<()>; 64]);

impl Default for DigestLocks {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(())))
    }
}

impl DigestLocks {
    pub(crate) fn lock<'a>(&self, digests: impl Iterator<Item = &'a Digest>) -> Vec<MutexGuard<'_, ()>> {
        let stripes: BTreeSet<usize> = digests.map(|digest| usize::from(digest.as_bytes()[0]) % 64).collect();
        stripes
            .into_iter()
            .map(|stripe| self.0[stripe].lock().unwrap_or_else(PoisonError::into_inner))
            .collect()
    }
}
