//! Packing the difference of two trees that are gone through side by side.

use std::cmp::Ordering;

use storage_sys::tree::{EntryPath, Facts, Kind, View};

use super::emit::Emitter;
use super::error::{PackError, reading};
use super::same::{Side, image_xattrs, same};
use crate::tar::Xattrs;

/// A directory of both trees, or of the upper alone, being gone through.
struct Frame {
    path: EntryPath,
    /// Names not yet looked at, the first last.
    upper: Vec<Vec<u8>>,
    lower: Vec<Vec<u8>>,
    /// Of a directory that is the same on both sides: written only if something below it is.
    waiting: Option<(Facts, Xattrs)>,
}

/// Writes what makes `upper` out of `lower`.
pub(super) fn pack(
    lower: Option<&mut View>,
    upper: &mut View,
    emitter: &mut Emitter<'_>,
) -> Result<(), PackError> {
    let mut this = Packing { lower, upper, emitter, frames: Vec::new() };
    this.root()?;
    while let Some(frame) = this.frames.last_mut() {
        let next = match (frame.upper.last(), frame.lower.last()) {
            (None, None) => {
                this.frames.pop();
                continue;
            }
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(upper), Some(lower)) => upper.cmp(lower),
        };
        let above = if next.is_le() { frame.upper.pop() } else { None };
        let below = if next.is_ge() { frame.lower.pop() } else { None };
        let directory = frame.path.clone();
        match (above, below) {
            (Some(name), below) => this.entry(directory.child(&name), below.is_some())?,
            (None, Some(name)) => this.gone(&directory.child(&name))?,
            (None, None) => {}
        }
    }
    Ok(())
}

/// Whether this is what a root is that nobody set: mode 0755, owner 0:0.
pub(super) fn is_plain_root(facts: &Facts, xattrs: &Xattrs) -> bool {
    (facts.mode, facts.uid, facts.gid) == (0o755, 0, 0) && xattrs.is_empty()
}

struct Packing<'a, 'f> {
    lower: Option<&'a mut View>,
    upper: &'a mut View,
    emitter: &'a mut Emitter<'f>,
    frames: Vec<Frame>,
}

impl Packing<'_, '_> {
    fn root(&mut self) -> Result<(), PackError> {
        let root = EntryPath::root();
        let Some(facts) = self.upper.facts(&root).map_err(reading(&root, "look at"))? else { return Ok(()) };
        let xattrs = image_xattrs(self.upper, &root)?;
        let changed = match self.below(&root, true)? {
            Some(below) => !self.is_same(&root, (&facts, &xattrs), (&below.0, &below.1))?,
            None => !is_plain_root(&facts, &xattrs),
        };
        if changed {
            self.emitter.entry(self.upper, &root, &facts, xattrs)?;
        }
        self.enter(root, self.lower.is_some(), None)
    }

    /// One name of the upper tree, which the lower may have too.
    fn entry(&mut self, path: EntryPath, has_below: bool) -> Result<(), PackError> {
        let facts = self.upper.facts(&path).map_err(reading(&path, "look at"))?;
        // Gone since its directory was read.
        let Some(facts) = facts else { return Ok(()) };
        // An overlay's mark in a tree that is no overlay stands for nothing.
        if facts.is_whiteout() {
            return Ok(());
        }
        let xattrs = image_xattrs(self.upper, &path)?;
        let below = self.below(&path, has_below)?;
        let both_directories = facts.kind == Kind::Directory
            && below.as_ref().is_some_and(|(below, _)| below.kind == Kind::Directory);
        let unchanged = match &below {
            Some((under, attributes)) => self.is_same(&path, (&facts, &xattrs), (under, attributes))?,
            None => false,
        };
        if unchanged && facts.kind == Kind::Directory {
            return self.enter(path, true, Some((facts, xattrs)));
        }
        if unchanged && !self.emitter.belongs_to_written(&facts) {
            self.emitter.same(&path, &facts);
            return Ok(());
        }
        self.parents()?;
        self.emitter.entry(self.upper, &path, &facts, xattrs)?;
        if facts.kind == Kind::Directory { self.enter(path, both_directories, None) } else { Ok(()) }
    }

    /// A name only the lower tree has.
    fn gone(&mut self, path: &EntryPath) -> Result<(), PackError> {
        if self.below(path, true)?.is_none_or(|(facts, _)| facts.is_whiteout()) {
            return Ok(());
        }
        self.parents()?;
        self.emitter.whiteout(path)
    }

    /// Writes the directories on the way to a change that are the same themselves: a layer without them would leave
    /// their attributes to whoever unpacks it.
    fn parents(&mut self) -> Result<(), PackError> {
        for frame in &mut self.frames {
            if let Some((facts, xattrs)) = frame.waiting.take() {
                self.emitter.entry(self.upper, &frame.path, &facts, xattrs)?;
            }
        }
        Ok(())
    }

    fn enter(
        &mut self,
        path: EntryPath,
        has_below: bool,
        waiting: Option<(Facts, Xattrs)>,
    ) -> Result<(), PackError> {
        let list = |view: &mut View| {
            let names = view.names(&path).map_err(reading(&path, "read the directory"))?;
            Ok::<_, PackError>(names.into_iter().rev().map(|name| name.name).collect())
        };
        let upper = list(self.upper)?;
        let lower = match self.lower.as_deref_mut().filter(|_| has_below) {
            Some(lower) => list(lower)?,
            None => Vec::new(),
        };
        self.frames.push(Frame { path, upper, lower, waiting });
        Ok(())
    }

    fn below(&mut self, path: &EntryPath, has_below: bool) -> Result<Option<(Facts, Xattrs)>, PackError> {
        let Some(lower) = self.lower.as_deref_mut().filter(|_| has_below) else { return Ok(None) };
        let Some(facts) = lower.facts(path).map_err(reading(path, "look at"))? else { return Ok(None) };
        let xattrs = image_xattrs(lower, path)?;
        Ok(Some((facts, xattrs)))
    }

    fn is_same(
        &mut self,
        path: &EntryPath,
        (facts, xattrs): (&Facts, &Xattrs),
        (under, attributes): (&Facts, &Xattrs),
    ) -> Result<bool, PackError> {
        let Some(lower) = self.lower.as_deref_mut() else { return Ok(false) };
        same(
            path,
            Side { view: &mut *self.upper, facts, xattrs },
            Side { view: lower, facts: under, xattrs: attributes },
        )
    }
}
