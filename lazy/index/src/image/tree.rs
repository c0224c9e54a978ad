//! What one layer's entries give when they are unpacked in order, as a tree in memory.
//!
//! The rules are those of `storage-layer`'s unpacker in overlay form, one for one, because a lazily mounted image must be
//! the tree it would be unpacked: an entry replaces what had its name, only a directory onto a directory merges; symbolic
//! links on the way are followed inside the layer; missing parents are implied; a whiteout hides what lower layers have
//! and leaves what this one brings. `tests/same_as_unpacked.rs` compares the two on generated layers.
//!
//! Not here: how layers stack (`merge.rs`).

use std::collections::BTreeMap;

use crate::{Entry, IndexError, Kind, Limits, Toc};

/// Links followed on one path: the kernel's own limit.
const LINKS_MAX: usize = 40;
/// Bytes of a name and of a value of an extended attribute the kernel takes (`XATTR_NAME_MAX`, `XATTR_SIZE_MAX`).
const XATTR_VALUE_MAX: usize = 65536;

/// The number of a node in [`Tree::nodes`].
pub(crate) type Place = u32;
/// The root's.
pub(crate) const ROOT: Place = 0;

/// An entry that gives a node its attributes: the number of its layer, and its own.
pub(crate) type Source = (u32, u32);

/// A node of a tree.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    /// Where its attributes come from; `None` for what no layer describes.
    pub(crate) source: Option<Source>,
    pub(crate) what: What<'a>,
}

/// What a node is, as far as names are concerned.
#[derive(Debug)]
pub(crate) enum What<'a> {
    Directory(Directory<'a>),
    /// Anything that an entry describes and that is no directory; the target, if it is a symbolic link.
    Leaf(Option<&'a [u8]>),
    /// Nothing, and whatever lower layers have is gone.
    Whiteout,
}

/// A directory.
#[derive(Debug, Default)]
pub(crate) struct Directory<'a> {
    pub(crate) names: BTreeMap<&'a [u8], Place>,
    /// What lower layers have in it is gone.
    pub(crate) opaque: bool,
    /// It has no entry of its own: its attributes come from the layers below, if they have it.
    pub(crate) implied: bool,
}

/// Some layers as a tree. Nodes are never removed from the list, only from their directories.
#[derive(Debug)]
pub(crate) struct Tree<'a> {
    /// The root is the first.
    pub(crate) nodes: Vec<Node<'a>>,
    /// Most nodes it may get; `nodes.len() <= nodes_max < 2^32`.
    nodes_max: usize,
}

impl<'a> Tree<'a> {
    /// A root without entries.
    pub(crate) fn empty(limits: &Limits) -> Self {
        let root = Node { source: None, what: What::Directory(Directory::default()) };
        Self { nodes: vec![root], nodes_max: limits.nodes_max.min(Place::MAX as usize) }
    }

    /// The tree of layer number `layer`.
    ///
    /// # Errors
    /// [`IndexError::Entry`] for what the unpacker refuses: a file as a parent, a hard link to nothing or to a directory,
    /// a whiteout of nothing, links that go round.
    pub(crate) fn of_layer(layer: u32, toc: &'a Toc, limits: &Limits) -> Result<Self, IndexError> {
        let mut tree = Self::empty(limits);
        for (number, entry) in toc.entries.iter().enumerate() {
            let number = u32::try_from(number).map_err(|_| refused(entry, "there are too many before it"))?;
            tree.apply((layer, number), entry).map_err(|reason| refused(entry, reason))?;
        }
        Ok(tree)
    }

    /// The directory at `place`, if it is one.
    pub(crate) fn directory(&self, place: Place) -> Option<&Directory<'a>> {
        match &self.nodes.get(place as usize)?.what {
            What::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// As [`Tree::directory`], to change it.
    pub(crate) fn directory_mut(&mut self, place: Place) -> Option<&mut Directory<'a>> {
        match &mut self.nodes.get_mut(place as usize)?.what {
            What::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// Adds a node that no directory names yet.
    ///
    /// # Errors
    /// If there are as many as [`Limits::nodes_max`] already.
    pub(crate) fn add(&mut self, node: Node<'a>) -> Result<Place, &'static str> {
        if self.nodes.len() >= self.nodes_max {
            return Err("with it, the image has more files and directories than the limit allows");
        }
        self.nodes.push(node);
        Ok((self.nodes.len() - 1) as Place)
    }

    fn apply(&mut self, source: Source, entry: &'a Entry) -> Result<(), &'static str> {
        let Some((directory, leaf)) = split(&entry.path) else {
            return self.root(source, entry);
        };
        match meaning(directory, leaf)? {
            Meaning::Ignored => return Ok(()),
            Meaning::Whiteout(name) => return self.whiteout(directory, name),
            Meaning::Opaque => {
                let place = self.make_directory(directory)?;
                return self.directory_mut(place).map(|own| own.opaque = true).ok_or(NOT_A_DIRECTORY);
            }
            Meaning::Entry => {}
        }
        check(entry)?;
        match &entry.kind {
            Kind::Directory => self.enter_directory(source, directory, leaf),
            Kind::Hardlink(target) => self.hard_link(directory, leaf, target),
            _ => {
                let parent = self.make_directory(directory)?;
                let place =
                    self.add(Node { source: Some(source), what: What::Leaf(link_target(&entry.kind)) })?;
                self.name(parent, leaf, place)
            }
        }
    }

    fn root(&mut self, source: Source, entry: &Entry) -> Result<(), &'static str> {
        if entry.kind != Kind::Directory {
            return Err("it names the root of the image, which can only be a directory");
        }
        check(entry)?;
        self.nodes[ROOT as usize].source = Some(source);
        Ok(())
    }

    fn name(&mut self, parent: Place, leaf: &'a [u8], place: Place) -> Result<(), &'static str> {
        self.directory_mut(parent).ok_or(NOT_A_DIRECTORY)?.names.insert(leaf, place);
        Ok(())
    }

    fn child(&self, parent: Place, leaf: &[u8]) -> Option<Place> {
        self.directory(parent)?.names.get(leaf).copied()
    }

    fn enter_directory(
        &mut self,
        source: Source,
        directory: &'a [u8],
        leaf: &'a [u8],
    ) -> Result<(), &'static str> {
        let parent = self.make_directory(directory)?;
        let there = self.child(parent, leaf);
        if let Some(place) = there
            && let Some(own) = self.directory_mut(place)
        {
            own.implied = false;
            self.nodes[place as usize].source = Some(source);
            return Ok(());
        }
        // In place of something else, a whiteout included, it hides what lower layers have in it.
        let own = Directory { opaque: there.is_some(), ..Directory::default() };
        let place = self.add(Node { source: Some(source), what: What::Directory(own) })?;
        self.name(parent, leaf, place)
    }

    fn hard_link(
        &mut self,
        directory: &'a [u8],
        leaf: &'a [u8],
        target: &'a [u8],
    ) -> Result<(), &'static str> {
        const MISSING: &str = "it is a hard link to what this layer does not contain before it";
        let (of, target_leaf) = split(target).ok_or("it is a hard link to a directory")?;
        let find = |tree: &Self| {
            let place = tree.child(tree.walk(of)?, target_leaf)?;
            Some((place, tree.directory(place).is_some()))
        };
        let place = match find(self) {
            None => return Err(MISSING),
            Some((_, true)) => return Err("it is a hard link to a directory"),
            Some((place, false)) => place,
        };
        let parent = self.make_directory(directory)?;
        if self.child(parent, leaf).is_some() {
            // What has the name goes first, and the target may go with it.
            if let Some(own) = self.directory_mut(parent) {
                own.names.remove(leaf);
            }
            if find(self).is_none_or(|(now, _)| now != place) {
                return Err(MISSING);
            }
        }
        self.name(parent, leaf, place)
    }

    fn whiteout(&mut self, directory: &'a [u8], name: &'a [u8]) -> Result<(), &'static str> {
        let parent = self.make_directory(directory)?;
        match self.child(parent, name) {
            Some(place) => {
                if let Some(own) = self.directory_mut(place) {
                    own.opaque = true;
                }
                Ok(())
            }
            None => {
                let place = self.add(Node { source: None, what: What::Whiteout })?;
                self.name(parent, name, place)
            }
        }
    }

    /// The existing directory a path leads to, links followed inside the tree.
    fn walk(&self, path: &'a [u8]) -> Option<Place> {
        let mut walk = Walk::new(path);
        while let Some(name) = walk.next_name() {
            let place = self.child(walk.here(), name)?;
            match self.nodes[place as usize].what {
                What::Directory(_) => walk.enter(place),
                What::Leaf(Some(target)) => walk.follow(target).ok()?,
                _ => return None,
            }
        }
        Some(walk.here())
    }

    /// The directory a path leads to, links followed inside the tree; what is missing is made and implied.
    fn make_directory(&mut self, path: &'a [u8]) -> Result<Place, &'static str> {
        let mut walk = Walk::new(path);
        while let Some(name) = walk.next_name() {
            let Some(place) = self.child(walk.here(), name) else {
                walk.enter(self.imply(walk.here(), name, false)?);
                continue;
            };
            match self.nodes[place as usize].what {
                What::Directory(_) => walk.enter(place),
                // Deleted below and made anew: nothing to take from lower layers.
                What::Whiteout => walk.enter(self.imply(walk.here(), name, true)?),
                What::Leaf(Some(target)) => walk.follow(target)?,
                What::Leaf(None) => return Err(NOT_A_DIRECTORY),
            }
        }
        Ok(walk.here())
    }

    fn imply(&mut self, parent: Place, name: &'a [u8], opaque: bool) -> Result<Place, &'static str> {
        // Part of a link's target, which nobody looked at before.
        if name.len() > Limits::NAME_BYTES_MAX {
            return Err("a component of its path is longer than 255 bytes");
        }
        let own = Directory { opaque, implied: !opaque, ..Directory::default() };
        let place = self.add(Node { source: None, what: What::Directory(own) })?;
        self.name(parent, name, place)?;
        Ok(place)
    }
}

const NOT_A_DIRECTORY: &str = "part of its path is a file and not a directory";

fn link_target(kind: &Kind) -> Option<&[u8]> {
    match kind {
        Kind::Symlink(target) => Some(target),
        _ => None,
    }
}

/// A path being followed.
struct Walk<'a> {
    /// Names still to come, the next one last.
    todo: Vec<&'a [u8]>,
    /// The directories from the root to here, the root left out.
    stack: Vec<Place>,
    links: usize,
}

impl<'a> Walk<'a> {
    fn new(path: &'a [u8]) -> Self {
        let mut walk = Self { todo: Vec::new(), stack: Vec::new(), links: 0 };
        walk.push(path);
        walk
    }

    fn push(&mut self, path: &'a [u8]) {
        let names = path.split(|byte| *byte == b'/').rev();
        self.todo.extend(names.filter(|name| !name.is_empty() && *name != b"."));
    }

    /// The next name to look up in [`Walk::here`].
    fn next_name(&mut self) -> Option<&'a [u8]> {
        loop {
            match self.todo.pop()? {
                b".." => drop(self.stack.pop()),
                name => return Some(name),
            }
        }
    }

    fn here(&self) -> Place {
        self.stack.last().copied().unwrap_or(ROOT)
    }

    fn enter(&mut self, directory: Place) {
        self.stack.push(directory);
    }

    fn follow(&mut self, target: &'a [u8]) -> Result<(), &'static str> {
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err("the symbolic links on its path go round, or are more than 40");
        }
        if target.starts_with(b"/") {
            self.stack.clear();
        }
        self.push(target);
        Ok(())
    }
}

/// The directory and the last component of a clean path; `None` for the root.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    match path.iter().rposition(|&byte| byte == b'/') {
        _ if path.is_empty() => None,
        Some(slash) => Some((&path[..slash], &path[slash + 1..])),
        None => Some((&[], path)),
    }
}

/// What the last component of a name asks for.
enum Meaning<'a> {
    Entry,
    /// The name in the same directory that is deleted.
    Whiteout(&'a [u8]),
    /// All that lower layers have in the directory is deleted.
    Opaque,
    /// AUFS's own files: no part of the image.
    Ignored,
}

fn meaning<'a>(directory: &[u8], leaf: &'a [u8]) -> Result<Meaning<'a>, &'static str> {
    let first = directory.split(|byte| *byte == b'/').next().unwrap_or_default();
    if leaf == b".wh..wh..opq" {
        return Ok(Meaning::Opaque);
    }
    if leaf.starts_with(b".wh..wh.") || first.starts_with(b".wh..wh.") {
        return Ok(Meaning::Ignored);
    }
    match leaf.strip_prefix(b".wh.") {
        None => Ok(Meaning::Entry),
        Some(b"" | b"." | b"..") => {
            Err("a whiteout has to name an entry, this one names nothing, \".\" or \"..\"")
        }
        Some(name) => Ok(Meaning::Whiteout(name)),
    }
}

/// What the unpacker refuses of an entry whatever the tree is.
fn check(entry: &Entry) -> Result<(), &'static str> {
    match &entry.kind {
        Kind::Symlink(target) if target.is_empty() || target.len() > Limits::PATH_BYTES_MAX => {
            return Err("the target of the symbolic link is empty or longer than 4095 bytes");
        }
        Kind::Character { major: 0, minor: 0 } => {
            return Err(
                "a character device 0:0 means \"deleted\" to overlayfs and cannot be part of an image",
            );
        }
        Kind::Character { major, minor } | Kind::Block { major, minor }
            if *major >= 1 << 12 || *minor >= 1 << 20 =>
        {
            return Err("its device number is beyond the kernel's range (4095:1048575)");
        }
        _ => {}
    }
    for (name, value) in &entry.xattrs {
        // Escaping makes a name longer.
        let longer = escaped(name).map_or(name.len(), |escaped| escaped.len());
        if longer > Limits::NAME_BYTES_MAX || value.len() > XATTR_VALUE_MAX {
            return Err("an extended attribute of it is too long: names take 255 bytes, values 65536");
        }
        // struct vfs_ns_cap_data: revision in the top byte of a little-endian word.
        if &**name == b"security.capability" && value.get(3) == Some(&3) {
            return Err(
                "its file capability is bound to a user namespace (version 3), which no image may assume",
            );
        }
    }
    Ok(())
}

/// The name an attribute in overlayfs's own namespaces has in an overlay's lower directory, `None` if it keeps its own
/// (`storage-layer` does the same to layers it unpacks).
pub(crate) fn escaped(name: &[u8]) -> Option<Vec<u8>> {
    let spaces: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
    let space = spaces.into_iter().find(|space| name.starts_with(space))?;
    Some([space, b"overlay.", &name[space.len()..]].concat())
}

fn refused(entry: &Entry, reason: &'static str) -> IndexError {
    IndexError::Entry { path: crate::error::shown(&entry.path), reason }
}
