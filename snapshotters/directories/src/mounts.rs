//! Mounts in containerd's words.

use std::path::{Path, PathBuf};

use snapshotters_contract::{Mount, PARENT_CHAIN_ID_LABEL, SnapshotError};
use storage_content::SnapshotRecord;
use storage_sys::mount::join_layers;

use crate::folder::{Folder, create};

/// What every overlay mount says, for clients that mount themselves: no layer may name another's directories or data
/// (rows U18 and U19: a layer is foreign), and nothing is kept in the work directory that outlives the mount.
const OPTIONS: [&str; 3] = ["index=off", "redirect_dir=nofollow", "metacopy=off"];

/// A bind of `source`, with what is mounted below it.
///
/// # Errors
/// [`SnapshotError::Root`] if the path is not UTF-8.
pub fn bind_mount(source: &Path, read_only: bool) -> Result<Mount, SnapshotError> {
    Ok(Mount {
        kind: "bind".to_owned(),
        source: text(source)?.to_owned(),
        target: String::new(),
        options: vec![if read_only { "ro" } else { "rw" }.to_owned(), "rbind".to_owned()],
    })
}

/// An overlay of `lower`, uppermost first; writable with a directory for what is written and one to work in.
///
/// # Errors
/// [`SnapshotError::Root`] if a path is not UTF-8.
pub fn overlay_mount(lower: &[PathBuf], upper_work: Option<(&Path, &Path)>) -> Result<Mount, SnapshotError> {
    let mut options: Vec<String> = OPTIONS.map(str::to_owned).to_vec();
    if let Some((upper, work)) = upper_work {
        options.push(format!("workdir={}", text(work)?));
        options.push(format!("upperdir={}", text(upper)?));
    }
    let layers = join_layers(lower.iter().map(PathBuf::as_path));
    let layers = layers.to_str().ok_or_else(|| SnapshotError::Root { path: lower[0].clone() })?;
    options.push(format!("lowerdir={layers}"));
    Ok(Mount { kind: "overlay".to_owned(), source: "overlay".to_owned(), target: String::new(), options })
}

fn text(path: &Path) -> Result<&str, SnapshotError> {
    path.to_str().ok_or_else(|| SnapshotError::Root { path: path.to_owned() })
}

impl Folder {
    /// Makes the directories of [`upper_mount`] if `record` is a snapshot on nothing that a client will put on a parent at
    /// its commit. To be called before `upper` appears, and only then: what a snapshot's mounts are is decided once.
    ///
    /// # Errors
    /// [`SnapshotError::Io`], [`SnapshotError::Full`].
    pub fn make_for_upper_mount(&self, record: &SnapshotRecord) -> Result<(), SnapshotError> {
        if record.parent.is_some() || !record.labels.contains_key(PARENT_CHAIN_ID_LABEL) {
            return Ok(());
        }
        let directory = self.of(record.number);
        create(&directory.join("work"), 0o711)?;
        create(&directory.join("lower"), 0o755)
    }
}

/// The mount of a snapshot on nothing that was made to be put on a parent at its commit, or none if it was not: an overlay
/// on an empty directory.
///
/// To a plain bind a client would write a layer's deletions nowhere, and what the layer deletes would appear again when
/// it is put on a parent (containerd #13030). containerd's applier sees an overlay and writes whiteouts into `upper`; who
/// mounts it sees what is in `upper`.
///
/// # Errors
/// [`SnapshotError::Root`] if a path is not UTF-8.
pub fn upper_mount(directory: &Path, upper: &Path) -> Result<Option<Mount>, SnapshotError> {
    let lower = directory.join("lower");
    if lower.symlink_metadata().is_err() {
        return Ok(None);
    }
    overlay_mount(&[lower], Some((upper, &directory.join("work")))).map(Some)
}
