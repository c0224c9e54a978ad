//! Packing an overlay's upper directory: what it changes of the layers below.

use storage_sys::tree::{EntryPath, Facts, Kind, View};

use super::emit::Emitter;
use super::error::{PackError, Unpackable, reading};
use super::same::{Side, image_xattrs, same};
use super::stack::{Merged, Stack};
use crate::EntryName;
use crate::escape::{self, Own};
use crate::tar::Xattrs;

/// A directory being gone through.
struct Frame {
    path: EntryPath,
    /// Names not yet looked at, the first last.
    names: Vec<Vec<u8>>,
    below: Merged,
}

/// Writes the changes of `upper` over `lowers`.
pub(super) fn pack(upper: &mut View, lowers: Stack, emitter: &mut Emitter<'_>) -> Result<(), PackError> {
    let own = if lowers.opaque_name().starts_with("user.") { Own::User } else { Own::Trusted };
    let mut this = Packing { upper, lowers, emitter, own };
    let root = EntryPath::root();
    let mut frames = Vec::from_iter(this.root(&root)?);
    while let Some(frame) = frames.last_mut() {
        let Some(name) = frame.names.pop() else {
            frames.pop();
            continue;
        };
        let (path, below) = (frame.path.child(&name), frame.below.clone());
        frames.extend(this.entry(path, &below)?);
    }
    Ok(())
}

struct Packing<'a, 'f> {
    upper: &'a mut View,
    lowers: Stack,
    emitter: &'a mut Emitter<'f>,
    own: Own,
}

impl Packing<'_, '_> {
    fn root(&mut self, root: &EntryPath) -> Result<Option<Frame>, PackError> {
        let below = self.lowers.root()?;
        let facts = self.upper.facts(root).map_err(reading(root, "look at"))?;
        let Some(facts) = facts else { return Ok(None) };
        let raw = image_xattrs(self.upper, root)?;
        let opaque = self.is_opaque(&raw);
        let changed = match self.lowers.shown(&below, root)? {
            Some((at, under)) => !self.is_same(root, (&facts, &raw), (at, &under))?,
            None => !super::difference::is_plain_root(&facts, &escape::packed(raw.clone(), self.own)),
        };
        if changed {
            self.emitter.entry(self.upper, root, &facts, escape::packed(raw, self.own))?;
        }
        self.enter(root.clone(), opaque, below).map(Some)
    }

    /// One name of the upper directory; a frame if it is a directory.
    fn entry(&mut self, path: EntryPath, merged: &Merged) -> Result<Option<Frame>, PackError> {
        let facts = self.upper.facts(&path).map_err(reading(&path, "look at"))?;
        // Gone since its directory was read.
        let Some(facts) = facts else { return Ok(None) };
        let below = self.lowers.shown(merged, &path)?;
        if facts.is_whiteout() {
            if below.is_some() {
                self.emitter.whiteout(&path)?;
            }
            return Ok(None);
        }
        let raw = image_xattrs(self.upper, &path)?;
        self.refuse_references(&path, &raw)?;
        if facts.kind == Kind::Directory {
            let opaque = self.is_opaque(&raw);
            self.emitter.entry(self.upper, &path, &facts, escape::packed(raw, self.own))?;
            let merged = self.lowers.merge(merged, &path)?;
            return self.enter(path, opaque, merged).map(Some);
        }
        // One of several names may be new: then all that were copied up belong together.
        if let Some((at, under)) = below.filter(|_| facts.links == 1)
            && self.is_same(&path, (&facts, &raw), (at, &under))?
        {
            return Ok(None);
        }
        self.emitter.entry(self.upper, &path, &facts, escape::packed(raw, self.own))?;
        Ok(None)
    }

    fn enter(&mut self, path: EntryPath, opaque: bool, merged: Merged) -> Result<Frame, PackError> {
        let below = if opaque { Stack::nothing() } else { merged.clone() };
        if opaque && !merged.is_nothing() {
            self.emitter.opaque(&path)?;
        }
        let names = self.upper.names(&path).map_err(reading(&path, "read the directory"))?;
        let names = names.into_iter().rev().map(|name| name.name).collect();
        Ok(Frame { path, names, below })
    }

    fn is_same(
        &mut self,
        path: &EntryPath,
        (facts, raw): (&Facts, &Xattrs),
        (at, under): (usize, &Facts),
    ) -> Result<bool, PackError> {
        let lower = self.lowers.view(at);
        let below = escape::packed(image_xattrs(lower, path)?, self.own);
        let above = escape::packed(raw.clone(), self.own);
        same(
            path,
            Side { view: &mut *self.upper, facts, xattrs: &above },
            Side { view: lower, facts: under, xattrs: &below },
        )
    }

    fn is_opaque(&self, raw: &Xattrs) -> bool {
        let name = self.lowers.opaque_name().as_bytes();
        raw.iter().any(|(key, value)| key == name && value == b"y")
    }

    /// What is no copy but a reference into a lower layer cannot be packed from the upper directory alone.
    fn refuse_references(&self, path: &EntryPath, raw: &Xattrs) -> Result<(), PackError> {
        let prefix = self.own.prefix();
        let refers = |name: &[u8]| matches!(name.strip_prefix(prefix), Some(b"redirect" | b"metacopy"));
        if raw.iter().any(|(name, _)| refers(name)) {
            let name = EntryName(path.as_bytes().to_vec());
            return Err(PackError::Entry { name, reason: Unpackable::Redirected });
        }
        Ok(())
    }
}
