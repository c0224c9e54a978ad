//! What a stack of overlay lower directories shows at a path.

use storage_sys::tree::{EntryPath, Facts, Kind, View};

use super::error::{PackError, reading};

/// Lower directories, the highest first.
pub(super) struct Stack {
    lowers: Vec<View>,
    opaque: &'static str,
}

/// The layers whose directory takes part in what is shown at some path, the highest first.
#[derive(Debug, Clone)]
pub(super) struct Merged(Vec<usize>);

impl Merged {
    pub(super) fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }
}

impl Stack {
    pub(super) fn new(lowers: Vec<View>, user_xattr: bool) -> Self {
        let opaque = if user_xattr { "user.overlay.opaque" } else { "trusted.overlay.opaque" };
        Self { lowers, opaque }
    }

    /// The name of the attribute that hides what lies below a directory.
    pub(super) fn opaque_name(&self) -> &'static str {
        self.opaque
    }

    /// Every layer takes part in the root, up to one that hides the rest.
    pub(super) fn root(&mut self) -> Result<Merged, PackError> {
        let all = Merged((0..self.lowers.len()).collect());
        self.merge(&all, &EntryPath::root())
    }

    /// Nothing shows through.
    pub(super) fn nothing() -> Merged {
        Merged(Vec::new())
    }

    /// What is shown at `path`, whose directory is `merged`: the layer that has it and its facts there.
    pub(super) fn shown(
        &mut self,
        merged: &Merged,
        path: &EntryPath,
    ) -> Result<Option<(usize, Facts)>, PackError> {
        for &at in &merged.0 {
            let facts = self.lowers[at].facts(path).map_err(reading(path, "look at"))?;
            match facts {
                None => {}
                Some(facts) if facts.is_whiteout() => return Ok(None),
                Some(facts) => return Ok(Some((at, facts))),
            }
        }
        Ok(None)
    }

    /// The layers that take part in the directory `path`, whose own directory is `merged`.
    pub(super) fn merge(&mut self, merged: &Merged, path: &EntryPath) -> Result<Merged, PackError> {
        let mut parts = Vec::new();
        for &at in &merged.0 {
            let lower = &mut self.lowers[at];
            match lower.facts(path).map_err(reading(path, "look at"))? {
                None => {}
                Some(facts) if facts.kind == Kind::Directory => {
                    parts.push(at);
                    let mark = lower.xattr(path, self.opaque).map_err(reading(path, "look at"))?;
                    if mark.as_deref() == Some(b"y") {
                        break;
                    }
                }
                Some(_) => break,
            }
        }
        Ok(Merged(parts))
    }

    pub(super) fn view(&mut self, at: usize) -> &mut View {
        &mut self.lowers[at]
    }
}
