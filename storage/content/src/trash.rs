//! Deleting in two steps: rename into `trash/`, unlink later.
//!
//! The rename is what readers of the directory see and costs microseconds; unlinking a large tree takes seconds and is
//! done by a thread. A crash between the two leaves the entry in `trash/`, which is emptied at the next start.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::StoreError;

/// Entries unlinked side by side. On a disk mounted with `discard` each freed extent waits for the device (1 to 4 ms
/// measured, for a file of 4 KiB too), and these waits overlap.
const UNLINKS_AT_ONCE: usize = 8;

/// The trash of one store.
#[derive(Debug, Clone)]
pub(crate) struct Trash(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    /// Names are `<process id>-<number>`; a store of the same process continues behind the entries it finds.
    next: AtomicU64,
    /// Whether a thread is about to empty the trash.
    scheduled: AtomicBool,
    /// One empties at a time.
    emptying: Mutex<()>,
}

impl Trash {
    pub(crate) fn new(directory: PathBuf) -> Self {
        let inner = Inner {
            directory,
            next: AtomicU64::new(0),
            scheduled: AtomicBool::new(false),
            emptying: Mutex::new(()),
        };
        Self(Arc::new(inner))
    }

    /// Moves `path` (a file or a tree, on the same file system) out of sight. Absent is as good as moved.
    pub(crate) fn discard(&self, path: &Path) -> Result<(), StoreError> {
        loop {
            let number = self.0.next.fetch_add(1, Ordering::Relaxed);
            let target = self.0.directory.join(format!("{}-{number}", std::process::id()));
            if target.symlink_metadata().is_ok() {
                continue;
            }
            return match std::fs::rename(path, &target) {
                Ok(()) => Ok(()),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                Err(error) => Err(StoreError::io("discard", path, error)),
            };
        }
    }

    /// Unlinks everything now. What cannot be unlinked is logged and left for the next time.
    pub(crate) fn empty(&self) {
        let _guard = self.0.emptying.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(entries) = self.0.directory.read_dir() else { return };
        let entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        let next = AtomicUsize::new(0);
        let unlink = || {
            while let Some(path) = entries.get(next.fetch_add(1, Ordering::Relaxed)) {
                unlink(path);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..entries.len().min(UNLINKS_AT_ONCE) {
                // Without a further thread it takes longer, that is all.
                if std::thread::Builder::new().name("trash".to_owned()).spawn_scoped(scope, unlink).is_err() {
                    break;
                }
            }
            unlink();
        });
    }

    /// Unlinks everything soon, on a thread of its own.
    pub(crate) fn empty_soon(&self) {
        if self.0.scheduled.swap(true, Ordering::AcqRel) {
            return;
        }
        let trash = self.clone();
        let work = move || {
            // Cleared first: what is discarded from here on may be missed by this round and needs the next.
            trash.0.scheduled.store(false, Ordering::Release);
            trash.empty();
        };
        if let Err(error) = std::thread::Builder::new().name("trash".to_owned()).spawn(work) {
            self.0.scheduled.store(false, Ordering::Release);
            tracing::warn!(%error, "cannot start a thread to empty the trash; it is emptied by the next collection");
        }
    }
}

/// Unlinks one entry, of any depth: a foreign layer's tree may be deeper than the standard library's removal can go.
fn unlink(path: &Path) {
    if let Err(error) = storage_sys::tree::remove_all(path)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot delete from the trash; it is tried again later");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_discarded_is_gone_at_once_and_unlinked_when_emptied() {
        let root = tempfile::tempdir().unwrap();
        let trash = Trash::new(root.path().join("trash"));
        std::fs::create_dir(root.path().join("trash")).unwrap();
        std::fs::create_dir_all(root.path().join("tree/below")).unwrap();
        std::fs::write(root.path().join("tree/below/file"), b"x").unwrap();
        trash.discard(&root.path().join("tree")).unwrap();
        trash.discard(&root.path().join("never-there")).unwrap();
        assert!(!root.path().join("tree").exists());
        trash.empty();
        assert_eq!(root.path().join("trash").read_dir().unwrap().count(), 0);
    }
}
