//! The contract itself.

use std::ops::ControlFlow;
use std::path::PathBuf;

use storage_content::{LabelChange, Usage};
use storage_model::Labels;

use crate::{ActiveKey, CommittedName, Info, LayerTarget, Mount, SnapshotError, Tree};

/// Label by which a client that prepares a snapshot on nothing says that it will put it on a parent at its commit, and on
/// which (containerd's unpacker sets it on every layer but the first).
pub const PARENT_CHAIN_ID_LABEL: &str = "containerd.io/snapshot/parent-chain-id";

/// Keeps trees of files, each made on top of another, and says how they are mounted.
///
/// # Life cycle
/// ```text
/// prepare(key, parent) --> active --commit(key, name)--> committed: immutable, may be a parent
///        view(key, parent) --> view: read-only, is never committed          remove(...) ends all three
/// ```
/// A snapshot never changes kind: commit ends the active one and begins another of another name. Keys and names share one
/// space, and each can be used again once it was removed (or committed under another name).
///
/// # Guarantees
/// - **Tree**: what is mounted for an active snapshot or a view shows at first what its parent's tree showed when that
///   was committed: names, types, contents, owners, modes, times of files, hard links within one layer, extended
///   attributes. Without a parent it is an empty directory of mode 0755, owned by root.
/// - **Isolation**: writing to one snapshot changes no other, in whatever order they are made and removed.
/// - **Durability**: what was acknowledged survives a crash and a loss of power: the record of every snapshot, and the
///   files of a committed one. A call that did not return has happened wholly or, once the snapshotter was opened
///   again, not at all; `prepare` and `view` may then have happened, so a key may be taken that nobody acknowledged.
/// - **Removal**: nothing is removed that a snapshot stands on. Nothing that was removed is left on the disk after
///   [`cleanup`](Self::cleanup).
/// - **Scope**: a value is bound to one namespace, sees the snapshots of this one only, and adds what it makes to its
///   lease if it is bound to one.
///
/// # Not guaranteed
/// Mounting is the caller's work, and so is unmounting before commit or remove: a tree that is written to while it is
/// committed is committed as it is found, and one removed while mounted dies under its readers. Files of an active
/// snapshot are as durable as their writers make them. A directory of a lower layer may refuse to be renamed (`EXDEV`).
///
/// # Who synchronises
/// Calls may be made from any thread at any time. Those on different keys run side by side; those on one key are
/// serialised here, and of several that would make the same key exactly one succeeds. A call made from within `walk`'s
/// visitor does not lock up.
pub trait Snapshotter: Send + Sync {
    /// Name under which clients choose it; constant.
    fn name(&self) -> &'static str;

    /// Begins a writable snapshot on top of `parent`, or on an empty directory, and returns how to mount it.
    ///
    /// The mounts are never read-only as a whole. They may be used any number of times, one at a time.
    ///
    /// Without a parent and with [`PARENT_CHAIN_ID_LABEL`], the one mount is of type `overlay` and has an `upperdir`: a
    /// layer can be unpacked there, deletions in overlay form, before the parent exists.
    ///
    /// # Errors
    /// [`SnapshotError::AlreadyExists`] if `key` is taken, whatever its kind. Kind `NotFound` if there is no `parent`,
    /// `InvalidArgument` if it is not committed or a label is too long. Then there is no such snapshot afterwards.
    fn prepare(
        &self,
        key: &ActiveKey,
        parent: Option<&CommittedName>,
        labels: &Labels,
    ) -> Result<Vec<Mount>, SnapshotError>;

    /// Begins a read-only snapshot on top of `parent`, or on an empty directory, and returns how to mount it: what is
    /// mounted refuses to be written to.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    fn view(
        &self,
        key: &ActiveKey,
        parent: Option<&CommittedName>,
        labels: &Labels,
    ) -> Result<Vec<Mount>, SnapshotError>;

    /// The mounts that `prepare` or `view` returned for `key`, the same until the snapshot ends.
    ///
    /// # Errors
    /// [`SnapshotError::NotFound`]; [`SnapshotError::NotMountable`] for a committed snapshot; kind `DataLoss` or
    /// `Unavailable` if what lies below is damaged or cannot be reached.
    fn mounts(&self, key: &ActiveKey) -> Result<Vec<Mount>, SnapshotError>;

    /// Makes the active snapshot `key` the committed snapshot `name`, with exactly these `labels`; `key` is free then.
    ///
    /// Its parent stays; one that has none may be put on `rebase` in the same step, so that layers can be unpacked side
    /// by side and stacked afterwards. The files are durable when this returns.
    ///
    /// # Errors
    /// [`SnapshotError::NotFound`] if there is no `key` or no `rebase`; [`SnapshotError::AlreadyExists`] if `name` is
    /// taken; [`SnapshotError::NotActive`] for a view or a committed snapshot. Kind `InvalidArgument` if `rebase` is
    /// another than the parent it has, `FailedPrecondition` if `rebase` is not committed. Then `key` is as before.
    fn commit(
        &self,
        key: &ActiveKey,
        name: &CommittedName,
        rebase: Option<&CommittedName>,
        labels: &Labels,
    ) -> Result<(), SnapshotError> {
        self.commit_with_usage(key, name, rebase, labels, None)
    }

    /// [`commit`](Self::commit) for who unpacked the layer and has `counted` what it takes.
    ///
    /// Whoever passes a count says two things: that it is right, and that everything written below the snapshot's
    /// directory has been made durable since (one `syncfs` for all layers of an image). Neither is done again here, but
    /// for what the commit itself adds: a copy of the parent.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    fn commit_with_usage(
        &self,
        key: &ActiveKey,
        name: &CommittedName,
        rebase: Option<&CommittedName>,
        labels: &Labels,
        counted: Option<Usage>,
    ) -> Result<(), SnapshotError>;

    /// What is known about a snapshot of any kind.
    ///
    /// # Errors
    /// [`SnapshotError::NotFound`].
    fn stat(&self, key: &str) -> Result<Info, SnapshotError>;

    /// Changes the labels of a snapshot of any kind, and nothing else about it but the time of its last change.
    ///
    /// # Errors
    /// [`SnapshotError::NotFound`]; kind `InvalidArgument` if a label is too long. Then the labels are as before.
    fn update(&self, key: &str, change: LabelChange) -> Result<Info, SnapshotError>;

    /// What a snapshot takes on the disk, without what it stands on; one that is a copy of its parent takes all of it. A
    /// file of several names counts once.
    ///
    /// Constant time for a committed snapshot; for an active one its tree is walked, without any lock, and what changes
    /// meanwhile is counted or not.
    ///
    /// # Errors
    /// [`SnapshotError::NotFound`].
    fn usage(&self, key: &str) -> Result<Usage, SnapshotError>;

    /// Calls `visit` with every snapshot that exists during the whole walk, in no promised order, until it breaks. What
    /// is told equals what [`stat`](Self::stat) tells. `visit` may call this snapshotter.
    ///
    /// # Errors
    /// Those of the store; what was visited then was right.
    fn walk(&self, visit: &mut dyn FnMut(Info) -> ControlFlow<()>) -> Result<(), SnapshotError>;

    /// Ends a snapshot of any kind and frees its key. Its files may go later; see [`cleanup`](Self::cleanup).
    ///
    /// # Errors
    /// [`SnapshotError::NotFound`]; kind `FailedPrecondition`, with the word `remove` in the message (containerd's
    /// clients look for it), while another snapshot stands on it. Then it is as before.
    fn remove(&self, key: &str) -> Result<(), SnapshotError>;

    /// Frees what removed, collected and never finished snapshots of all namespaces left on the disk.
    ///
    /// # Errors
    /// What cannot be freed is left for the next time, and the first such error is returned.
    fn cleanup(&self) -> Result<(), SnapshotError>;

    /// Where a layer can be unpacked into an active snapshot without mounting it. Its tree is then the same as if the
    /// layer had been unpacked into the mounts. One that stands on nothing takes deletions in overlay form, for the parent
    /// it may be put on.
    ///
    /// # Errors
    /// [`SnapshotError::NotFound`]; [`SnapshotError::NotActive`].
    fn layer_target(&self, key: &ActiveKey) -> Result<LayerTarget, SnapshotError>;

    /// The directories of a committed snapshot and of what it stands on, the highest first: what an overlay of it would
    /// have as lower layers. For who must look at lower layers while one is unpacked without a mount.
    ///
    /// # Errors
    /// [`SnapshotError::NotFound`] if no committed snapshot has this name.
    fn layers(&self, name: &CommittedName) -> Result<Vec<PathBuf>, SnapshotError>;

    /// What a committed snapshot and each it stands on keep on the disk, the highest first: for who checks and repairs it.
    ///
    /// # Errors
    /// [`SnapshotError::NotFound`] if no committed snapshot has this name.
    fn trees(&self, name: &CommittedName) -> Result<Vec<Tree>, SnapshotError>;
}
