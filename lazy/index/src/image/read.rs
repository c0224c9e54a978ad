//! Reading an image index in place.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use storage_model::Digest;
use storage_sys::map::Map;

use super::format::{
    self, BLOB_BYTES, CHUNK_BYTES, DIGEST_BYTES, GROUP_BYTES, HEAD_BYTES, MAGIC, NAME_BYTES, NODE_BYTES,
    NONE, ORDER_BYTES, SUMMED_FROM, Tables, u16_at, u32_at, u64_at,
};
use super::{Attr, ChunkRef, DirEntry, GroupRef, NodeId, NodeKind};
use crate::{Coding, IndexError, Time};

/// Longest index file that is opened: 4 GiB, beyond what 32-bit offsets of a string can reach.
const FILE_BYTES_MAX: u64 = 4 << 30;

/// The merged tree of an image. See the module for the promises; cheap to share, every call is `&self`.
pub struct ImageIndex {
    bytes: Bytes,
    tables: Tables,
    bytes_total: u64,
}

/// Where the file's bytes are.
enum Bytes {
    Mapped(Map),
    Held(Vec<u8>),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Held(bytes) => bytes,
        }
    }
}

impl fmt::Debug for ImageIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageIndex").field("nodes", &self.nodes()).finish_non_exhaustive()
    }
}

impl ImageIndex {
    /// Maps the index file at `path` and checks it as a whole: its checksum, and that its tables fill it.
    ///
    /// # Errors
    /// [`IndexError::Map`] if it cannot be mapped, [`IndexError::Format`] if it is something else,
    /// [`IndexError::Checksum`] if it is damaged: make it anew from the layers.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        let map = Map::open(path, FILE_BYTES_MAX);
        let map = map.map_err(|source| IndexError::Map { path: path.to_owned(), source })?;
        let index = Self::new(Bytes::Mapped(map))?;
        // The checksum has read all of it, a container will read some.
        if let Bytes::Mapped(map) = &index.bytes {
            map.release();
        }
        Ok(index)
    }

    /// The index whose file has these bytes.
    ///
    /// # Errors
    /// As [`ImageIndex::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, IndexError> {
        Self::new(Bytes::Held(bytes))
    }

    fn new(bytes: Bytes) -> Result<Self, IndexError> {
        let format = |reason| IndexError::Format { what: "image index", reason };
        if bytes.len() < HEAD_BYTES || !bytes.starts_with(MAGIC) {
            return Err(format("it does not begin like one of this version"));
        }
        if Digest::of(&bytes[SUMMED_FROM..]).as_bytes()[..] != bytes[MAGIC.len()..SUMMED_FROM] {
            return Err(IndexError::Checksum { what: "image index" });
        }
        let counts = std::array::from_fn(|table| u64_at(&bytes, SUMMED_FROM + 8 * table));
        let tables = Tables::new(counts, bytes.len())?;
        if tables.nodes.is_empty() {
            return Err(format("it has no root"));
        }
        let bytes_total = u64_at(&bytes, HEAD_BYTES - 8);
        Ok(Self { bytes, tables, bytes_total })
    }

    /// Number of nodes: their numbers are `1..=nodes()`.
    pub fn nodes(&self) -> u32 {
        count(&self.tables.nodes, NODE_BYTES)
    }

    /// Number of chunks of all files.
    pub fn chunk_count(&self) -> u32 {
        count(&self.tables.chunks, CHUNK_BYTES)
    }

    /// Number of groups that some file needs.
    pub fn group_count(&self) -> u32 {
        count(&self.tables.groups, GROUP_BYTES)
    }

    /// Sum of the sizes of all files in bytes, each file counted once.
    pub fn bytes_total(&self) -> u64 {
        self.bytes_total
    }

    /// Attributes of a node; `None` if the image has no such node.
    pub fn attr(&self, node: NodeId) -> Option<Attr> {
        let record = self.node(node)?;
        let kind = kind_of(record[2]);
        let size = u64_at(record, 32);
        let is_device = matches!(kind, NodeKind::Character | NodeKind::Block);
        let has_size = matches!(kind, NodeKind::File | NodeKind::Symlink);
        Some(Attr {
            kind,
            mode: u32::from(u16_at(record, 0)),
            uid: u32_at(record, 4),
            gid: u32_at(record, 8),
            nlink: u32_at(record, 12),
            mtime: Time { secs: u64_at(record, 16).cast_signed(), nanos: u32_at(record, 24) },
            size: if has_size { size } else { 0 },
            device: if is_device { ((size >> 32) as u32, size as u32) } else { (0, 0) },
        })
    }

    /// Length of a file or of a link's target in bytes, 0 for all other nodes; `None` if there is no such node.
    pub fn size(&self, node: NodeId) -> Option<u64> {
        self.attr(node).map(|attr| attr.size)
    }

    /// What has this name in this directory; `None` if nothing has or `directory` is none.
    pub fn lookup(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        let Range { mut start, mut end } = self.names_of(directory)?;
        while start < end {
            let middle = start + (end - start) / 2;
            let entry = self.name(middle)?;
            match entry.name.cmp(name) {
                std::cmp::Ordering::Equal => return Some(entry.node),
                std::cmp::Ordering::Less => start = middle + 1,
                std::cmp::Ordering::Greater => end = middle,
            }
        }
        None
    }

    /// The names in a directory from the `from`th on (0 is the first), in the order of their bytes. Without `.` and
    /// `..`. Nothing for a node that is no directory.
    pub fn children(&self, directory: NodeId, from: u32) -> impl Iterator<Item = DirEntry<'_>> + '_ {
        let Range { start, end } = self.names_of(directory).unwrap_or(0..0);
        (start.saturating_add(from)..end).map_while(|number| self.name(number))
    }

    /// The directory a node lies in, or one of them; that of the root is the root.
    pub fn parent(&self, node: NodeId) -> Option<NodeId> {
        Some(NodeId(u32_at(self.node(node)?, 52)))
    }

    /// The target of a symbolic link; `None` for all other nodes.
    pub fn link_target(&self, node: NodeId) -> Option<&[u8]> {
        let record = self.node(node)?;
        (kind_of(record[2]) == NodeKind::Symlink)
            .then(|| self.string(u32_at(record, 40), usize::try_from(u64_at(record, 32)).ok()?))?
    }

    /// Extended attributes of a node, in the order of their names' bytes. Those in overlayfs's own namespaces are escaped
    /// as an overlay's lower directory must have them.
    pub fn xattrs(&self, node: NodeId) -> impl Iterator<Item = (&[u8], &[u8])> + '_ {
        let mut at = self.node(node).map_or(NONE, |record| u32_at(record, 28));
        let mut left = if at == NONE { 0 } else { self.string(at, 4).map_or(0, |count| u32_at(count, 0)) };
        at = at.saturating_add(4);
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let lengths = self.string(at, 8)?;
            let (name, value) = (u32_at(lengths, 0), u32_at(lengths, 4));
            let name_at = at.checked_add(8)?;
            let value_at = name_at.checked_add(name)?;
            at = value_at.checked_add(value)?;
            Some((self.string(name_at, name as usize)?, self.string(value_at, value as usize)?))
        })
    }

    /// One extended attribute of a node.
    pub fn xattr(&self, node: NodeId, name: &[u8]) -> Option<&[u8]> {
        self.xattrs(node).find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// Digest of the whole content of a file, if the image says.
    pub fn file_digest(&self, node: NodeId) -> Option<Digest> {
        self.digest(u32_at(self.node(node)?, 48))
    }

    /// The chunks of a file that have bytes in `offset..offset + length`, in order.
    pub fn chunks(&self, file: NodeId, offset: u64, length: u64) -> impl Iterator<Item = ChunkRef> + '_ {
        let all = self.chunks_of(file).unwrap_or(0..0);
        let end = offset.saturating_add(length);
        let (mut low, mut high) = (all.start, all.end);
        while low < high {
            let middle = low + (high - low) / 2;
            let ends = self
                .chunk_record(middle)
                .map_or(0, |chunk| u64_at(chunk, 0).saturating_add(u64::from(u32_at(chunk, 8))));
            if ends <= offset { low = middle + 1 } else { high = middle }
        }
        (low..all.end).map_while(|number| self.chunk(number)).take_while(move |chunk| chunk.file_offset < end)
    }

    /// A chunk by its number.
    pub fn chunk(&self, number: u32) -> Option<ChunkRef> {
        let record = self.chunk_record(number)?;
        Some(ChunkRef {
            number,
            file_offset: u64_at(record, 0),
            length: u64::from(u32_at(record, 8)),
            inner_offset: u64::from(u32_at(record, 12)),
            group: self.group(u32_at(record, 16))?,
            digest: self.digest(u32_at(record, 20)),
            node: NodeId(u32_at(record, 24)),
        })
    }

    /// A group by its number.
    pub fn group(&self, number: u32) -> Option<GroupRef> {
        let record = self.record(&self.tables.groups, GROUP_BYTES, number)?;
        let output = u32_at(record, 12);
        let coding = match record[18] {
            format::GZIP => Coding::Gzip,
            format::ZSTD => Coding::Zstd,
            format::DEFLATE => Coding::Deflate { checkpoint: u32_at(record, 20) },
            format::ZEROS => Coding::Zeros,
            _ => Coding::Plain,
        };
        Some(GroupRef {
            number,
            blob: u32::from(u16_at(record, 16)),
            offset: u64_at(record, 0),
            length: u64::from(u32_at(record, 8)),
            output_length: (output != NONE).then_some(u64::from(output)),
            coding,
            digest: self.digest(u32_at(record, 24)),
        })
    }

    /// All groups, in the order of blob and offset.
    pub fn groups(&self) -> impl Iterator<Item = GroupRef> + '_ {
        (0..self.group_count()).map_while(|number| self.group(number))
    }

    /// The chunks that lie in a group, in the order of their place in it.
    pub fn group_chunks(&self, group: u32) -> impl Iterator<Item = ChunkRef> + '_ {
        let order = |at: u32| {
            let chunk = u32_at(self.record(&self.tables.order, ORDER_BYTES, at)?, 0);
            Some((chunk, u32_at(self.chunk_record(chunk)?, 16)))
        };
        let (mut low, mut high) = (0, count(&self.tables.order, ORDER_BYTES));
        let all = high;
        while low < high {
            let middle = low + (high - low) / 2;
            if order(middle).is_some_and(|(_, of)| of < group) { low = middle + 1 } else { high = middle }
        }
        (low..all)
            .map_while(order)
            .take_while(move |(_, of)| *of == group)
            .map_while(|(chunk, _)| self.chunk(chunk))
    }

    /// The blobs the bytes come from, with their sizes: the layers of the image, the lowest first.
    pub fn blobs(&self) -> Vec<(Digest, u64)> {
        (0..count(&self.tables.blobs, BLOB_BYTES)).map_while(|number| self.blob(number)).collect()
    }

    /// A blob by its number.
    pub fn blob(&self, number: u32) -> Option<(Digest, u64)> {
        let record = self.record(&self.tables.blobs, BLOB_BYTES, number)?;
        Some((Digest::from_bytes(record[..32].try_into().ok()?), u64_at(record, 32)))
    }

    /// The path of a node from the root, one of them if it has several; empty for the root.
    pub fn path(&self, node: NodeId) -> Option<Vec<u8>> {
        let mut names = Vec::new();
        let mut at = node;
        while at != Self::ROOT {
            let record = self.node(at)?;
            names.push(self.name(u32_at(record, 56))?.name);
            at = NodeId(u32_at(record, 52));
            // Only in a file that an enemy made.
            if names.len() > self.nodes() as usize {
                return None;
            }
        }
        names.reverse();
        Some(names.join(&b'/'))
    }

    /// The node a path leads to, component by component; symbolic links are not followed.
    pub fn find(&self, path: &[u8]) -> Option<NodeId> {
        let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        names.try_fold(Self::ROOT, |at, name| self.lookup(at, name))
    }

    fn record(&self, table: &Range<usize>, bytes: usize, number: u32) -> Option<&[u8]> {
        let start = (number as usize).checked_mul(bytes)?.checked_add(table.start)?;
        let end = start.checked_add(bytes)?;
        (end <= table.end).then(|| &self.bytes[start..end])
    }

    fn node(&self, node: NodeId) -> Option<&[u8]> {
        self.record(&self.tables.nodes, NODE_BYTES, node.0.checked_sub(1)?)
    }

    fn chunk_record(&self, number: u32) -> Option<&[u8]> {
        self.record(&self.tables.chunks, CHUNK_BYTES, number)
    }

    fn names_of(&self, directory: NodeId) -> Option<Range<u32>> {
        self.range_of(directory, NodeKind::Directory)
    }

    fn chunks_of(&self, file: NodeId) -> Option<Range<u32>> {
        self.range_of(file, NodeKind::File)
    }

    fn range_of(&self, node: NodeId, kind: NodeKind) -> Option<Range<u32>> {
        let record = self.node(node)?;
        let first = u32_at(record, 40);
        (kind_of(record[2]) == kind).then(|| first..first.saturating_add(u32_at(record, 44)))
    }

    fn name(&self, number: u32) -> Option<DirEntry<'_>> {
        let record = self.record(&self.tables.names, NAME_BYTES, number)?;
        let name = self.string(u32_at(record, 0), usize::from(record[8]))?;
        Some(DirEntry { name, node: NodeId(u32_at(record, 4)), kind: kind_of(record[9]) })
    }

    fn digest(&self, number: u32) -> Option<Digest> {
        let record = self.record(&self.tables.digests, DIGEST_BYTES, number)?;
        Some(Digest::from_bytes(record.try_into().ok()?))
    }

    fn string(&self, offset: u32, length: usize) -> Option<&[u8]> {
        self.bytes.get(self.tables.strings.clone())?.get(offset as usize..)?.get(..length)
    }
}

fn count(table: &Range<usize>, record_bytes: usize) -> u32 {
    // `Tables::new` allows fewer than `NONE` records.
    (table.len() / record_bytes) as u32
}

pub(super) fn kind_number(kind: NodeKind) -> u8 {
    kind as u8
}

fn kind_of(number: u8) -> NodeKind {
    match number {
        0 => NodeKind::Directory,
        2 => NodeKind::Symlink,
        3 => NodeKind::Character,
        4 => NodeKind::Block,
        5 => NodeKind::Fifo,
        _ => NodeKind::File,
    }
}
