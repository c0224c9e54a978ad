//! From a merged tree to the bytes of an index file.
//!
//! Nodes are numbered breadth first, names in the order of their bytes, so that the names and the nodes of a directory are
//! neighbours in the file. Only chunks of files that are still visible, and only groups these need, are written.

use std::collections::{HashMap, VecDeque};

use storage_model::Digest;

use super::format::{self, HEAD_BYTES, MAGIC, NONE, SUMMED_FROM};
use super::merge::{merge, too_many};
use super::tree::{Place, ROOT, Source, Tree, escaped};
use super::{ImageIndex, LayerPart, NodeKind};
use crate::{Coding, Entry, IndexError, Kind, Limits, Time};

impl ImageIndex {
    /// Merges layers, the lowest first, and gives the index file's bytes.
    ///
    /// The tree is what `storage-layer` and an overlay make of the same layers: whiteouts and opaque directories are
    /// resolved and gone, attributes in overlayfs's own namespaces escaped, those no file system takes left out,
    /// directories that no layer describes have mode 0755, owner 0:0 and the time 0.
    ///
    /// # Errors
    /// [`IndexError::Entry`] for what unpacking would refuse as well, [`IndexError::Limit`] for more than `limits` allow.
    pub fn build(layers: &[LayerPart<'_>], limits: &Limits) -> Result<Vec<u8>, IndexError> {
        // Groups give the number of their blob in 16 bits.
        if layers.len() > limits.layers_max.min(usize::from(u16::MAX)) {
            return Err(too_many(layers.len(), limits));
        }
        let tree = merge(layers, limits)?;
        let mut writer = Writer::new(layers);
        writer.tree(&tree)?;
        writer.finish()
    }
}

/// The tables as they grow.
struct Writer<'a> {
    layers: &'a [LayerPart<'a>],
    nodes: Vec<u8>,
    names: Vec<u8>,
    digests: Vec<u8>,
    strings: Vec<u8>,
    /// Chunks with the layer and number of their group, which becomes a number in the file at the end.
    chunks: Vec<(ChunkOf, u32)>,
    digest_numbers: HashMap<Digest, u32>,
    string_offsets: HashMap<Vec<u8>, u32>,
    bytes_total: u64,
}

/// A chunk: its layer, its number there, and the node it belongs to.
#[derive(Clone, Copy)]
struct ChunkOf {
    layer: u32,
    number: u32,
    node: u32,
}

/// Where a node stands in the tree, while nodes are numbered.
struct Numbered {
    place: Place,
    parent: u32,
    first_name: u32,
    links: u32,
}

impl<'a> Writer<'a> {
    fn new(layers: &'a [LayerPart<'a>]) -> Self {
        Self {
            layers,
            nodes: Vec::new(),
            names: Vec::new(),
            digests: Vec::new(),
            strings: Vec::new(),
            chunks: Vec::new(),
            digest_numbers: HashMap::new(),
            string_offsets: HashMap::new(),
            bytes_total: 0,
        }
    }

    fn tree(&mut self, tree: &Tree<'a>) -> Result<(), IndexError> {
        let (numbered, first_names) = self.number(tree)?;
        for (index, node) in numbered.iter().enumerate() {
            self.node(tree, index as u32 + 1, node, first_names[index])?;
        }
        Ok(())
    }

    /// Gives every node its number, breadth first, and writes the names. Also the first name of each directory.
    fn number(&mut self, tree: &Tree<'a>) -> Result<(Vec<Numbered>, Vec<u32>), IndexError> {
        let mut numbered = vec![Numbered { place: ROOT, parent: 1, first_name: NONE, links: 1 }];
        let mut numbers: HashMap<Place, u32> = HashMap::from([(ROOT, 1)]);
        let mut first_names = Vec::new();
        let mut name_count = 0u32;
        let mut todo = VecDeque::from([1u32]);
        while let Some(number) = todo.pop_front() {
            let place = numbered[number as usize - 1].place;
            first_names.resize(first_names.len().max(number as usize), 0);
            first_names[number as usize - 1] = name_count;
            let Some(directory) = tree.directory(place) else { continue };
            for (name, child) in &directory.names {
                let next = numbered.len() as u32 + 1;
                let own = *numbers.entry(*child).or_insert(next);
                if own == next {
                    let (parent, first_name) = (number, name_count);
                    numbered.push(Numbered { place: *child, parent, first_name, links: 0 });
                    if tree.directory(*child).is_some() {
                        todo.push_back(next);
                    }
                }
                numbered[own as usize - 1].links += 1;
                let kind = self.kind(tree, *child);
                self.name(name, own, kind)?;
                name_count += 1;
            }
        }
        first_names.resize(numbered.len(), 0);
        Ok((numbered, first_names))
    }

    fn name(&mut self, name: &[u8], node: u32, kind: NodeKind) -> Result<(), IndexError> {
        let offset = self.string(name)?;
        put32(&mut self.names, offset);
        put32(&mut self.names, node);
        self.names.push(u8::try_from(name.len()).map_err(|_| IndexError::Entry {
            path: crate::error::shown(name),
            reason: "one of its components is longer than 255 bytes",
        })?);
        self.names.push(super::read::kind_number(kind));
        Ok(())
    }

    fn entry(&self, source: Option<Source>) -> Option<&'a Entry> {
        let (layer, number) = source?;
        self.layers.get(layer as usize)?.toc.entries.get(number as usize)
    }

    fn kind(&self, tree: &Tree<'a>, place: Place) -> NodeKind {
        if tree.directory(place).is_some() {
            return NodeKind::Directory;
        }
        match self.entry(tree.nodes[place as usize].source).map(|entry| &entry.kind) {
            Some(Kind::Symlink(_)) => NodeKind::Symlink,
            Some(Kind::Character { .. }) => NodeKind::Character,
            Some(Kind::Block { .. }) => NodeKind::Block,
            Some(Kind::Fifo) => NodeKind::Fifo,
            _ => NodeKind::File,
        }
    }

    fn node(
        &mut self,
        tree: &Tree<'a>,
        number: u32,
        node: &Numbered,
        first_name: u32,
    ) -> Result<(), IndexError> {
        let source = tree.nodes[node.place as usize].source;
        let entry = self.entry(source);
        let kind = self.kind(tree, node.place);
        let mut links = node.links;
        let (mut size, mut first, mut count, mut digest) = (0, 0, 0, NONE);
        match entry.map(|entry| &entry.kind) {
            _ if kind == NodeKind::Directory => {
                let names = tree.directory(node.place).map(|directory| &directory.names);
                let children = names.into_iter().flat_map(|names| names.values());
                (first, count) = (first_name, names.map_or(0, |names| names.len() as u32));
                links = 2 + children.filter(|child| tree.directory(**child).is_some()).count() as u32;
            }
            Some(Kind::Symlink(target)) => (first, size) = (self.string(target)?, target.len() as u64),
            Some(Kind::Character { major, minor } | Kind::Block { major, minor }) => {
                size = u64::from(*major) << 32 | u64::from(*minor);
            }
            Some(Kind::File { size: bytes, digest: whole, chunks }) => {
                size = *bytes;
                self.bytes_total = self.bytes_total.saturating_add(size);
                first = self.chunks.len() as u32;
                count = chunks.end.saturating_sub(chunks.start);
                digest = whole.map_or(NONE, |whole| self.digest(whole));
                let layer = source.map_or(0, |(layer, _)| layer);
                self.chunks(ChunkOf { layer, number: chunks.start, node: number }, count)?;
            }
            _ => {}
        }
        let xattrs = self.xattrs(entry, kind)?;
        let time = entry.map_or(Time::default(), |entry| entry.mtime);
        let out = &mut self.nodes;
        out.extend_from_slice(&(entry.map_or(0o755, |entry| entry.mode & 0o7777) as u16).to_le_bytes());
        out.extend_from_slice(&[super::read::kind_number(kind), 0]);
        put32(out, entry.map_or(0, |entry| entry.uid));
        put32(out, entry.map_or(0, |entry| entry.gid));
        put32(out, links);
        put64(out, time.secs.cast_unsigned());
        put32(out, time.nanos);
        put32(out, xattrs);
        put64(out, size);
        for value in [first, count, digest, node.parent, node.first_name] {
            put32(out, value);
        }
        Ok(())
    }

    fn chunks(&mut self, first: ChunkOf, count: u32) -> Result<(), IndexError> {
        let toc = self.layers[first.layer as usize].toc;
        for number in first.number..first.number.saturating_add(count) {
            let missing = IndexError::Chunk { number: number as usize, reason: "it is not in the table" };
            let chunk = toc.chunks.get(number as usize).ok_or(missing)?;
            if toc.groups.get(chunk.group as usize).is_none() {
                let reason = "its group is not in the table";
                return Err(IndexError::Chunk { number: number as usize, reason });
            }
            self.chunks.push((ChunkOf { number, ..first }, chunk.group));
        }
        table("chunks of the image", self.chunks.len())
    }

    fn digest(&mut self, digest: Digest) -> u32 {
        let next = self.digest_numbers.len() as u32;
        let number = *self.digest_numbers.entry(digest).or_insert(next);
        if number == next {
            self.digests.extend_from_slice(digest.as_bytes());
        }
        number
    }

    fn string(&mut self, bytes: &[u8]) -> Result<u32, IndexError> {
        if let Some(offset) = self.string_offsets.get(bytes) {
            return Ok(*offset);
        }
        let offset = self.strings.len();
        table("bytes of names, links and extended attributes", offset + bytes.len())?;
        self.strings.extend_from_slice(bytes);
        self.string_offsets.insert(bytes.to_vec(), offset as u32);
        Ok(offset as u32)
    }

    /// The extended attributes a node has in an overlay's lower directory, as one string; [`NONE`] if it has none.
    fn xattrs(&mut self, entry: Option<&Entry>, kind: NodeKind) -> Result<u32, IndexError> {
        let special = !matches!(kind, NodeKind::Directory | NodeKind::File);
        let mut kept: Vec<(Vec<u8>, &[u8])> = entry
            .into_iter()
            .flat_map(|entry| &entry.xattrs)
            .filter(|(name, _)| any_file_system_has(name, special))
            .map(|(name, value)| (escaped(name).unwrap_or_else(|| name.to_vec()), &**value))
            .collect();
        if kept.is_empty() {
            return Ok(NONE);
        }
        kept.sort_unstable();
        let mut set = (kept.len() as u32).to_le_bytes().to_vec();
        for (name, value) in kept {
            put32(&mut set, name.len() as u32);
            put32(&mut set, value.len() as u32);
            set.extend_from_slice(&name);
            set.extend_from_slice(value);
        }
        self.string(&set)
    }

    fn finish(mut self) -> Result<Vec<u8>, IndexError> {
        let mut used: Vec<(u32, u32)> = self.chunks.iter().map(|(of, group)| (of.layer, *group)).collect();
        used.sort_unstable();
        used.dedup();
        let mut groups = Vec::with_capacity(used.len() * format::GROUP_BYTES);
        for (layer, group) in &used {
            self.group(&mut groups, *layer, *group);
        }
        let group_of = |of: &ChunkOf, group: u32| {
            used.binary_search(&(of.layer, group)).expect("collected from the same chunks") as u32
        };
        let pieces = std::mem::take(&mut self.chunks);
        let mut chunks = Vec::with_capacity(pieces.len() * format::CHUNK_BYTES);
        let mut order = Vec::with_capacity(pieces.len());
        for (number, (of, group)) in pieces.iter().enumerate() {
            let chunk = self.layers[of.layer as usize].toc.chunks[of.number as usize];
            let group = group_of(of, *group);
            order.push((group, chunk.inner_offset, number as u32));
            put64(&mut chunks, chunk.file_offset);
            put32(&mut chunks, saturated(chunk.length));
            put32(&mut chunks, saturated(chunk.inner_offset));
            put32(&mut chunks, group);
            let digest = chunk.digest.map_or(NONE, |digest| self.digest(digest));
            put32(&mut chunks, digest);
            put32(&mut chunks, of.node);
        }
        order.sort_unstable();
        let order: Vec<u8> = order.iter().flat_map(|(_, _, number)| number.to_le_bytes()).collect();
        self.file(&chunks, &order, &groups)
    }

    fn group(&mut self, out: &mut Vec<u8>, layer: u32, number: u32) {
        let group = self.layers[layer as usize].toc.groups[number as usize];
        let (coding, checkpoint) = match group.coding {
            Coding::Plain => (format::PLAIN, 0),
            Coding::Gzip => (format::GZIP, 0),
            Coding::Zstd => (format::ZSTD, 0),
            Coding::Deflate { checkpoint } => (format::DEFLATE, checkpoint),
            Coding::Zeros => (format::ZEROS, 0),
        };
        put64(out, group.offset);
        put32(out, saturated(group.length));
        put32(out, group.output_length.map_or(NONE, saturated));
        out.extend_from_slice(&(layer as u16).to_le_bytes());
        out.extend_from_slice(&[coding, 0]);
        put32(out, checkpoint);
        let digest = group.digest.map_or(NONE, |digest| self.digest(digest));
        put32(out, digest);
    }

    fn file(&self, chunks: &[u8], order: &[u8], groups: &[u8]) -> Result<Vec<u8>, IndexError> {
        let mut blobs = Vec::with_capacity(self.layers.len() * format::BLOB_BYTES);
        for layer in self.layers {
            blobs.extend_from_slice(layer.blob.as_bytes());
            put64(&mut blobs, layer.blob_bytes);
        }
        let tables: [(&[u8], usize); 8] = [
            (&blobs, format::BLOB_BYTES),
            (&self.nodes, format::NODE_BYTES),
            (&self.names, format::NAME_BYTES),
            (&self.digests, format::DIGEST_BYTES),
            (chunks, format::CHUNK_BYTES),
            (order, format::ORDER_BYTES),
            (groups, format::GROUP_BYTES),
            (&self.strings, 1),
        ];
        let bytes: usize = tables.iter().map(|(table, _)| table.len()).sum();
        let mut file = Vec::with_capacity(HEAD_BYTES + bytes);
        file.extend_from_slice(MAGIC);
        file.resize(SUMMED_FROM, 0);
        for (bytes, record) in tables {
            table("records of a table of the image index", bytes.len() / record)?;
            put64(&mut file, (bytes.len() / record) as u64);
        }
        put64(&mut file, self.bytes_total);
        for (bytes, _) in tables {
            file.extend_from_slice(bytes);
        }
        let checksum = Digest::of(&file[SUMMED_FROM..]);
        file[MAGIC.len()..SUMMED_FROM].copy_from_slice(checksum.as_bytes());
        Ok(file)
    }
}

/// Whether the kernel takes an attribute of this name at all, and on what is neither file nor directory (`special`): the
/// unpacker lets pass what it refuses.
fn any_file_system_has(name: &[u8], special: bool) -> bool {
    let acl = name == b"system.posix_acl_access" || name == b"system.posix_acl_default";
    name.starts_with(b"trusted.")
        || name.starts_with(b"security.")
        || (acl || name.starts_with(b"user.")) && !special
}

/// Refuses a table that 32-bit numbers cannot address.
fn table(what: &'static str, records: usize) -> Result<(), IndexError> {
    if records >= NONE as usize {
        return Err(IndexError::Limit { what, actual: records as u64, limit: u64::from(NONE) - 1 });
    }
    Ok(())
}

/// `Limits` keep lengths below 2^32; without validation they are cut, and the digest does not fit.
fn saturated(length: u64) -> u32 {
    u32::try_from(length).unwrap_or(NONE)
}

fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}
