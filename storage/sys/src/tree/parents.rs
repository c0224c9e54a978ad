//! Directories on the way to an entry: found, made, and a few of them kept open.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, XattrFlags};
use rustix::io::Errno;

use super::attributes::Attributes;

/// Open parents that are kept.
///
/// A tar names files directory by directory; a handful catches the jumps of one that does not. Each is one descriptor.
const KEPT_MAX: usize = 16;
/// Links followed while directories are made: the kernel's own limit.
const LINKS_MAX: usize = 40;
/// Tries of an `openat2` that met a rename outside its sight.
const AGAIN_MAX: usize = 64;

const CONFINED: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
const PATH_ONLY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// An open directory in the tree.
#[derive(Debug)]
pub(super) struct Parent {
    /// Opened with `O_PATH`.
    pub(super) fd: OwnedFd,
    /// Files made here take the directory's group (set-group-ID bit).
    pub(super) gives_group: bool,
}

impl Parent {
    fn new(fd: OwnedFd) -> io::Result<Arc<Self>> {
        let gives_group = rustix::fs::fstat(&fd)?.st_mode & 0o2000 != 0;
        Ok(Arc::new(Self { fd, gives_group }))
    }

    /// The path of an entry for calls that take no descriptor: the magic link is ours, the last name is not followed.
    pub(super) fn proc_path(&self, leaf: &[u8]) -> Vec<u8> {
        let mut path = format!("/proc/self/fd/{}/", self.fd.as_raw_fd()).into_bytes();
        path.extend_from_slice(leaf);
        path
    }

    /// Sets an extended attribute of an entry, never through a link.
    pub(super) fn set_xattr(&self, leaf: &[u8], name: &[u8], value: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::lsetxattr(self.proc_path(leaf), name, value, XattrFlags::empty())?)
    }

    /// Sets an extended attribute of this directory.
    pub(super) fn set_own_xattr(&self, name: &[u8], value: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::setxattr(self.proc_path(b"."), name, value, XattrFlags::empty())?)
    }

    /// Gives an entry that has no descriptor its owner, mode (if it `has_mode`), attributes and times, in this order:
    /// a change of owner clears set-ID bits and capabilities.
    pub(super) fn dress(&self, leaf: &[u8], attributes: &Attributes<'_>, has_mode: bool) -> io::Result<()> {
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        let (uid, gid) = attributes.owner();
        rustix::fs::chownat(&self.fd, leaf, Some(uid), Some(gid), nofollow)?;
        if has_mode {
            // chmod of a descriptor's magic link: it cannot be led elsewhere, and works before fchmodat2 (Linux 6.6).
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(&self.fd, leaf, flags, Mode::empty())?;
            rustix::fs::chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), attributes.full_mode())?;
        }
        for (name, value) in attributes.xattrs {
            attributes.tolerate(name, self.set_xattr(leaf, name, value), true)?;
        }
        Ok(rustix::fs::utimensat(&self.fd, leaf, &attributes.timestamps(), nofollow)?)
    }
}

/// The root, and the parents used last, the latest first.
#[derive(Debug)]
pub(super) struct Parents {
    root: Arc<Parent>,
    kept: Vec<(Vec<u8>, Arc<Parent>)>,
}

impl Parents {
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = Parent::new(rustix::fs::open(root, flags, Mode::empty())?)?;
        let parents = Self { root, kept: Vec::with_capacity(KEPT_MAX + 1) };
        parents.resolve(b".")?;
        Ok(parents)
    }

    pub(super) fn root_has_default_acl(&self) -> bool {
        rustix::fs::fgetxattr_query(&self.root.fd, "system.posix_acl_default").is_ok()
    }

    /// Closes what is kept: some name changed its meaning.
    pub(super) fn forget(&mut self) {
        self.kept.clear();
    }

    fn resolve(&self, path: &[u8]) -> io::Result<OwnedFd> {
        for _ in 0..AGAIN_MAX {
            match rustix::fs::openat2(&self.root.fd, path, PATH_ONLY, Mode::empty(), CONFINED) {
                Err(Errno::AGAIN) => {}
                opened => return Ok(opened?),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// The existing directory `path` leads to.
    pub(super) fn find(&mut self, path: &[u8]) -> io::Result<Arc<Parent>> {
        if path.is_empty() {
            return Ok(Arc::clone(&self.root));
        }
        if let Some(at) = self.kept.iter().position(|(kept, _)| kept == path) {
            self.kept[..=at].rotate_right(1);
            return Ok(Arc::clone(&self.kept[0].1));
        }
        let parent = Parent::new(self.resolve(path)?)?;
        self.kept.insert(0, (path.to_vec(), Arc::clone(&parent)));
        self.kept.truncate(KEPT_MAX);
        Ok(parent)
    }

    /// Opens the directory at `path` for reading; its last component is not followed.
    pub(super) fn open_directory(&mut self, path: &[u8]) -> io::Result<OwnedFd> {
        let slash = path.iter().rposition(|&byte| byte == b'/');
        let (directory, leaf) = match slash {
            Some(at) => (&path[..at], &path[at + 1..]),
            None if path.is_empty() => (path, &b"."[..]),
            None => (&path[..0], path),
        };
        let parent = self.find(directory)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&parent.fd, leaf, flags, Mode::empty())?)
    }

    /// Makes what is missing on the way along `path`, links followed inside the root; returns the path of each
    /// directory made and whether a whiteout was in its place (it is opaque then, if `overlay`).
    pub(super) fn make(&mut self, path: &[u8], overlay: bool) -> io::Result<Vec<(Vec<u8>, bool)>> {
        let mut made = Vec::new();
        let mut todo = components(path);
        let mut here: Vec<u8> = Vec::new();
        let mut parent = Arc::clone(&self.root);
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                here.truncate(here.iter().rposition(|&byte| byte == b'/').unwrap_or(0));
                parent = self.find(&here)?;
                continue;
            }
            let flags = PATH_ONLY | OFlags::NOFOLLOW;
            let next = match rustix::fs::openat(&parent.fd, name.as_slice(), flags, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => {
                    let fd = self.make_one(&parent, &name)?;
                    made.push((joined(&here, &name), false));
                    fd
                }
                Err(Errno::NOTDIR | Errno::LOOP) => match obstacle(&parent, &name, overlay)? {
                    Obstacle::Link(target) => {
                        links += 1;
                        if links > LINKS_MAX {
                            return Err(Errno::LOOP.into());
                        }
                        if target.starts_with(b"/") {
                            here.clear();
                            parent = Arc::clone(&self.root);
                        }
                        todo.extend(components(&target));
                        continue;
                    }
                    Obstacle::Whiteout => {
                        self.forget();
                        rustix::fs::unlinkat(&parent.fd, name.as_slice(), AtFlags::empty())?;
                        let fd = self.make_one(&parent, &name)?;
                        parent.set_xattr(&name, super::OPAQUE.as_bytes(), b"y")?;
                        made.push((joined(&here, &name), true));
                        fd
                    }
                },
                Err(errno) => return Err(errno.into()),
            };
            here = joined(&here, &name);
            parent = Parent::new(next)?;
        }
        Ok(made)
    }

    fn make_one(&self, parent: &Parent, name: &[u8]) -> io::Result<OwnedFd> {
        rustix::fs::mkdirat(&parent.fd, name, Mode::from_raw_mode(0o755))?;
        Ok(rustix::fs::openat(&parent.fd, name, PATH_ONLY | OFlags::NOFOLLOW, Mode::empty())?)
    }
}

/// What is in the way where a directory should be.
enum Obstacle {
    Link(Vec<u8>),
    Whiteout,
}

fn obstacle(parent: &Parent, name: &[u8], overlay: bool) -> io::Result<Obstacle> {
    let stat = rustix::fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(&parent.fd, name, Vec::new())?;
            Ok(Obstacle::Link(target.into_bytes()))
        }
        FileType::CharacterDevice if overlay && stat.st_rdev == 0 => Ok(Obstacle::Whiteout),
        _ => Err(Errno::NOTDIR.into()),
    }
}

/// Components of a path, the last first; empty ones and `.` are left out.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|&byte| byte == b'/').rev();
    names.filter(|name| !name.is_empty() && *name != b".").map(<[u8]>::to_vec).collect()
}

fn joined(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}
