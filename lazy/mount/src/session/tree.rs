//! The tree of an image as `fuse-backend-rs` wants a file system: everything but the bytes of files.
//!
//! Answers come from the mapped index alone, are valid for ever, and keep no state: node ids are the index's, handles do
//! not exist, positions in directories are those of the names. So any server can answer what another one was asked.
//!
//! Not here: opening and reading (`session`).

use std::ffi::CStr;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use fuse_backend_rs::abi::fuse_abi::{stat64, statvfs64};
use fuse_backend_rs::api::filesystem::{
    Context, DirEntry, Entry, FileSystem, GetxattrReply, ListxattrReply, OpenOptions,
};
use lazy_index::{ImageIndex, NodeId, NodeKind};
use storage_sys::fuse::{device_number, errno};

/// How long the kernel may believe an answer: a hundred years. The tree never changes.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Bytes of a block, for sizes in blocks.
const BLOCK_BYTES: u64 = 4096;

/// Longest name, in bytes, as on the file systems that images are otherwise unpacked to.
const NAME_BYTES_MAX: usize = 255;

/// Names in a directory that are in no index: `.` and `..`.
const DOTS: u64 = 2;

/// `DT_DIR`.
const DIRECTORY: u32 = 4;

/// The tree of an image.
pub(crate) struct Tree {
    index: Arc<ImageIndex>,
}

impl Tree {
    pub(crate) fn new(index: Arc<ImageIndex>) -> Self {
        Self { index }
    }

    fn node(&self, inode: u64) -> io::Result<NodeId> {
        u32::try_from(inode).map(NodeId).map_err(|_| error(errno::STALE))
    }

    fn stat(&self, node: NodeId) -> io::Result<stat64> {
        let attr = self.index.attr(node).ok_or_else(|| error(errno::STALE))?;
        // An entry's attributes start as zeroes, which is the only way to make a `stat64` without `unsafe`.
        let mut stat = Entry::default().attr;
        stat.st_ino = node.0.into();
        stat.st_mode = mode_of(attr.kind) | attr.mode;
        stat.st_nlink = attr.nlink.into();
        stat.st_uid = attr.uid;
        stat.st_gid = attr.gid;
        stat.st_rdev = device_number(attr.device.0, attr.device.1);
        let size = if attr.kind == NodeKind::Directory { BLOCK_BYTES } else { attr.size };
        stat.st_size = i64::try_from(size).map_err(|_| error(errno::OVERFLOW))?;
        stat.st_blksize = BLOCK_BYTES as i64;
        stat.st_blocks = size.div_ceil(512) as i64;
        (stat.st_mtime, stat.st_mtime_nsec) = (attr.mtime.secs, attr.mtime.nanos.into());
        (stat.st_ctime, stat.st_ctime_nsec) = (stat.st_mtime, stat.st_mtime_nsec);
        (stat.st_atime, stat.st_atime_nsec) = (stat.st_mtime, stat.st_mtime_nsec);
        Ok(stat)
    }

    fn entry(&self, node: NodeId) -> io::Result<Entry> {
        Ok(Entry {
            inode: node.0.into(),
            generation: 0,
            attr: self.stat(node)?,
            attr_flags: 0,
            attr_timeout: FOREVER,
            entry_timeout: FOREVER,
        })
    }

    /// Calls `add` with the names of a directory from position `offset` on, until it takes no more.
    fn list(
        &self,
        inode: u64,
        offset: u64,
        add: &mut dyn FnMut(DirEntry<'_>, NodeId) -> io::Result<usize>,
    ) -> io::Result<()> {
        let node = self.node(inode)?;
        let parent = self.index.parent(node).ok_or_else(|| error(errno::STALE))?;
        for (at, name, target) in [(0, b".".as_slice(), node), (1, b"..".as_slice(), parent)] {
            let entry = DirEntry { ino: target.0.into(), offset: at + 1, type_: DIRECTORY, name };
            if at >= offset && add(entry, target)? == 0 {
                return Ok(());
            }
        }
        let from = u32::try_from(offset.saturating_sub(DOTS)).map_err(|_| error(errno::INVAL))?;
        for (at, child) in (u64::from(from) + DOTS + 1..).zip(self.index.children(node, from)) {
            let type_ = mode_of(child.kind) >> 12;
            let entry = DirEntry { ino: child.node.0.into(), offset: at, type_, name: child.name };
            if add(entry, child.node)? == 0 {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl FileSystem for Tree {
    type Inode = u64;
    type Handle = u64;

    fn lookup(&self, _: &Context, parent: u64, name: &CStr) -> io::Result<Entry> {
        let (parent, name) = (self.node(parent)?, name.to_bytes());
        let found = match name {
            // Asked for only when a file handle is resolved.
            b"." => Some(parent),
            b".." => self.index.parent(parent),
            name if name.len() > NAME_BYTES_MAX => return Err(error(errno::NAMETOOLONG)),
            name => self.index.lookup(parent, name),
        };
        match found {
            Some(node) => self.entry(node),
            // That nothing has this name is remembered as well.
            None => Ok(Entry { entry_timeout: FOREVER, ..Entry::default() }),
        }
    }

    fn getattr(&self, _: &Context, inode: u64, _: Option<u64>) -> io::Result<(stat64, Duration)> {
        Ok((self.stat(self.node(inode)?)?, FOREVER))
    }

    fn readlink(&self, _: &Context, inode: u64) -> io::Result<Vec<u8>> {
        Ok(self.index.link_target(self.node(inode)?).ok_or_else(|| error(errno::INVAL))?.to_vec())
    }

    fn opendir(&self, _: &Context, _: u64, _: u32) -> io::Result<(Option<u64>, OpenOptions)> {
        // The kernel takes this as leave never to ask again, and to cache what it reads.
        Err(error(errno::NOSYS))
    }

    fn readdir(
        &self,
        _: &Context,
        inode: u64,
        _: u64,
        _: u32,
        offset: u64,
        add_entry: &mut dyn FnMut(DirEntry<'_>) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.list(inode, offset, &mut |name, _| add_entry(name))
    }

    fn readdirplus(
        &self,
        _: &Context,
        inode: u64,
        _: u64,
        _: u32,
        offset: u64,
        add_entry: &mut dyn FnMut(DirEntry<'_>, Entry) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.list(inode, offset, &mut |name, node| {
            // The kernel knows these two, and takes node 0 as: no attributes.
            let entry = if name.offset <= DOTS { Entry::default() } else { self.entry(node)? };
            add_entry(name, entry)
        })
    }

    fn getxattr(&self, _: &Context, inode: u64, name: &CStr, size: u32) -> io::Result<GetxattrReply> {
        let value =
            self.index.xattr(self.node(inode)?, name.to_bytes()).ok_or_else(|| error(errno::NODATA))?;
        let length = u32::try_from(value.len()).map_err(|_| error(errno::TOOBIG))?;
        match size {
            0 => Ok(GetxattrReply::Count(length)),
            size if size < length => Err(error(errno::RANGE)),
            _ => Ok(GetxattrReply::Value(value.to_vec())),
        }
    }

    fn listxattr(&self, _: &Context, inode: u64, size: u32) -> io::Result<ListxattrReply> {
        let mut names = Vec::new();
        for (name, _) in self.index.xattrs(self.node(inode)?) {
            names.extend_from_slice(name);
            names.push(0);
        }
        let length = u32::try_from(names.len()).map_err(|_| error(errno::TOOBIG))?;
        match size {
            0 => Ok(ListxattrReply::Count(length)),
            size if size < length => Err(error(errno::RANGE)),
            _ => Ok(ListxattrReply::Names(names)),
        }
    }

    fn statfs(&self, context: &Context, _: u64) -> io::Result<statvfs64> {
        let mut answer = Blank.statfs(context, 0)?;
        answer.f_bsize = BLOCK_BYTES;
        answer.f_frsize = BLOCK_BYTES;
        answer.f_blocks = self.index.bytes_total().div_ceil(BLOCK_BYTES);
        answer.f_files = self.index.nodes().into();
        answer.f_namemax = NAME_BYTES_MAX as u64;
        Ok(answer)
    }
}

/// A file system that answers as the trait does by itself: the only way to make a `statvfs64` without `unsafe`.
struct Blank;

impl FileSystem for Blank {
    type Inode = u64;
    type Handle = u64;
}

/// The bits of the kind in a mode (`S_IFMT`); shifted by 12 they are what directories say (`DT_*`).
fn mode_of(kind: NodeKind) -> u32 {
    match kind {
        NodeKind::Fifo => 0o010_000,
        NodeKind::Character => 0o020_000,
        NodeKind::Directory => 0o040_000,
        NodeKind::Block => 0o060_000,
        NodeKind::File => 0o100_000,
        NodeKind::Symlink => 0o120_000,
    }
}

fn error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}
