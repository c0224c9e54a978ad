//! What is told about a snapshot.

use std::path::PathBuf;
use std::time::SystemTime;

use storage_content::{SnapshotKind, SnapshotRecord};
use storage_model::Labels;

/// A snapshot, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Key, or name if it is committed.
    pub name: String,
    /// What it is; never changes for one `name` unless that is removed or committed in between.
    pub kind: SnapshotKind,
    /// The committed snapshot it stands on; none for one that began empty.
    pub parent: Option<String>,
    /// Its labels, the only thing about it that [`crate::Snapshotter::update`] changes.
    pub labels: Labels,
    /// When it came to be: by prepare or view, or, for a committed one, by commit.
    pub created: SystemTime,
    /// When its labels were last changed; `created <= updated`.
    pub updated: SystemTime,
}

impl From<SnapshotRecord> for Info {
    fn from(record: SnapshotRecord) -> Self {
        Self {
            name: record.key,
            kind: record.kind,
            parent: record.parent,
            labels: record.labels,
            created: record.created,
            updated: record.updated,
        }
    }
}

/// How deletions are written into the directory of an active snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhiteoutForm {
    /// The directory holds differences: a deletion is an overlay whiteout, a replaced directory is marked opaque.
    Overlay,
    /// The directory holds the whole tree, parents' files included: a deletion deletes.
    Apply,
}

impl From<WhiteoutForm> for storage_layer::Whiteouts {
    fn from(form: WhiteoutForm) -> Self {
        match form {
            WhiteoutForm::Overlay => Self::Overlay,
            WhiteoutForm::Apply => Self::Apply,
        }
    }
}

/// Where a layer may be unpacked without mounting anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerTarget {
    /// An existing directory, absolute; the snapshot's top directory.
    pub path: PathBuf,
    /// How deletions are written there.
    pub whiteouts: WhiteoutForm,
    /// Where the unpacker writes its record of the tree, a file that is not there yet; none if the tree that is committed
    /// will not be the one that was unpacked.
    pub record: Option<PathBuf>,
}

/// What a committed snapshot, or one it stands on, keeps on the disk: for who checks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Name of the snapshot.
    pub name: String,
    /// Its files, in the form in which a layer was unpacked into them.
    pub files: PathBuf,
    /// Where the record of them lies that was written when they were unpacked ([`LayerTarget::record`]). It is not there
    /// if the files were not unpacked by us.
    pub record: Option<PathBuf>,
}
