//! What differs between snapshotters that keep their trees in numbered directories.

use std::fmt::Debug;
use std::path::PathBuf;

use snapshotters_contract::{LayerTarget, Mount, SnapshotError, Usage};
use storage_content::SnapshotRecord;

use crate::folder::Folder;

/// A snapshot and what it stands on.
#[derive(Debug)]
pub struct Stacked {
    /// The snapshot.
    pub record: SnapshotRecord,
    /// All it stands on, lowest first; empty for one that stands on nothing.
    pub parents: Vec<SnapshotRecord>,
}

/// How trees lie in the directories of a [`Folder`].
///
/// Methods are called side by side for different numbers. [`make`](Self::make) and [`seal`](Self::seal) are never called
/// twice at once for one number.
pub trait Form: Debug + Send + Sync + 'static {
    /// Name of the snapshotter.
    const NAME: &'static str;

    /// Makes what is absent of the directory of an active snapshot or a view: after a crash that may be a part of it.
    ///
    /// # Errors
    /// [`SnapshotError::Missing`] if a parent's files are not there; what was made is made use of the next time.
    fn make(&self, folder: &Folder, snapshot: &Stacked) -> Result<(), SnapshotError>;

    /// The mounts of an active snapshot or a view that was made.
    ///
    /// # Errors
    /// [`SnapshotError::Root`].
    fn mounts(&self, folder: &Folder, snapshot: &Stacked) -> Result<Vec<Mount>, SnapshotError>;

    /// Directory of a snapshot's own files, there or not: what its usage counts and a check looks at.
    fn files(&self, folder: &Folder, record: &SnapshotRecord) -> PathBuf;

    /// Where a layer is unpacked into an active snapshot that was made.
    fn target(&self, folder: &Folder, snapshot: &Stacked) -> LayerTarget;

    /// Of a committed snapshot and all it stands on (lowest first), the directories that an overlay of it would have.
    fn layers(&self, folder: &Folder, lineage: &[SnapshotRecord]) -> Vec<PathBuf>;

    /// Where the record of a snapshot's tree lies if one was written.
    fn record(&self, folder: &Folder, record: &SnapshotRecord) -> Option<PathBuf>;

    /// Makes the files of an active snapshot ready to be those of a committed one that stands on what it stands on, or on
    /// `base` if that is given; durably. Returns what they take.
    ///
    /// With `counted` they are durable and counted already, but for what this changes. May be called again, with another
    /// `base`, if the commit fails afterwards.
    ///
    /// # Errors
    /// Of any kind; the snapshot is then as before.
    fn seal(
        &self,
        folder: &Folder,
        snapshot: &Stacked,
        base: Option<&SnapshotRecord>,
        counted: Option<Usage>,
    ) -> Result<Usage, SnapshotError>;

    /// Lets go of what a snapshot needed only until it was committed. Called after every commit; a crash may come between.
    fn sealed(&self, folder: &Folder, number: u64) {
        let _ = (folder, number);
    }

    /// Lets go of what a crash left between a commit and [`sealed`](Self::sealed).
    ///
    /// # Errors
    /// Those of the store; what is left is found the next time.
    fn sweep(&self, folder: &Folder) -> Result<(), SnapshotError> {
        let _ = folder;
        Ok(())
    }
}
