//! The pieces of files, and the groups they make.
//!
//! Both layouts give where in the blob the gzip member or zstd frame of a piece begins. Where it ends: in the one of
//! stargz at the next place where any piece's begins, or at the end of the payload; in the one of containers/storage at the
//! next piece of the same file, or at the file's `endOffset`.

use storage_model::Digest;

use super::entry::Raw;
use crate::{Chunk, Coding, Entry, Group, IndexError, Kind, Limits, Toc};

/// How the pieces lie in the blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// stargz's, with gzip members or zstd frames.
    Stargz(Coding),
    /// containers/storage's, with zstd frames.
    Containers,
}

/// A piece of a file as the JSON gives it.
struct Piece {
    /// Number of its file among the entries.
    file: usize,
    file_offset: u64,
    length: u64,
    digest: Option<Digest>,
    /// Where its member or frame begins, `None` for zeros.
    offset: Option<u64>,
    inner_offset: u64,
    /// Where its frame ends, if known from the JSON; grows known by the next piece.
    end: Option<u64>,
}

/// All pieces, in the order of the files.
pub(super) struct Pieces {
    layout: Layout,
    pieces: Vec<Piece>,
    /// The file that `chunk` entries continue: its number, size, and where its last frame ends.
    file: Option<(usize, u64, Option<u64>)>,
    prefetch_bytes: Option<u64>,
}

impl Pieces {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout, pieces: Vec::new(), file: None, prefetch_bytes: None }
    }

    /// Takes the entry with this number.
    pub(super) fn begins(
        &mut self,
        number: usize,
        entry: &Entry,
        raw: &Raw<'_>,
        limits: &Limits,
    ) -> Result<(), IndexError> {
        self.file = None;
        let Kind::File { size, digest, .. } = entry.kind else { return Ok(()) };
        if matches!(self.layout, Layout::Stargz(_)) {
            match &*entry.path {
                b".prefetch.landmark" => self.prefetch_bytes = Some(raw.whole(raw.offset)?),
                b".no.prefetch.landmark" => self.prefetch_bytes = Some(0),
                _ => {}
            }
        }
        let end = match (self.layout, raw.end_offset) {
            (Layout::Stargz(_), _) | (_, 0) => None,
            (Layout::Containers, end) => Some(raw.whole(end)?),
        };
        self.file = Some((number, size, end));
        if size == 0 {
            return Ok(());
        }
        // A file in one piece may have its digest only.
        let is_whole = raw.chunk_offset == 0 && (raw.chunk_size == 0 || raw.whole(raw.chunk_size)? == size);
        let digest = raw.chunk_digest()?.or(digest.filter(|_| is_whole));
        self.piece(number, size, end, raw, digest, limits)
    }

    /// Takes a `chunk` entry, which continues the file before it.
    pub(super) fn continues(
        &mut self,
        entries: &[Entry],
        raw: &Raw<'_>,
        limits: &Limits,
    ) -> Result<(), IndexError> {
        let Some((number, size, end)) = self.file else {
            return Err(raw.refused("it is a piece of a file, but what comes before it is none"));
        };
        if entries.get(number).is_none_or(|entry| raw.path().is_ok_and(|path| path != entry.path)) {
            return Err(raw.refused("it is a piece of another file than the one before it"));
        }
        let digest = raw.chunk_digest()?;
        self.piece(number, size, end, raw, digest, limits)
    }

    fn piece(
        &mut self,
        file: usize,
        size: u64,
        end: Option<u64>,
        raw: &Raw<'_>,
        digest: Option<Digest>,
        limits: &Limits,
    ) -> Result<(), IndexError> {
        let file_offset = raw.whole(raw.chunk_offset)?;
        let rest = size.checked_sub(file_offset).filter(|rest| *rest > 0);
        let rest = rest.ok_or_else(|| raw.refused("a piece of it begins behind its end"))?;
        let length = match raw.whole(raw.chunk_size)? {
            0 => rest,
            length if length <= rest => length,
            _ => return Err(raw.refused("a piece of it is longer than the file")),
        };
        let offset = raw.whole(raw.offset)?;
        if let (Layout::Containers, Some(before)) = (self.layout, self.pieces.last_mut())
            && before.file == file
        {
            before.end = Some(offset);
        }
        if self.layout == Layout::Containers && raw.is_zeros() {
            return self.zeros(file, file_offset, length, limits);
        }
        let inner_offset = match self.layout {
            Layout::Stargz(_) => raw.whole(raw.inner_offset)?,
            Layout::Containers => 0,
        };
        let piece = Piece { file, file_offset, length, digest, offset: Some(offset), inner_offset, end };
        self.push(piece, limits)
    }

    /// A hole, in pieces no longer than a chunk may be.
    fn zeros(
        &mut self,
        file: usize,
        file_offset: u64,
        length: u64,
        limits: &Limits,
    ) -> Result<(), IndexError> {
        let step = limits.chunk_bytes_max.max(1);
        let mut done = 0;
        while done < length {
            let part = step.min(length - done);
            let (file_offset, offset) = (file_offset + done, None);
            let zeros =
                Piece { file, file_offset, length: part, digest: None, offset, inner_offset: 0, end: None };
            self.push(zeros, limits)?;
            done += part;
        }
        Ok(())
    }

    fn push(&mut self, piece: Piece, limits: &Limits) -> Result<(), IndexError> {
        let (actual, limit) = (self.pieces.len() as u64 + 1, limits.chunks_max as u64);
        if actual > limit {
            return Err(IndexError::Limit { what: "chunks of the layer", actual, limit });
        }
        self.pieces.push(piece);
        Ok(())
    }

    /// The table: the entries with their chunks, and the groups.
    pub(super) fn finish(self, mut entries: Vec<Entry>, payload_end: u64) -> Result<Toc, IndexError> {
        let groups = self.groups(payload_end)?;
        let skip = usize::from(groups.first().is_some_and(|group| group.coding == Coding::Zeros));
        let mut chunks = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            let begins_at =
                |offset| groups[skip..].binary_search_by_key(&offset, |group: &Group| group.offset);
            // `groups` made one for each place; the group of zeros is the first.
            let group =
                piece.offset.and_then(|offset| begins_at(offset).ok()).map_or(0, |number| number + skip)
                    as u32;
            let Some(Entry { kind: Kind::File { chunks: own, .. }, .. }) = entries.get_mut(piece.file) else {
                continue;
            };
            let next = chunks.len() as u32;
            let start = if own.start == own.end { next } else { own.start };
            *own = start..next + 1;
            let Piece { file_offset, length, digest, inner_offset, .. } = *piece;
            chunks.push(Chunk { file_offset, length, digest, group, inner_offset });
        }
        let prefetch_bytes = self.prefetch_bytes;
        Ok(Toc { entries, chunks, groups, checkpoints: Vec::new(), prefetch_bytes })
    }

    /// One group for each place where a member or frame begins, in their order; before them one for all zeros, if any.
    fn groups(&self, payload_end: u64) -> Result<Vec<Group>, IndexError> {
        let coding = match self.layout {
            Layout::Stargz(coding) => coding,
            Layout::Containers => Coding::Zstd,
        };
        let mut begins: Vec<(u64, Option<u64>)> =
            self.pieces.iter().filter_map(|piece| Some((piece.offset?, piece.end))).collect();
        begins.sort_unstable();
        begins.dedup_by_key(|(offset, _)| *offset);
        let mut groups = Vec::with_capacity(begins.len() + 1);
        if self.pieces.iter().any(|piece| piece.offset.is_none()) {
            groups.push(Group {
                offset: 0,
                length: 0,
                output_length: None,
                coding: Coding::Zeros,
                digest: None,
            });
        }
        for (number, (offset, end)) in begins.iter().enumerate() {
            let next = begins.get(number + 1).map_or(payload_end, |(next, _)| *next).min(payload_end);
            let end = end.unwrap_or(next);
            let reason = "it begins behind the end of the payload, or does not end behind its begin";
            let wrong = IndexError::Group { number, reason };
            let length = end.checked_sub(*offset).filter(|length| *length > 0).ok_or(wrong)?;
            groups.push(Group { offset: *offset, length, output_length: None, coding, digest: None });
        }
        Ok(groups)
    }
}
