//! A tar as items: where in it each header, each piece of data and each padding lies.
//!
//! Everything later works with ranges of the tar, so that bytes which are kept are the very bytes.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use storage_layer::Limits;
use storage_layer::tar::{Entry, EntryKind, Piece, Reader};
use storage_model::{Digest, Hasher};
use storage_sys::tree::EntryPath;

use crate::BuildError;
use crate::header::Extra;
use crate::rollsum::{Cut, Cutter};

/// Most bytes of holes of all files of a layer: 4 GiB. They are hashed, and some formats have to write them as zeros.
const HOLE_BYTES_MAX: u64 = 4 << 30;

/// Stored bytes of a file: `tar_offset..tar_offset + length` of the tar are `file_offset..` of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) file_offset: u64,
    pub(crate) tar_offset: u64,
    pub(crate) length: u64,
}

/// One entry and where it lies.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) entry: Entry,
    /// What the header says beyond `entry`.
    pub(crate) extra: Extra,
    /// Clean and relative; empty is the root.
    pub(crate) path: Vec<u8>,
    /// All headers of the entry, to the first byte of data.
    pub(crate) head: Range<u64>,
    /// The stored data; holes lie between.
    pub(crate) extents: Vec<Extent>,
    /// From the end of the data to the end of the last block.
    pub(crate) padding: Range<u64>,
    /// Of the whole content; `None` unless it is a file with content.
    pub(crate) digest: Option<Digest>,
    /// CRC-64 of the whole content, for tar-split.
    pub(crate) crc64: u64,
    /// Where dialect C cuts the content; empty unless asked for.
    pub(crate) cuts: Vec<Cut>,
}

impl Item {
    /// Part of the content is not stored.
    pub(crate) fn is_sparse(&self) -> bool {
        self.entry.kind == EntryKind::File
            && self.extents.iter().map(|extent| extent.length).sum::<u64>() != self.entry.size
    }
}

/// A whole tar.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) items: Vec<Item>,
    /// What follows the last entry: the end marker and whatever comes after it.
    pub(crate) tail: Range<u64>,
    /// Digest of all of it.
    pub(crate) digest: Digest,
    /// Some path occurs more than once.
    pub(crate) has_doubles: bool,
}

/// Reads the tar in `file` from its start to its end. With `cut`, contents are cut as dialect C does.
///
/// # Errors
/// [`BuildError::Source`], [`BuildError::Tar`], [`BuildError::Limit`], [`BuildError::Entry`] for names that lead outside.
pub(crate) fn scan(file: &File, cut: bool) -> Result<Scanned, BuildError> {
    let mut file = file;
    file.seek(SeekFrom::Start(0)).map_err(BuildError::Source)?;
    let limits = Limits::default();
    let hashing = Hashing { file, hasher: Hasher::new() };
    let mut buffered = BufReader::with_capacity(256 * 1024, hashing);
    let mut reader = Reader::new(&mut buffered, &limits);
    let mut items: Vec<Item> = Vec::new();
    let mut end = 0;
    let mut seen: HashSet<Vec<u8>> = HashSet::new();
    let mut has_doubles = false;
    let mut holes = 0u64;
    while let Some(entry) = reader.next_entry()? {
        if items.len() as u64 >= limits.entries_max {
            return Err(BuildError::Limit { what: "entries", limit: limits.entries_max });
        }
        let head = end..reader.offset();
        let (item, stored_end) = item(&mut reader, entry, head, file, cut, &mut holes)?;
        end = stored_end.next_multiple_of(512);
        has_doubles |= !seen.insert(item.path.clone());
        items.push(item);
    }
    reader.drain()?;
    let bytes = reader.offset();
    let digest = buffered.into_inner().hasher.finish();
    // An archive may end inside the padding of its last entry.
    if let Some(last) = items.last_mut() {
        last.padding.end = last.padding.end.min(bytes);
        end = end.min(bytes);
    }
    Ok(Scanned { items, tail: end..bytes, digest, has_doubles })
}

fn item<R: std::io::BufRead>(
    reader: &mut Reader<R>,
    entry: Entry,
    head: Range<u64>,
    file: &File,
    cut: bool,
    holes: &mut u64,
) -> Result<(Item, u64), BuildError> {
    let path = path_of(&entry)?;
    let mut bytes = vec![0; usize::try_from(head.end - head.start).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, head.start).map_err(BuildError::Source)?;
    let extra = Extra::read(&bytes);
    let (mut extents, mut at, mut tar_at): (Vec<Extent>, u64, u64) = (Vec::new(), 0, head.end);
    let mut content = Content::new(cut);
    reader.read_data(|piece| {
        match piece {
            Piece::Data(bytes) => {
                let length = bytes.len() as u64;
                content.data(bytes);
                match extents.last_mut() {
                    Some(last) if last.file_offset + last.length == at => last.length += length,
                    _ => extents.push(Extent { file_offset: at, tar_offset: tar_at, length }),
                }
                (at, tar_at) = (at + length, tar_at + length);
            }
            Piece::Hole(length) => {
                *holes = holes.saturating_add(length);
                if *holes > HOLE_BYTES_MAX {
                    let name = storage_layer::EntryName(entry.name.clone());
                    let reason = "with it, the layer has holes of more than 4 GiB";
                    return Err(BuildError::Entry { name, reason });
                }
                content.zeros(length);
                at += length;
            }
        }
        Ok::<(), BuildError>(())
    })?;
    let (digest, crc64, cuts) = content.finish();
    let digest = (entry.size > 0).then_some(digest);
    let padding = tar_at..tar_at.next_multiple_of(512);
    let item = Item { entry, extra, path, head, extents, padding, digest, crc64, cuts };
    Ok((item, tar_at))
}

/// The clean path of an entry.
///
/// # Errors
/// [`BuildError::Entry`] if it leads outside or is too long.
pub(crate) fn path_of(entry: &Entry) -> Result<Vec<u8>, BuildError> {
    let refused = |reason| BuildError::Entry { name: storage_layer::EntryName(entry.name.clone()), reason };
    let path = EntryPath::parse(&entry.name).map_err(|_| refused("its name leads outside or is too long"))?;
    Ok(path.as_bytes().to_vec())
}

/// Everything that is computed over a content as it passes.
struct Content {
    hasher: Hasher,
    crc64: crate::tar_split::Crc64,
    cutter: Option<Cutter>,
}

impl Content {
    fn new(cut: bool) -> Self {
        Self {
            hasher: Hasher::new(),
            crc64: crate::tar_split::Crc64::default(),
            cutter: cut.then(Cutter::default),
        }
    }

    fn data(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        if let Some(cutter) = &mut self.cutter {
            self.crc64.update(bytes);
            cutter.data(bytes);
        }
    }

    fn zeros(&mut self, length: u64) {
        let zeros = [0; 4096];
        let mut left = length;
        while left > 0 {
            let take = left.min(4096);
            self.data(&zeros[..usize::try_from(take).expect("at most 4096")]);
            left -= take;
        }
    }

    fn finish(self) -> (Digest, u64, Vec<Cut>) {
        let cuts = self.cutter.map(Cutter::finish).unwrap_or_default();
        (self.hasher.finish(), self.crc64.finish(), cuts)
    }
}

/// Hashes what is read.
struct Hashing<'f> {
    file: &'f File,
    hasher: Hasher,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}
