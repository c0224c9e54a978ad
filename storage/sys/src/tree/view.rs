//! A directory tree that is read, entry by entry, and cannot be left.
//!
//! Symbolic links are never followed, neither on the way to an entry nor at its end: a name on the way that is no
//! directory is an error. Access times stay as they are where the kernel allows it. A few directories are kept open,
//! so going through a tree in order costs one `openat2` a directory; the depth of the tree costs no descriptors.
//!
//! Not here: what the entries mean, and any promise about a tree that changes meanwhile: each answer is true for the
//! moment of its call.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::attributes::Timestamp;
use super::path::EntryPath;

/// Directories kept open: those on the way to the present one, mostly.
const KEPT_MAX: usize = 16;
/// Tries of an `openat2` that met a rename outside its sight.
const AGAIN_MAX: usize = 64;
/// Confined as if nothing but directories existed.
const CONFINED: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Kind {
    fn of(kind: FileType) -> Option<Self> {
        Some(match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::CharacterDevice => Self::Char,
            FileType::BlockDevice => Self::Block,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::Unknown => return None,
        })
    }
}

/// What the kernel says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// What it is.
    pub kind: Kind,
    /// Permission, set-ID and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of content or attributes; nobody can set it.
    pub ctime: Timestamp,
    /// Length of a file or of a link's target, in bytes; of a directory whatever the file system says.
    pub size: u64,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Number of the inode.
    pub inode: u64,
    /// Number of the file system the inode is in.
    pub filesystem: u64,
    /// Names the inode has.
    pub links: u64,
}

impl Facts {
    pub(super) fn of(stat: &Stat) -> io::Result<Self> {
        let time = |seconds, nanoseconds: u64| Timestamp {
            seconds,
            nanoseconds: u32::try_from(nanoseconds).unwrap_or(0),
        };
        Ok(Self {
            kind: Kind::of(FileType::from_raw_mode(stat.st_mode)).ok_or(Errno::INVAL)?,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            device: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
            inode: stat.st_ino,
            filesystem: stat.st_dev,
            #[allow(clippy::unnecessary_cast, reason = "32 bits on some architectures")]
            links: stat.st_nlink as u64,
        })
    }

    /// Whether this is how an overlay's upper directory says "deleted": a character device 0:0.
    pub fn is_whiteout(&self) -> bool {
        self.kind == Kind::Char && self.device == (0, 0)
    }
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Its bytes.
    pub name: Vec<u8>,
    /// Number of its inode, as the directory has it.
    pub inode: u64,
    /// What it is, if the directory says so (most file systems' do).
    pub kind: Option<Kind>,
}

/// A tree being read. See the module.
#[derive(Debug)]
pub struct View {
    root: Arc<OwnedFd>,
    kept: Vec<(EntryPath, Arc<OwnedFd>)>,
}

impl View {
    /// Opens the tree whose root is the existing directory `root`, a trusted path.
    ///
    /// # Errors
    /// Those of opening a directory.
    pub fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())?;
        Ok(Self { root: Arc::new(root), kept: Vec::with_capacity(KEPT_MAX + 1) })
    }

    /// What `path` is; `None` if nothing has the name, or part of the way is no directory.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn facts(&mut self, path: &EntryPath) -> io::Result<Option<Facts>> {
        let stat = match path.split() {
            None => rustix::fs::fstat(&self.root),
            Some((_, leaf)) => {
                let Some(parent) = absent(self.directory(&path.parent()))? else { return Ok(None) };
                rustix::fs::statat(&parent, leaf, AtFlags::SYMLINK_NOFOLLOW)
            }
        };
        match absent(stat.map_err(io::Error::from))? {
            Some(stat) => Facts::of(&stat).map(Some),
            None => Ok(None),
        }
    }

    /// The names in a directory, sorted by their bytes.
    ///
    /// # Errors
    /// `ENOENT` and `ENOTDIR` if there is none, and those of the kernel.
    pub fn names(&mut self, directory: &EntryPath) -> io::Result<Vec<Name>> {
        let fd = self.directory(directory)?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                let kind = Kind::of(entry.file_type());
                names.push(Name { name: name.to_vec(), inode: entry.ino(), kind });
            }
        }
        names.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(names)
    }

    /// Where a symbolic link leads.
    ///
    /// # Errors
    /// `EINVAL` if it is none, and those of the kernel.
    pub fn read_link(&mut self, path: &EntryPath) -> io::Result<Vec<u8>> {
        let (parent, leaf) = self.parent(path)?;
        Ok(rustix::fs::readlinkat(&parent, leaf, Vec::new())?.into_bytes())
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// `EINVAL` if it is none, and those of the kernel.
    pub fn file(&mut self, path: &EntryPath) -> io::Result<File> {
        let (parent, leaf) = self.parent(path)?;
        // NONBLOCK: a pipe that took the file's place must not hold us.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let quiet = rustix::fs::openat(&parent, leaf, flags | OFlags::NOATIME, Mode::empty());
        let fd = match quiet {
            // Not ours: then its access time changes.
            Err(Errno::PERM) => rustix::fs::openat(&parent, leaf, flags, Mode::empty())?,
            opened => opened?,
        };
        match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
            FileType::RegularFile => Ok(fd.into()),
            _ => Err(Errno::INVAL.into()),
        }
    }

    /// The extended attributes of an entry, sorted by name; none where the file system knows none.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn xattrs(&mut self, path: &EntryPath) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let at = self.proc_path(path)?;
        let mut names = match rustix::fs::llistxattr_query(&at) {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Ok(length) => vec![0; length],
            Err(errno) => return Err(errno.into()),
        };
        let length = rustix::fs::llistxattr(&at, &mut names[..])?;
        let mut found = Vec::new();
        for name in names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            let mut value = vec![0; rustix::fs::lgetxattr_query(&at, name)?];
            let length = if value.is_empty() { 0 } else { rustix::fs::lgetxattr(&at, name, &mut value[..])? };
            value.truncate(length);
            found.push((name.to_vec(), value));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// One extended attribute of an entry; `None` if it has none of that name.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn xattr(&mut self, path: &EntryPath, name: &str) -> io::Result<Option<Vec<u8>>> {
        use std::os::unix::ffi::OsStrExt as _;
        let at = self.proc_path(path)?;
        super::read_xattr(Path::new(std::ffi::OsStr::from_bytes(&at)), name)
    }

    /// Path of an entry for calls that take no descriptor: the magic link is ours, the last name is not followed.
    fn proc_path(&mut self, path: &EntryPath) -> io::Result<Vec<u8>> {
        let (parent, leaf) = match path.split() {
            None => (Arc::clone(&self.root), &b"."[..]),
            Some(_) => self.parent(path)?,
        };
        let mut at = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
        at.extend_from_slice(leaf);
        Ok(at)
    }

    fn parent<'p>(&mut self, path: &'p EntryPath) -> io::Result<(Arc<OwnedFd>, &'p [u8])> {
        let (_, leaf) = path.split().ok_or(Errno::ISDIR)?;
        Ok((self.directory(&path.parent())?, leaf))
    }

    /// The directory `path`, opened for reading.
    pub(super) fn directory(&mut self, path: &EntryPath) -> io::Result<Arc<OwnedFd>> {
        if path.is_root() {
            return Ok(Arc::clone(&self.root));
        }
        if let Some(at) = self.kept.iter().position(|(kept, _)| kept == path) {
            self.kept[..=at].rotate_right(1);
            return Ok(Arc::clone(&self.kept[0].1));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat2(&self.root, path.as_bytes(), flags, Mode::empty(), CONFINED);
        let opened = (0..AGAIN_MAX).map(|_| open()).find(|opened| !matches!(opened, Err(Errno::AGAIN)));
        let opened = match opened.unwrap_or(Err(Errno::AGAIN)) {
            // A link on the way is no directory.
            Err(Errno::LOOP) => return Err(Errno::NOTDIR.into()),
            opened => Arc::new(opened?),
        };
        self.kept.insert(0, (path.clone(), Arc::clone(&opened)));
        self.kept.truncate(KEPT_MAX);
        Ok(opened)
    }
}

/// `None` if nothing has that name.
fn absent<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
