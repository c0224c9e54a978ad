//! From items to members: what is compressed together, and which part of it is whose content.
//!
//! ```text
//! stargz       [head of a] [a ............ pad head of b] [b, chunk 1] [b, chunk 2 .. pad head of c ...] ...
//! containers   [head of a] [a] [pad head of b] [b, cut 1] [b, cut 2] [pad ...] ... [tail]
//! ```
//! A member is one gzip member or zstd frame. It begins with the piece of content it is for, so that a reader who decodes it
//! from its start finds the piece first.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use storage_layer::tar::{Entry, EntryKind, Writer};

use crate::BuildError;
use crate::order::{NO_PREFETCH_LANDMARK, Order, PREFETCH_LANDMARK};
use crate::scan::{Extent, Item, Scanned};

/// Some bytes of a member.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    /// A range of the tar that is converted.
    Tar(Range<u64>),
    /// Bytes of our own.
    Own(Vec<u8>),
    /// Zeros: holes, padding.
    Zeros(u64),
}

/// What is compressed alone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Member {
    pub(crate) parts: Vec<Part>,
    /// How many bytes at its start are a piece of a file; 0 if none are.
    pub(crate) piece_bytes: u64,
    /// How many bytes it has in all.
    pub(crate) bytes: u64,
}

impl Member {
    fn add(&mut self, part: Part) {
        let bytes = match &part {
            Part::Tar(range) => range.end - range.start,
            Part::Own(bytes) => bytes.len() as u64,
            Part::Zeros(bytes) => *bytes,
        };
        if bytes > 0 {
            self.bytes += bytes;
            self.parts.push(part);
        }
    }

    /// The bytes, into `buffer`, which is emptied before.
    pub(crate) fn read(&self, tar: &File, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        for part in &self.parts {
            let at = buffer.len();
            match part {
                Part::Own(bytes) => buffer.extend_from_slice(bytes),
                Part::Zeros(bytes) => buffer.resize(at + index(*bytes), 0),
                Part::Tar(range) => {
                    buffer.resize(at + index(range.end - range.start), 0);
                    tar.read_exact_at(&mut buffer[at..], range.start)?;
                }
            }
        }
        Ok(())
    }
}

fn index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a member is in memory as a whole")
}

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) file_offset: u64,
    pub(crate) length: u64,
    /// The number of the member that begins with it.
    pub(crate) member: usize,
    /// It is all zeros.
    pub(crate) zeros: bool,
}

impl Piece {
    /// It is a hole of a sparse file: no member has it.
    pub(crate) fn is_stored_nowhere(&self, sparse: bool) -> bool {
        self.zeros && sparse
    }
}

/// An entry as it is written.
#[derive(Debug)]
pub(crate) struct Planned<'a> {
    /// `None` for the landmark.
    pub(crate) item: Option<&'a Item>,
    /// Its pieces, in order; empty unless it is a file with content.
    pub(crate) pieces: Vec<Piece>,
    /// The name of the landmark, if it is one.
    pub(crate) landmark: Option<&'static str>,
}

/// All of a layer.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) members: Vec<Member>,
    pub(crate) entries: Vec<Planned<'a>>,
}

/// Longest piece of what a sparse file stores, in bytes.
const STORED_BYTES_MAX: u64 = 4 << 20;

/// The content of a landmark (stargz-snapshotter, `estargz/types.go`).
pub(crate) const LANDMARK_BYTE: u8 = 0x0f;

/// The members of eStargz and of zstd:chunked in stargz's dialect, without the table of contents and the end of the tar.
///
/// # Errors
/// [`BuildError::Entry`] if an entry has to be written anew (a sparse file) and cannot.
pub(crate) fn stargz<'a>(items: &'a [Item], order: &Order, chunk_bytes: u64) -> Result<Plan<'a>, BuildError> {
    let mut planner = Planner::default();
    let landmark = if order.front.is_empty() { NO_PREFETCH_LANDMARK } else { PREFETCH_LANDMARK };
    for &number in &order.front {
        planner.stargz_item(&items[number], chunk_bytes)?;
    }
    planner.landmark(landmark);
    for &number in &order.rest {
        planner.stargz_item(&items[number], chunk_bytes)?;
    }
    Ok(planner.finish())
}

/// The members of zstd:chunked in containers' dialect: the whole tar, byte for byte.
pub(crate) fn containers(scanned: &Scanned) -> Plan<'_> {
    let mut planner = Planner::default();
    for item in &scanned.items {
        planner.open.add(Part::Tar(item.head.clone()));
        let mut pieces = Vec::new();
        if item.is_sparse() {
            planner.stored_pieces(item, &mut pieces);
        } else {
            planner.cut_pieces(item, &mut pieces);
        }
        if !pieces.is_empty() {
            planner.close();
        }
        planner.open.add(Part::Tar(item.padding.clone()));
        planner.entries.push(Planned { item: Some(item), pieces, landmark: None });
    }
    planner.open.add(Part::Tar(scanned.tail.clone()));
    planner.finish()
}

#[derive(Default)]
struct Planner<'a> {
    members: Vec<Member>,
    open: Member,
    entries: Vec<Planned<'a>>,
}

impl<'a> Planner<'a> {
    /// Ends the present member, if there is anything in it, and begins another.
    fn close(&mut self) {
        if self.open.bytes > 0 {
            self.members.push(std::mem::take(&mut self.open));
        }
    }

    /// Begins the member of a piece of `length` bytes.
    fn begin(&mut self, length: u64) -> usize {
        self.close();
        self.open.piece_bytes = length;
        self.members.len()
    }

    fn finish(mut self) -> Plan<'a> {
        self.close();
        Plan { members: self.members, entries: self.entries }
    }

    fn stargz_item(&mut self, item: &'a Item, chunk_bytes: u64) -> Result<(), BuildError> {
        let sparse = item.is_sparse();
        let head = if sparse { Part::Own(plain_head(&item.entry)?) } else { Part::Tar(item.head.clone()) };
        self.open.add(head);
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < item.entry.size && item.entry.kind == EntryKind::File {
            let length = chunk_bytes.min(item.entry.size - at);
            let member = self.begin(length);
            slice(&item.extents, at..at + length, &mut self.open);
            pieces.push(Piece { file_offset: at, length, member, zeros: false });
            at += length;
        }
        self.open.add(Part::Zeros(at.next_multiple_of(512) - at));
        self.entries.push(Planned { item: Some(item), pieces, landmark: None });
        Ok(())
    }

    fn landmark(&mut self, name: &'static str) {
        let entry = Entry {
            name: name.as_bytes().to_vec(),
            kind: EntryKind::File,
            mode: 0o444,
            uid: 0,
            gid: 0,
            mtime: storage_sys::tree::Timestamp::default(),
            atime: None,
            xattrs: Vec::new(),
            size: 1,
        };
        self.open.add(Part::Own(plain_head(&entry).expect("a short name and small numbers")));
        let member = self.begin(1);
        self.open.add(Part::Own(vec![LANDMARK_BYTE]));
        self.open.add(Part::Zeros(511));
        let pieces = vec![Piece { file_offset: 0, length: 1, member, zeros: false }];
        self.entries.push(Planned { item: None, pieces, landmark: Some(name) });
    }

    /// The pieces of a file as the rolling sum cut it.
    fn cut_pieces(&mut self, item: &Item, pieces: &mut Vec<Piece>) {
        let mut at = 0;
        for cut in &item.cuts {
            let member = self.begin(cut.length);
            slice(&item.extents, at..at + cut.length, &mut self.open);
            pieces.push(Piece { file_offset: at, length: cut.length, member, zeros: cut.zeros });
            at += cut.length;
        }
    }

    /// The pieces of a sparse file: what is stored, and the holes, which are in no member.
    fn stored_pieces(&mut self, item: &Item, pieces: &mut Vec<Piece>) {
        let mut at = 0;
        for extent in &item.extents {
            self.hole(at..extent.file_offset, pieces);
            let mut done = 0;
            while done < extent.length {
                let length = (extent.length - done).min(STORED_BYTES_MAX);
                let member = self.begin(length);
                let from = extent.tar_offset + done;
                self.open.add(Part::Tar(from..from + length));
                let file_offset = extent.file_offset + done;
                pieces.push(Piece { file_offset, length, member, zeros: false });
                done += length;
            }
            at = extent.file_offset + extent.length;
        }
        self.hole(at..item.entry.size, pieces);
    }

    fn hole(&mut self, hole: Range<u64>, pieces: &mut Vec<Piece>) {
        if !hole.is_empty() {
            self.close();
            let member = self.members.len();
            pieces.push(Piece {
                file_offset: hole.start,
                length: hole.end - hole.start,
                member,
                zeros: true,
            });
        }
    }
}

/// Adds `range` of a file whose stored data are `extents`; what is not stored is zeros.
fn slice(extents: &[Extent], range: Range<u64>, member: &mut Member) {
    let mut at = range.start;
    let first = extents.partition_point(|extent| extent.file_offset + extent.length <= at);
    for extent in &extents[first..] {
        let start = extent.file_offset.max(at);
        if start >= range.end {
            break;
        }
        member.add(Part::Zeros(start - at));
        let end = (extent.file_offset + extent.length).min(range.end);
        let from = extent.tar_offset + (start - extent.file_offset);
        member.add(Part::Tar(from..from + (end - start)));
        at = end;
    }
    member.add(Part::Zeros(range.end - at));
}

/// The headers of an entry as an ordinary file.
pub(crate) fn plain_head(entry: &Entry) -> Result<Vec<u8>, BuildError> {
    let mut head = Vec::new();
    Writer::new(&mut head).entry(entry).map_err(|_| BuildError::Entry {
        name: storage_layer::EntryName(entry.name.clone()),
        reason: "it is sparse, and a header without holes cannot hold it",
    })?;
    Ok(head)
}
