//! Going through a tree in the order of a record.

use std::io;

use storage_sys::tree::{EntryPath, Name, View};

/// A walk: entries in order, directories entered only when told to.
pub(crate) struct Walk {
    /// Directories on the way and the names in them not yet met.
    frames: Vec<(EntryPath, std::vec::IntoIter<Name>)>,
}

impl Walk {
    /// A walk that starts with the names in the root.
    pub(crate) fn new(view: &mut View) -> io::Result<Self> {
        let mut this = Self { frames: Vec::new() };
        this.enter(view, EntryPath::root())?;
        Ok(this)
    }

    /// The next entry.
    pub(crate) fn next(&mut self) -> Option<(EntryPath, Name)> {
        while let Some((directory, names)) = self.frames.last_mut() {
            if let Some(name) = names.next() {
                return Some((directory.child(&name.name), name));
            }
            self.frames.pop();
        }
        None
    }

    /// Goes on with what is in the directory that was met last.
    pub(crate) fn enter(&mut self, view: &mut View, directory: EntryPath) -> io::Result<()> {
        let names = view.names(&directory)?;
        self.frames.push((directory, names.into_iter()));
        Ok(())
    }
}
