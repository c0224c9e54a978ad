//! A made-up image for tests, with bytes that follow from the file and the offset, so that every byte can be checked
//! without being stored.
// Every function here is part of a test; clippy knows only those with the attribute.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use lazy_fetch::FetchError;
use lazy_index::{
    Chunk, Coding, Entry, Group, ImageIndex, Kind, LayerPart, Limits, NodeId, NodeKind, Time, Toc,
};
use storage_model::Digest;

use crate::bytes::FileBytes;

/// Files in the directory `many`.
pub(crate) const MANY: u32 = 3000;

/// Size of `large`, in bytes.
pub(crate) const LARGE_BYTES: u64 = 20 << 20;

/// The byte at `offset` of the file that has `size` bytes.
pub(crate) fn byte(size: u64, offset: u64) -> u8 {
    (size.wrapping_mul(31) ^ offset ^ (offset >> 8) ^ (offset >> 16)) as u8
}

pub(crate) fn content(size: u64) -> Vec<u8> {
    (0..size).map(|offset| byte(size, offset)).collect()
}

fn entry(path: &str, kind: Kind, mode: u32) -> Entry {
    let mtime = Time { secs: 1_700_000_000, nanos: 123_456_789 };
    Entry { path: path.as_bytes().into(), kind, mode, uid: 7, gid: 8, mtime, xattrs: Vec::new() }
}

/// Adds a file of `size` bytes in one chunk.
fn file(toc: &mut Toc, path: &str, size: u64) {
    let number = toc.chunks.len() as u32;
    let chunks = if size == 0 { number..number } else { number..number + 1 };
    if size > 0 {
        let digest = Some(Digest::of(path.as_bytes()));
        toc.chunks.push(Chunk { file_offset: 0, length: size, digest, group: number, inner_offset: 0 });
        let offset = toc.groups.last().map_or(0, |group: &Group| group.offset + group.length);
        let coding = Coding::Plain;
        toc.groups.push(Group { offset, length: size, output_length: Some(size), coding, digest: None });
    }
    toc.entries.push(entry(path, Kind::File { size, digest: None, chunks }, 0o644));
}

/// The index of an image with one of everything.
pub(crate) fn index(with_many: bool) -> ImageIndex {
    let mut toc = Toc::default();
    toc.entries.push(entry("", Kind::Directory, 0o755));
    toc.entries.push(entry("dir", Kind::Directory, 0o750));
    file(&mut toc, "dir/empty", 0);
    file(&mut toc, "dir/small", 5000);
    file(&mut toc, "large", LARGE_BYTES);
    toc.entries.push(entry("dir/link", Kind::Symlink(b"../large"[..].into()), 0o777));
    toc.entries.push(entry("hard", Kind::Hardlink(b"dir/small"[..].into()), 0o644));
    toc.entries.push(entry("null", Kind::Character { major: 1, minor: 3 }, 0o666));
    toc.entries.push(entry("fifo", Kind::Fifo, 0o600));
    toc.entries[3].xattrs = vec![
        (
            b"security.capability"[..].into(),
            vec![1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].into(),
        ),
        (b"user.note"[..].into(), b"value"[..].into()),
    ];
    if with_many {
        toc.entries.push(entry("many", Kind::Directory, 0o755));
        for number in 0..MANY {
            file(&mut toc, &format!("many/file-{number:05}"), u64::from(number % 97));
        }
    }
    let blob_bytes = toc.groups.iter().map(|group| group.length).sum();
    let layer = LayerPart { blob: Digest::of(b"blob"), blob_bytes, toc: &toc };
    ImageIndex::from_bytes(ImageIndex::build(&[layer], &Limits::default()).unwrap()).unwrap()
}

/// The bytes of such an image.
pub(crate) struct MadeUp {
    pub(crate) index: Arc<ImageIndex>,
    /// Called before each read.
    pub(crate) before: Box<dyn Fn(NodeId, u64) + Send + Sync>,
    /// What is not local.
    pub(crate) remote: Vec<NodeId>,
    /// Large files as files of their own.
    pub(crate) whole: Option<Arc<File>>,
}

impl MadeUp {
    pub(crate) fn new(index: &Arc<ImageIndex>) -> Self {
        Self { index: index.clone(), before: Box::new(|_, _| ()), remote: Vec::new(), whole: None }
    }
}

impl FileBytes for MadeUp {
    fn read(&self, node: NodeId, offset: u64, out: &mut [u8]) -> Result<usize, FetchError> {
        (self.before)(node, offset);
        let attr = self.index.attr(node).filter(|attr| attr.kind == NodeKind::File);
        let Some(attr) = attr else {
            return Err(FetchError::NotAFile { image: "made-up".into(), node: node.0 });
        };
        let count = out.len().min(attr.size.saturating_sub(offset) as usize);
        for (at, slot) in (offset..).zip(&mut out[..count]) {
            *slot = byte(attr.size, at);
        }
        Ok(count)
    }

    fn is_local(&self, node: NodeId) -> bool {
        !self.remote.contains(&node)
    }

    fn whole_file(&self, node: NodeId) -> Option<Arc<File>> {
        let large = self.index.size(node) == Some(LARGE_BYTES);
        self.whole.clone().filter(|_| large)
    }
}

/// Whether FUSE can be mounted here; says so if not.
pub(crate) fn can_mount() -> bool {
    let possible = Path::new("/dev/fuse").exists() && storage_sys::process::effective_uid() == 0;
    if !possible {
        eprintln!("skipped: needs root and /dev/fuse");
    }
    possible
}
