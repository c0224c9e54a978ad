//! A directory in a tree of any depth: a descriptor further up, and a path below it that is never too long.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// A path is lengthened until it has this many bytes; then the directory itself becomes the base of what is below. Half of
/// `PATH_MAX`, so that one more name of 255 bytes always fits.
const PATH_BYTES_MAX: usize = 2048;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// `path` below `base`; the base itself if the path is empty.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    base: Rc<OwnedFd>,
    path: Vec<u8>,
}

impl Place {
    /// The directory `path`, which is trusted.
    pub(crate) fn root(path: &Path) -> io::Result<Self> {
        let base = Rc::new(rustix::fs::open(path, DIRECTORY, Mode::empty())?);
        Ok(Self { base, path: Vec::new() })
    }

    pub(crate) fn base(&self) -> &OwnedFd {
        &self.base
    }

    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    /// What is called `name` in it.
    pub(crate) fn child(&self, name: &[u8]) -> Self {
        let path = if self.path.is_empty() { name.to_vec() } else { [&self.path, &b"/"[..], name].concat() };
        Self { base: Rc::clone(&self.base), path }
    }

    /// Opens it for reading, following no link and entering no mount, and returns the place that its entries are named
    /// from.
    pub(crate) fn open(self) -> io::Result<(Rc<OwnedFd>, Self)> {
        if self.path.is_empty() {
            return Ok((Rc::clone(&self.base), self));
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let opened = rustix::fs::openat2(&self.base, &*self.path, DIRECTORY, Mode::empty(), resolve)?;
        let opened = Rc::new(opened);
        let place = if self.path.len() > PATH_BYTES_MAX {
            Self { base: Rc::clone(&opened), path: Vec::new() }
        } else {
            self
        };
        Ok((opened, place))
    }
}
