//! From a stack of directories to mounts, in containerd's words.

use std::path::{Path, PathBuf};

use snapshotters_contract::{Mount, SnapshotError};
use storage_sys::mount::{LAYERS_MAX, join_layers};

/// What every overlay mount says, for clients that mount themselves: no layer may name another's directories or data
/// (rows U18 and U19: a layer is foreign), and nothing is kept in the work directory that outlives the mount.
const OPTIONS: [&str; 3] = ["index=off", "redirect_dir=nofollow", "metacopy=off"];

/// What is mounted for one snapshot.
pub(crate) struct Stack {
    /// Directories of the parents, uppermost first.
    pub(crate) lower: Vec<PathBuf>,
    /// The snapshot's own files and work directory; for one on nothing, its files alone matter.
    pub(crate) own: Own,
}

/// The snapshot's own part of a stack.
pub(crate) enum Own {
    /// Files, and a directory for overlayfs to work in.
    Writable(PathBuf, PathBuf),
    /// An empty directory, used if there is nothing else to show.
    ReadOnly(PathBuf),
}

impl Stack {
    /// Refuses a stack that no kernel mounts.
    pub(crate) fn check(key: &str, count: usize) -> Result<(), SnapshotError> {
        if count > LAYERS_MAX {
            return Err(SnapshotError::TooManyLayers { key: key.to_owned(), count, max: LAYERS_MAX });
        }
        Ok(())
    }

    /// The mounts: a bind where there is one directory, an overlay where there are several.
    pub(crate) fn mounts(&self) -> Result<Vec<Mount>, SnapshotError> {
        let mount = match (&self.own, self.lower.as_slice()) {
            (Own::Writable(files, _), []) => bind(files, "rw")?,
            (Own::ReadOnly(files), []) => bind(files, "ro")?,
            (Own::ReadOnly(_), [only]) => bind(only, "ro")?,
            (Own::ReadOnly(_), lower) => overlay(lower, Vec::new())?,
            (Own::Writable(files, work), lower) => overlay(
                lower,
                vec![format!("workdir={}", text(work)?), format!("upperdir={}", text(files)?)],
            )?,
        };
        Ok(vec![mount])
    }
}

fn bind(source: &Path, access: &str) -> Result<Mount, SnapshotError> {
    Ok(Mount {
        kind: "bind".to_owned(),
        source: text(source)?.to_owned(),
        target: String::new(),
        options: vec![access.to_owned(), "rbind".to_owned()],
    })
}

fn overlay(lower: &[PathBuf], writable: Vec<String>) -> Result<Mount, SnapshotError> {
    let layers = join_layers(lower.iter().map(PathBuf::as_path));
    let layers = layers.to_str().ok_or_else(|| SnapshotError::Root { path: lower[0].clone() })?;
    let mut options: Vec<String> = OPTIONS.map(str::to_owned).to_vec();
    options.extend(writable);
    options.push(format!("lowerdir={layers}"));
    Ok(Mount { kind: "overlay".to_owned(), source: "overlay".to_owned(), target: String::new(), options })
}

fn text(path: &Path) -> Result<&str, SnapshotError> {
    path.to_str().ok_or_else(|| SnapshotError::Root { path: path.to_owned() })
}
