//! What an entry does to a tree: names, whiteouts, attributes.

use std::collections::HashSet;
use std::io::{self, BufRead};
use std::path::Path;

use storage_sys::tree::{Attributes, EntryPath, Finished, Node, Start, Tree};

use crate::record::Recording;
use crate::tar::{Entry, EntryKind, Piece, Reader, TarError, Xattrs};
use crate::{EntryName, EntryRefused, LayerError, UnpackOptions, Whiteouts, escape};

/// What a tar did.
pub(crate) struct Applied {
    pub(crate) entries: u64,
    pub(crate) finished: Finished,
}

/// Reads a tar to the end of the input and writes it into `target`.
pub(crate) fn apply(
    input: &mut impl BufRead,
    target: &Path,
    options: &UnpackOptions,
) -> Result<Applied, LayerError> {
    let start = match options.whiteouts {
        Whiteouts::Overlay => Start::Upper,
        Whiteouts::Apply => Start::Whole,
    };
    let opened = Tree::open(target, start);
    let tree = opened.map_err(|source| LayerError::Target { path: target.to_owned(), source })?;
    let ours = HashSet::new();
    let mut this = Apply {
        reader: Reader::new(input, &options.limits),
        tree,
        whiteouts: options.whiteouts,
        ours,
        record: options.record.is_some().then(Recording::new),
        has_root: false,
    };
    let mut entries = 0;
    while let Some(entry) = this.reader.next_entry().map_err(LayerError::Tar)? {
        entries += 1;
        if entries > options.limits.entries_max {
            return Err(LayerError::TooManyEntries { limit: options.limits.entries_max });
        }
        this.entry(&entry)?;
    }
    this.reader.drain().map_err(LayerError::Tar)?;
    let Apply { tree, record, has_root, .. } = this;
    let finished = tree.finish().map_err(|(path, source)| LayerError::Write {
        name: EntryName(path.as_bytes().to_vec()),
        action: "set the owner, mode, attributes or times of the directory",
        source,
    })?;
    if let (Some(record), Some(path)) = (record, &options.record) {
        let root = EntryPath::root();
        let mut implied: HashSet<&EntryPath> = finished.implied.iter().collect();
        if !has_root {
            implied.insert(&root);
        }
        let failed = |source| LayerError::Record { path: path.clone(), source };
        record.write(target, path, &implied, finished.marked).map_err(failed)?;
    }
    Ok(Applied { entries, finished })
}

struct Apply<'i, I> {
    reader: Reader<&'i mut I>,
    tree: Tree,
    whiteouts: Whiteouts,
    /// What this layer brought, with the directories these lie in: a whiteout leaves it. Only for [`Whiteouts::Apply`];
    /// the overlay form needs no memory of it.
    ours: HashSet<EntryPath>,
    /// What the tree will have to look like, if that is wanted.
    record: Option<Recording>,
    /// The layer has an entry for the root.
    has_root: bool,
}

/// Why a step of an entry failed, before its name is added.
enum Failed {
    Refused(EntryRefused),
    Kernel(&'static str, io::Error),
    Tar(TarError),
}

impl From<TarError> for Failed {
    fn from(error: TarError) -> Self {
        Self::Tar(error)
    }
}

impl From<EntryRefused> for Failed {
    fn from(reason: EntryRefused) -> Self {
        Self::Refused(reason)
    }
}

fn kernel(action: &'static str) -> impl FnOnce(io::Error) -> Failed {
    move |error| match error.raw_os_error() {
        Some(NOT_A_DIRECTORY) => Failed::Refused(EntryRefused::NotADirectory),
        _ => Failed::Kernel(action, error),
    }
}

/// `ENOTDIR` on Linux, all architectures.
const NOT_A_DIRECTORY: i32 = 20;
/// Bytes of a name and of a value of an extended attribute the kernel takes (`XATTR_NAME_MAX`, `XATTR_SIZE_MAX`).
const XATTR_NAME_MAX: usize = 255;
const XATTR_VALUE_MAX: usize = 65536;

/// What the last component of a name asks for.
enum Meaning {
    Entry,
    /// The name that is deleted.
    Whiteout(EntryPath),
    /// The directory whose lower content is deleted.
    Opaque(EntryPath),
    /// AUFS's own files: no part of the image.
    Ignored,
}

fn meaning(path: &EntryPath) -> Result<Meaning, EntryRefused> {
    let first = path.as_bytes().split(|&byte| byte == b'/').next().unwrap_or_default();
    let Some((_, leaf)) = path.split() else { return Ok(Meaning::Entry) };
    if leaf == b".wh..wh..opq" {
        return Ok(Meaning::Opaque(path.parent()));
    }
    if leaf.starts_with(b".wh..wh.") || first.starts_with(b".wh..wh.") {
        return Ok(Meaning::Ignored);
    }
    match leaf.strip_prefix(b".wh.") {
        None => Ok(Meaning::Entry),
        Some(b"" | b"." | b"..") => Err(EntryRefused::Whiteout),
        Some(name) => Ok(Meaning::Whiteout(path.parent().child(name))),
    }
}

impl<I: BufRead> Apply<'_, I> {
    fn entry(&mut self, entry: &Entry) -> Result<(), LayerError> {
        self.one(entry).map_err(|failed| {
            let name = EntryName(entry.name.clone());
            match failed {
                Failed::Refused(reason) => LayerError::Entry { name, reason },
                Failed::Kernel(action, source) => LayerError::Write { name, action, source },
                Failed::Tar(error) => LayerError::Tar(error),
            }
        })
    }

    fn one(&mut self, entry: &Entry) -> Result<(), Failed> {
        let path = EntryPath::parse(&entry.name).map_err(EntryRefused::Name)?;
        if path.is_root() && entry.kind != EntryKind::Directory {
            return Err(EntryRefused::Root.into());
        }
        match meaning(&path)? {
            Meaning::Entry => {}
            Meaning::Whiteout(hidden) => return self.whiteout(&hidden),
            Meaning::Opaque(directory) => return self.opaque(&directory),
            Meaning::Ignored => {
                tracing::debug!(name = %EntryName(entry.name.clone()), "left out: AUFS's own file");
                return Ok(());
            }
        }
        let xattrs = kept_xattrs(entry, self.whiteouts)?;
        let attributes = Attributes {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            atime: entry.atime.map_or(entry.mtime, |atime| atime.max(entry.mtime)),
            xattrs: &xattrs,
        };
        self.make(entry, &path, &attributes)?;
        self.has_root |= path.is_root();
        if self.whiteouts == Whiteouts::Apply {
            self.remember(path);
        }
        Ok(())
    }

    fn make(&mut self, entry: &Entry, path: &EntryPath, attributes: &Attributes<'_>) -> Result<(), Failed> {
        match &entry.kind {
            EntryKind::File => self.file(path, entry.size, attributes),
            EntryKind::Directory => {
                self.tree.directory(path, attributes).map_err(kernel("make the directory"))
            }
            EntryKind::Symlink(target) => {
                if target.is_empty() || target.len() > EntryPath::BYTES_MAX {
                    return Err(EntryRefused::SymlinkTarget.into());
                }
                self.tree.symlink(path, target, attributes).map_err(kernel("make the symbolic link"))
            }
            EntryKind::HardLink(target) => self.hard_link(path, target),
            EntryKind::Char { major: 0, minor: 0 } => Err(EntryRefused::WhiteoutDevice.into()),
            EntryKind::Char { major, minor } => {
                self.node(path, Node::Char { major: *major, minor: *minor }, (*major, *minor), attributes)
            }
            EntryKind::Block { major, minor } => {
                self.node(path, Node::Block { major: *major, minor: *minor }, (*major, *minor), attributes)
            }
            EntryKind::Fifo => self.node(path, Node::Fifo, (0, 0), attributes),
        }
    }

    fn file(&mut self, path: &EntryPath, size: u64, attributes: &Attributes<'_>) -> Result<(), Failed> {
        let mut file = self.tree.file(path, attributes.mode).map_err(kernel("make the file"))?;
        let mut record = self.record.as_mut();
        if let Some(record) = &mut record {
            record.content.start(size);
        }
        self.reader.read_data(|piece| {
            let written = match piece {
                Piece::Data(bytes) => file.write(bytes),
                Piece::Hole(bytes) => file.hole(bytes),
            };
            match (piece, &mut record) {
                (Piece::Data(bytes), Some(record)) => record.content.data(bytes),
                (Piece::Hole(bytes), Some(record)) => record.content.hole(bytes),
                (_, None) => {}
            }
            written.map_err(kernel("write the file"))
        })?;
        let failed = kernel("set the owner, mode, attributes or times of the file");
        let Some(record) = record else { return self.tree.close(file, attributes).map_err(failed) };
        let facts = self.tree.close_and_look(file, attributes).map_err(failed)?;
        record.file(facts, !attributes.xattrs.is_empty() || self.tree.inherits_attributes());
        Ok(())
    }

    fn hard_link(&mut self, path: &EntryPath, target: &[u8]) -> Result<(), Failed> {
        let name = || EntryName(target.to_vec());
        let to = EntryPath::parse_confined(target).map_err(EntryRefused::LinkName)?;
        if to.is_root() {
            return Err(EntryRefused::LinkToDirectory { target: name() }.into());
        }
        self.tree.hard_link(path, &to).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => EntryRefused::LinkTarget { target: name() }.into(),
            io::ErrorKind::PermissionDenied => EntryRefused::LinkToDirectory { target: name() }.into(),
            _ => kernel("make the hard link")(error),
        })
    }

    fn node(
        &mut self,
        path: &EntryPath,
        node: Node,
        (major, minor): (u32, u32),
        attributes: &Attributes<'_>,
    ) -> Result<(), Failed> {
        if major >= 1 << 12 || minor >= 1 << 20 {
            return Err(EntryRefused::Device { major, minor }.into());
        }
        self.tree.node(path, node, attributes).map_err(kernel("make the device or pipe"))
    }

    fn whiteout(&mut self, hidden: &EntryPath) -> Result<(), Failed> {
        match self.whiteouts {
            Whiteouts::Overlay => self.tree.whiteout(hidden).map_err(kernel("write down the deletion")),
            Whiteouts::Apply if self.ours.contains(hidden) => self.prune(hidden),
            Whiteouts::Apply => self.tree.remove(hidden).map_err(kernel("delete what the layer deletes")),
        }
    }

    fn opaque(&mut self, directory: &EntryPath) -> Result<(), Failed> {
        match self.whiteouts {
            Whiteouts::Overlay => self.tree.opaque(directory).map_err(kernel("write down the deletion")),
            Whiteouts::Apply => self.prune(directory),
        }
    }

    /// Deletes what a directory has from lower layers and keeps what this one brought.
    fn prune(&mut self, directory: &EntryPath) -> Result<(), Failed> {
        let mut todo = vec![directory.clone()];
        while let Some(directory) = todo.pop() {
            let children = self.tree.children(&directory).map_err(kernel("read the directory"))?;
            for (child, is_directory) in children {
                if !self.ours.contains(&child) {
                    self.tree.remove(&child).map_err(kernel("delete what the layer deletes"))?;
                } else if is_directory {
                    todo.push(child);
                }
            }
        }
        Ok(())
    }

    fn remember(&mut self, path: EntryPath) {
        let mut next = path;
        while !next.is_root() {
            let parent = next.parent();
            if !self.ours.insert(next) {
                return;
            }
            next = parent;
        }
    }
}

/// The extended attributes an image may set. Those in overlayfs's own namespaces would redirect, hide or merge: in an
/// overlay's directory they are escaped, in a whole tree left out. Capabilities bound to a user namespace are refused.
fn kept_xattrs(entry: &Entry, whiteouts: Whiteouts) -> Result<Xattrs, EntryRefused> {
    let mut kept = Vec::with_capacity(entry.xattrs.len());
    for (name, value) in &entry.xattrs {
        let name = match (escape::escaped(name), whiteouts) {
            (None, _) => name.clone(),
            (Some(escaped), Whiteouts::Overlay) => escaped,
            (Some(_), Whiteouts::Apply) => {
                tracing::debug!(entry = %EntryName(entry.name.clone()), xattr = %EntryName(name.clone()), "left out");
                continue;
            }
        };
        if name.len() > XATTR_NAME_MAX || value.len() > XATTR_VALUE_MAX {
            return Err(EntryRefused::Xattr { name: EntryName(name) });
        }
        // struct vfs_ns_cap_data: revision in the top byte of a little-endian word.
        if name == b"security.capability" && value.get(3) == Some(&3) {
            return Err(EntryRefused::NamespacedCapability);
        }
        kept.push((name, value.clone()));
    }
    Ok(kept)
}
