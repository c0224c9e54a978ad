//! Images of one layer, made on the spot, whose bytes are known.

use std::io::Write as _;
use std::sync::Arc;

use lazy_fetch::{Checkpoints, ImageSpec, NoCheckpoints, Origin};
use lazy_index::{Chunk, Coding, Entry, Group, ImageIndex, Kind, LayerPart, Limits, NodeId, Time, Toc};
use storage_model::Digest;

/// How the chunks of an image are laid into its blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Each chunk as it is.
    Plain,
    /// Each chunk a gzip member of its own, as eStargz has it.
    Gzip,
    /// Several chunks in one gzip member, which alone has a digest: chunks have none.
    Shared,
}

/// An image and its only blob.
pub struct Made {
    pub index: Arc<ImageIndex>,
    pub blob: Vec<u8>,
    pub digest: Digest,
    pub files: Vec<(String, Vec<u8>)>,
    pub groups: Vec<Group>,
}

/// Bytes that no two places of two files share.
pub fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

fn entry(path: &str, kind: Kind, mode: u32) -> Entry {
    let path = path.as_bytes().into();
    Entry { path, kind, mode, uid: 0, gid: 0, mtime: Time { secs: 1, nanos: 0 }, xattrs: Vec::new() }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// An image of files with these names and lengths, in chunks of at most `chunk` bytes. Contents follow from `seed`.
pub fn made(seed: u64, files: &[(&str, usize)], chunk: usize, layout: Layout) -> Made {
    let named = files.iter().enumerate();
    let files: Vec<(String, Vec<u8>)> =
        named.map(|(n, (name, length))| ((*name).to_owned(), content(seed + n as u64, *length))).collect();
    of_files(files, chunk, layout)
}

/// An image of these files.
pub fn of_files(files: Vec<(String, Vec<u8>)>, chunk: usize, layout: Layout) -> Made {
    // Something before the first group, as tar headers are.
    let mut blob = vec![0x55; 512];
    let mut toc = Toc { entries: vec![entry("", Kind::Directory, 0o755)], ..Toc::default() };
    let mut shared = Vec::new();
    for (name, bytes) in &files {
        let first = toc.chunks.len() as u32;
        for (number, piece) in bytes.chunks(chunk).enumerate() {
            let file_offset = (number * chunk) as u64;
            let digest = (layout != Layout::Shared).then(|| Digest::of(piece));
            let (group, inner_offset) = match layout {
                Layout::Shared => (toc.groups.len() as u32, shared.len() as u64),
                _ => (toc.groups.len() as u32, 0),
            };
            toc.chunks.push(Chunk { file_offset, length: piece.len() as u64, digest, group, inner_offset });
            match layout {
                Layout::Plain => add(&mut toc, &mut blob, piece, Coding::Plain, piece.len(), false),
                Layout::Gzip => add(&mut toc, &mut blob, &gzip(piece), Coding::Gzip, piece.len(), false),
                Layout::Shared => {
                    shared.extend_from_slice(piece);
                    if shared.len() > 4 * chunk {
                        add(&mut toc, &mut blob, &gzip(&shared), Coding::Gzip, shared.len(), true);
                        shared.clear();
                    }
                }
            }
        }
        let chunks = first..toc.chunks.len() as u32;
        let kind = Kind::File { size: bytes.len() as u64, digest: Some(Digest::of(bytes)), chunks };
        toc.entries.push(entry(name, kind, 0o644));
    }
    if !shared.is_empty() {
        add(&mut toc, &mut blob, &gzip(&shared), Coding::Gzip, shared.len(), true);
    }
    let digest = Digest::of(&blob);
    toc.validate(blob.len() as u64, &Limits::default()).unwrap();
    let layer = LayerPart { blob: digest, blob_bytes: blob.len() as u64, toc: &toc };
    let index = ImageIndex::build(&[layer], &Limits::default()).unwrap();
    let index = Arc::new(ImageIndex::from_bytes(index).unwrap());
    Made { index, blob, digest, files, groups: toc.groups }
}

fn add(toc: &mut Toc, blob: &mut Vec<u8>, coded: &[u8], coding: Coding, output: usize, digest: bool) {
    let (offset, length) = (blob.len() as u64, coded.len() as u64);
    let digest = digest.then(|| Digest::of(coded));
    toc.groups.push(Group { offset, length, output_length: Some(output as u64), coding, digest });
    blob.extend_from_slice(coded);
    // What nobody needs lies between: the headers of the next file.
    blob.extend_from_slice(&[0x55; 100]);
}

impl Made {
    /// The image under a name, to be had at these references.
    pub fn spec(&self, name: &str, origins: &[Origin]) -> ImageSpec {
        ImageSpec {
            name: name.to_owned(),
            index: Arc::clone(&self.index),
            checkpoints: Arc::new(NoCheckpoints) as Arc<dyn Checkpoints>,
            origins: vec![origins.to_vec(); self.index.blobs().len()],
        }
    }

    /// The node of a file.
    pub fn node(&self, path: &str) -> NodeId {
        self.index.find(path.as_bytes()).unwrap()
    }

    /// The bytes of a file.
    pub fn bytes(&self, path: &str) -> &[u8] {
        &self.files.iter().find(|(name, _)| name == path).unwrap().1
    }
}
