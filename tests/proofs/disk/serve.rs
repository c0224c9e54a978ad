//! The file that stands for the disk: reads, writes and flushes, one at a time, each noted before it is answered.

use std::ffi::OsStr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use super::Blocks;

/// Name of the file.
pub(super) const NAME: &str = "disk";

const FILE: INodeNo = INodeNo(2);

/// Attributes do not change.
const FOR_EVER: Duration = Duration::from_secs(1 << 30);

/// Something that reached the disk.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Write {
        offset: usize,
        bytes: Box<[u8]>,
    },
    /// Everything before is on the disk for good.
    Flush,
    /// See [`Disk::mark`](super::Disk::mark).
    Mark,
}

/// Which writes and flushes fail with EIO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refuse {
    Nothing,
    /// The one that comes after this many others.
    Once(u64),
    /// All that come after this many others: the disk is gone.
    After(u64),
}

/// The disk and what is noted of it.
pub(super) struct State {
    pub(super) blocks: Blocks,
    pub(super) log: Option<Vec<Event>>,
    pub(super) refuse: Refuse,
    /// Writes and flushes since [`Disk::refuse`](super::Disk::refuse) was called.
    pub(super) writes: u64,
}

impl State {
    pub(super) fn new(blocks: Blocks) -> Self {
        Self { blocks, log: None, refuse: Refuse::Nothing, writes: 0 }
    }

    fn refused(&mut self) -> bool {
        let before = self.writes;
        self.writes += 1;
        match self.refuse {
            Refuse::Nothing => false,
            Refuse::Once(at) => before == at,
            Refuse::After(at) => before >= at,
        }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), Errno> {
        if self.refused() {
            return Err(Errno::EIO);
        }
        if offset + bytes.len() > self.blocks.bytes() {
            return Err(Errno::ENOSPC);
        }
        self.blocks.write(offset, bytes);
        if let Some(log) = &mut self.log {
            log.push(Event::Write { offset, bytes: bytes.into() });
        }
        Ok(())
    }

    fn clear(&mut self, offset: usize, length: usize) -> Result<(), Errno> {
        if self.log.is_some() {
            return self.write(offset, &vec![0; length]);
        }
        if self.refused() {
            return Err(Errno::EIO);
        }
        self.blocks.clear(offset, length);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Errno> {
        if self.refused() {
            return Err(Errno::EIO);
        }
        if let Some(log) = &mut self.log {
            log.push(Event::Flush);
        }
        Ok(())
    }
}

/// The file system of one file.
pub(super) struct Served(pub(super) Arc<Mutex<State>>);

impl Served {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics while holding it")
    }

    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let (kind, size) = match inode {
            FILE => (FileType::RegularFile, self.state().blocks.bytes() as u64),
            _ => (FileType::Directory, 0),
        };
        FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

fn answer(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME {
            reply.entry(&FOR_EVER, &self.attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOR_EVER, &self.attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Past the page cache: the order of writes is what this is about.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let bytes = self.state().blocks.read(place(offset), size as usize);
        reply.data(&bytes);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let result = self.state().write(place(offset), data);
        match result {
            Ok(()) => {
                reply.written(u32::try_from(data.len()).expect("the kernel sends less than 4 GiB at once"))
            }
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // A close; what it means to a disk is nothing.
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let result = self.state().flush();
        answer(result, reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) == 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let result = self.state().clear(place(offset), place(length));
        answer(result, reply);
    }
}
