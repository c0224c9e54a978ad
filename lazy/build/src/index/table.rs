//! The table of contents of a stream: entries as the tar gives them, contents cut at the stream's marks.

use std::io::BufRead;

use lazy_index::{Checkpoint, Chunk, Coding, Entry, Group, Kind, Time, Toc};
use storage_layer::EntryName;
use storage_layer::tar::{self, EntryKind, Piece, Reader, TarError};
use storage_model::{Digest, Hasher};
use storage_sys::tree::EntryPath;

use super::stream::Marks;
use super::{IndexOptions, Mark, Start};
use crate::BuildError;
use crate::scan::path_of;

/// Longest chunk of a hole, in bytes: 256 MiB. It costs nothing, but a length has to have a limit.
const HOLE_BYTES_MAX: u64 = 256 << 20;

/// Stands for the group of all holes until the number of groups is known.
const HOLES: u32 = u32::MAX;

/// A table under way: the groups are made at the end, of the marks.
#[derive(Default)]
pub(super) struct Table {
    entries: Vec<Entry>,
    chunks: Vec<Chunk>,
}

/// Reads every entry of a tar whose stream makes `marks`.
///
/// # Errors
/// Those of the tar; [`BuildError::Limit`]; [`BuildError::Entry`] for what cannot be unpacked either.
pub(super) fn read<R: BufRead>(
    reader: &mut Reader<R>,
    marks: &Marks,
    options: &IndexOptions,
) -> Result<Table, BuildError> {
    let mut table = Table::default();
    // Holes cost nothing in the tar: what a file says of its length is no proof of anything.
    let (mut bytes, bytes_max) = (0u64, lazy_index::Limits::default().layer_bytes_max);
    while let Some(entry) = reader.next_entry()? {
        if table.entries.len() as u64 >= options.limits.entries_max {
            return Err(BuildError::Limit { what: "entries", limit: options.limits.entries_max });
        }
        bytes = bytes.saturating_add(entry.size);
        if bytes > bytes_max {
            return Err(BuildError::Limit { what: "bytes of files", limit: bytes_max });
        }
        let first = u32::try_from(table.chunks.len()).map_err(|_| too_many_chunks())?;
        let mut file =
            File { marks, options, chunks: &mut table.chunks, open: None, at: 0, tar: reader.offset() };
        reader.read_data(|piece| {
            match piece {
                Piece::Data(bytes) => file.data(bytes),
                Piece::Hole(length) => file.hole(length),
            }
            Ok::<(), TarError>(())
        })?;
        file.close();
        let end = u32::try_from(table.chunks.len()).map_err(|_| too_many_chunks())?;
        let chunks = &table.chunks[first as usize..];
        // A file of one chunk has its digest; of others it would cost another pass over their bytes.
        let digest = match chunks {
            [only] => only.digest,
            _ => None,
        };
        let kind = kind(&entry, digest, first..end)?;
        table.entries.push(entry_of(entry, kind)?);
    }
    Ok(table)
}

fn too_many_chunks() -> BuildError {
    BuildError::Limit { what: "pieces of files", limit: u64::from(u32::MAX) }
}

fn kind(
    entry: &tar::Entry,
    digest: Option<Digest>,
    chunks: std::ops::Range<u32>,
) -> Result<Kind, BuildError> {
    let refused = |reason| BuildError::Entry { name: EntryName(entry.name.clone()), reason };
    Ok(match &entry.kind {
        EntryKind::File => Kind::File { size: entry.size, digest, chunks },
        EntryKind::Directory => Kind::Directory,
        EntryKind::Symlink(target) => Kind::Symlink(target.as_slice().into()),
        EntryKind::HardLink(target) => {
            let target = EntryPath::parse_confined(target).map_err(|_| refused("its target lies outside"))?;
            Kind::Hardlink(target.as_bytes().into())
        }
        EntryKind::Char { major, minor } => Kind::Character { major: *major, minor: *minor },
        EntryKind::Block { major, minor } => Kind::Block { major: *major, minor: *minor },
        EntryKind::Fifo => Kind::Fifo,
    })
}

fn entry_of(entry: tar::Entry, kind: Kind) -> Result<Entry, BuildError> {
    let path = path_of(&entry)?.into();
    let tar::Entry { mode, uid, gid, mtime, xattrs, .. } = entry;
    let xattrs = xattrs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    Ok(Entry {
        path,
        kind,
        mode,
        uid,
        gid,
        mtime: Time { secs: mtime.seconds, nanos: mtime.nanoseconds },
        xattrs,
    })
}

/// A content as it passes.
struct File<'a> {
    marks: &'a Marks,
    options: &'a IndexOptions,
    chunks: &'a mut Vec<Chunk>,
    open: Option<(Chunk, Hasher)>,
    /// Bytes of the file so far.
    at: u64,
    /// Bytes of the tar so far.
    tar: u64,
}

impl File<'_> {
    /// Takes stored bytes. They lie in one group: the stream hands out nothing across a mark.
    fn data(&mut self, bytes: &[u8]) {
        let (group, group_output) = {
            let marks = self.marks.borrow();
            let group = marks.partition_point(|mark| mark.output <= self.tar) - 1;
            (u32::try_from(group).unwrap_or(HOLES - 1), marks[group].output)
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            let full = |chunk: &Chunk| chunk.group != group || chunk.length >= self.options.chunk_bytes_max;
            if self.open.as_ref().is_some_and(|(chunk, _)| full(chunk)) {
                self.close();
            }
            let (chunk, hasher) = self.open.get_or_insert_with(|| {
                let inner_offset = self.tar - group_output;
                let chunk = Chunk { file_offset: self.at, length: 0, digest: None, group, inner_offset };
                (chunk, Hasher::new())
            });
            let room = usize::try_from(self.options.chunk_bytes_max - chunk.length).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at(rest.len().min(room));
            hasher.update(now);
            chunk.length += now.len() as u64;
            (self.at, self.tar) = (self.at + now.len() as u64, self.tar + now.len() as u64);
            rest = later;
        }
    }

    fn hole(&mut self, length: u64) {
        self.close();
        let mut left = length;
        while left > 0 {
            let length = left.min(HOLE_BYTES_MAX);
            self.chunks.push(Chunk {
                file_offset: self.at,
                length,
                digest: None,
                group: HOLES,
                inner_offset: 0,
            });
            (self.at, left) = (self.at + length, left - length);
        }
    }

    fn close(&mut self) {
        if let Some((mut chunk, hasher)) = self.open.take() {
            chunk.digest = Some(hasher.finish());
            self.chunks.push(chunk);
        }
    }
}

impl Table {
    /// The table, with the groups that `marks` begin.
    pub(super) fn finish(self, marks: Vec<Mark>, blob_bytes: u64, tar_bytes: u64) -> Toc {
        let Self { entries, mut chunks } = self;
        let (mut groups, mut checkpoints) = (Vec::with_capacity(marks.len() + 1), Vec::new());
        let ends: Vec<(u64, u64)> = marks.iter().skip(1).map(|mark| (mark.input, mark.output)).collect();
        for (number, mark) in marks.into_iter().enumerate() {
            let (input_end, output_end) = ends.get(number).copied().unwrap_or((blob_bytes, tar_bytes));
            let Mark { output, input, start } = mark;
            let (offset, coding) = match start {
                Start::Plain => (input, Coding::Plain),
                Start::Member => (input, Coding::Gzip),
                Start::Frame => (input, Coding::Zstd),
                Start::Block { bits, window } => {
                    let checkpoint = u32::try_from(checkpoints.len()).unwrap_or(u32::MAX);
                    checkpoints.push(Checkpoint { output_offset: output, input_offset: input, bits, window });
                    (input - u64::from(bits > 0), Coding::Deflate { checkpoint })
                }
            };
            let output_length = Some(output_end - output);
            groups.push(Group { offset, length: input_end - offset, output_length, coding, digest: None });
        }
        if chunks.iter().any(|chunk| chunk.group == HOLES) {
            let number = u32::try_from(groups.len()).unwrap_or(HOLES);
            let zeros = Coding::Zeros;
            groups.push(Group {
                offset: blob_bytes,
                length: 0,
                output_length: None,
                coding: zeros,
                digest: None,
            });
            chunks.iter_mut().filter(|chunk| chunk.group == HOLES).for_each(|chunk| chunk.group = number);
        }
        Toc { entries, chunks, groups, checkpoints, prefetch_bytes: None }
    }
}
