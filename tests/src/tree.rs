//! Reads a directory tree completely, so that two of them can be compared.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use storage_model::Digest;

/// All that an unpacked image promises about one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Type: `file`, `directory`, `symlink`, `character`, `block`, `fifo`, `socket`.
    pub kind: &'static str,
    /// Permission bits, set-id and sticky included.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// Time of last change, seconds and nanoseconds; zero for directories, whose times unpacking itself changes.
    pub mtime: (i64, i64),
    /// Link count; zero for directories, where it counts subdirectories on some file systems only.
    pub links: u64,
    /// First path, in byte order, of the same inode; empty when it has one name.
    pub same_as: PathBuf,
    /// Digest of a file's content, target of a symbolic link, number of a device.
    pub content: String,
    /// Extended attributes as `name=hex`.
    pub xattrs: Vec<String>,
}

/// Reads the tree below `root`, keys relative to it; the root itself is the empty path.
///
/// # Errors
/// A file or its attributes cannot be read.
pub fn read_tree(root: &Path) -> Result<BTreeMap<PathBuf, Node>> {
    let mut tree = BTreeMap::new();
    let mut inodes: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        let path = root.join(&relative);
        let metadata = path.symlink_metadata().with_context(|| format!("{}", path.display()))?;
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                pending.push(relative.join(entry?.file_name()));
            }
        } else {
            inodes.entry(metadata.ino()).or_default().push(relative.clone());
        }
        tree.insert(relative, node(&path, &metadata, read_xattrs(&path)?)?);
    }
    for mut names in inodes.into_values().filter(|names| names.len() > 1) {
        names.sort();
        for name in &names {
            if let Some(node) = tree.get_mut(name) {
                node.same_as.clone_from(&names[0]);
            }
        }
    }
    Ok(tree)
}

fn node(path: &Path, metadata: &fs::Metadata, xattrs: Vec<String>) -> Result<Node> {
    let kind = metadata.file_type();
    let device = || format!("{}:{}", metadata.rdev() >> 8, metadata.rdev() & 0xff);
    let (kind, content) = if kind.is_file() {
        ("file", Digest::of(&fs::read(path)?).to_string())
    } else if kind.is_dir() {
        ("directory", String::new())
    } else if kind.is_symlink() {
        ("symlink", fs::read_link(path)?.to_string_lossy().into_owned())
    } else if kind.is_char_device() {
        ("character", device())
    } else if kind.is_block_device() {
        ("block", device())
    } else if kind.is_fifo() {
        ("fifo", String::new())
    } else {
        ("socket", String::new())
    };
    let directory = metadata.is_dir();
    Ok(Node {
        kind,
        mode: metadata.mode() & 0o7777,
        owner: (metadata.uid(), metadata.gid()),
        mtime: if directory { (0, 0) } else { (metadata.mtime(), metadata.mtime_nsec()) },
        links: if directory { 0 } else { metadata.nlink() },
        same_as: PathBuf::new(),
        content,
        xattrs,
    })
}

/// The extended attributes of one path, itself and not what it points to, as `name=hex`, sorted.
fn read_xattrs(path: &Path) -> Result<Vec<String>> {
    let problem = || format!("the extended attributes of {}", path.display());
    // An empty buffer is no question for the size in `rustix`: it has calls of their own for that.
    let mut names = vec![0; rustix::fs::llistxattr_query(path).with_context(problem)?];
    let count = if names.is_empty() {
        0
    } else {
        rustix::fs::llistxattr(path, &mut names[..]).with_context(problem)?
    };
    let mut found = Vec::new();
    for name in names[..count].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; rustix::fs::lgetxattr_query(path, name).with_context(problem)?];
        let length = match value.len() {
            0 => 0,
            _ => rustix::fs::lgetxattr(path, name, &mut value[..]).with_context(problem)?,
        };
        let hex: String = value[..length].iter().map(|byte| format!("{byte:02x}")).collect();
        found.push(format!("{}={hex}", String::from_utf8_lossy(name)));
    }
    found.sort();
    Ok(found)
}

/// What differs between two trees, one line a path, at most twenty; empty when nothing does.
pub fn difference(expected: &BTreeMap<PathBuf, Node>, actual: &BTreeMap<PathBuf, Node>) -> String {
    let mut lines = Vec::new();
    for (path, node) in expected {
        match actual.get(path) {
            None => lines.push(format!("/{}: missing", path.display())),
            Some(other) if other != node => {
                lines.push(format!("/{}:\n  expected {node:?}\n  found    {other:?}", path.display()));
            }
            Some(_) => {}
        }
    }
    let extra = actual.keys().filter(|path| !expected.contains_key(*path));
    lines.extend(extra.map(|path| format!("/{}: should not be there", path.display())));
    let total = lines.len();
    lines.truncate(20);
    if total > lines.len() {
        lines.push(format!("... and {} more", total - lines.len()));
    }
    lines.join("\n")
}
