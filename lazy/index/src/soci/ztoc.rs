//! From a zTOC to a [`Toc`].

use storage_sys::tree::EntryPath;

use super::flat::Table;
use super::spans::{self, Sizes, Spans};
use crate::error::shown;
use crate::json::time;
use crate::{Chunk, Entry, IndexError, Kind, Limits, Time, Toc, Xattrs};

/// Values of `compression_algorithm`.
const GZIP: u8 = 1;
const UNCOMPRESSED: u8 = 2;
/// What PAX records of extended attributes begin with; a zTOC has all records of an entry.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// Fields of the tables, by their number in the schema.
mod field {
    pub(super) const COMPRESSED_SIZE: usize = 2;
    pub(super) const UNCOMPRESSED_SIZE: usize = 3;
    pub(super) const TOC: usize = 4;
    pub(super) const COMPRESSION: usize = 5;

    pub(super) const METADATA: usize = 0;

    pub(super) const ALGORITHM: usize = 0;
    pub(super) const DIGESTS: usize = 2;
    pub(super) const CHECKPOINTS: usize = 3;

    pub(super) const NAME: usize = 0;
    pub(super) const TYPE: usize = 1;
    pub(super) const OFFSET: usize = 2;
    pub(super) const SIZE: usize = 3;
    pub(super) const LINK: usize = 4;
    pub(super) const MODE: usize = 5;
    pub(super) const UID: usize = 6;
    pub(super) const GID: usize = 7;
    pub(super) const TIME: usize = 10;
    pub(super) const MAJOR: usize = 11;
    pub(super) const MINOR: usize = 12;
    pub(super) const XATTRS: usize = 13;
}

fn wrong(reason: &'static str) -> IndexError {
    IndexError::Format { what: "zTOC", reason }
}

const CUT: &str = "one of its references leads out of it";

/// Reads a zTOC, whose digest the caller has checked, of a layer whose blob has `blob_bytes` bytes.
///
/// The result has not been validated. Its files have no digests; the spans have, of their compressed bytes.
///
/// # Errors
/// [`IndexError::Format`], [`IndexError::Limit`] or [`IndexError::Entry`].
pub fn ztoc(bytes: &[u8], blob_bytes: u64, limits: &Limits) -> Result<Toc, IndexError> {
    let root = Table::root(bytes).ok_or(wrong(CUT))?;
    let size = |field| {
        root.i64(field).and_then(|size| u64::try_from(size).ok()).ok_or(wrong("one of its sizes is negative"))
    };
    let sizes = Sizes { coded_bytes: size(field::COMPRESSED_SIZE)?, bytes: size(field::UNCOMPRESSED_SIZE)? };
    if sizes.coded_bytes != blob_bytes {
        return Err(wrong("it is about a layer of another size"));
    }
    let compression = root.table(field::COMPRESSION).ok_or(wrong(CUT))?;
    let records = compression.bytes(field::CHECKPOINTS).ok_or(wrong(CUT))?;
    let digests = compression.list(field::DIGESTS).ok_or(wrong(CUT))?;
    // An absent field stands for its default, gzip.
    let spans = match compression.u8(field::ALGORITHM).ok_or(wrong(CUT))? {
        0 | GZIP => spans::gzip(records, digests, &sizes)?,
        UNCOMPRESSED => spans::tar(records, digests, &sizes)?,
        _ => return Err(wrong("its layer is compressed in a way this version does not know")),
    };
    let metadata = root.table(field::TOC).and_then(|toc| toc.list(field::METADATA)).ok_or(wrong(CUT))?;
    let (actual, limit) = (metadata.len() as u64, limits.entries_max as u64);
    if actual > limit {
        return Err(IndexError::Limit { what: "entries of the layer", actual, limit });
    }
    let mut reading = Reading { limits, spans: &spans, chunks: Vec::new(), copied_bytes: 0 };
    let mut entries = Vec::with_capacity(metadata.len());
    for number in 0..metadata.len() {
        entries.push(reading.entry(metadata.table(number).ok_or(wrong(CUT))?)?);
    }
    let chunks = reading.chunks;
    Ok(Toc { entries, chunks, groups: spans.groups, checkpoints: spans.checkpoints, prefetch_bytes: None })
}

struct Reading<'s> {
    limits: &'s Limits,
    spans: &'s Spans,
    chunks: Vec<Chunk>,
    /// Bytes of names, targets and attributes so far: references may lead to one place again and again.
    copied_bytes: u64,
}

impl Reading<'_> {
    fn entry(&mut self, table: Table<'_>) -> Result<Entry, IndexError> {
        let name = table.bytes(field::NAME).ok_or(wrong(CUT))?;
        let refused = |reason| IndexError::Entry { path: shown(name), reason };
        let number = |field| table.i64(field).ok_or(wrong(CUT));
        let clean = |path: Result<EntryPath, _>| {
            path.map(|path| path.as_bytes().into()).map_err(|_| {
                refused("a name in it leads out of the root, contains a NUL byte, or is too long")
            })
        };
        let link = table.bytes(field::LINK).ok_or(wrong(CUT))?;
        let device = || {
            let part = |field| {
                u32::try_from(number(field)?).map_err(|_| refused("its device number is out of range"))
            };
            Ok((part(field::MAJOR)?, part(field::MINOR)?))
        };
        let kind = match table.bytes(field::TYPE).ok_or(wrong(CUT))? {
            b"dir" => Kind::Directory,
            b"reg" => {
                let part =
                    |field| u64::try_from(number(field)?).map_err(|_| refused("its place is negative"));
                let (offset, size) = (part(field::OFFSET)?, part(field::SIZE)?);
                let start = self.chunks.len() as u32;
                self.pieces(offset, size).map_err(refused)?;
                Kind::File { size, digest: None, chunks: start..self.chunks.len() as u32 }
            }
            b"symlink" => Kind::Symlink(link.into()),
            b"hardlink" => Kind::Hardlink(clean(EntryPath::parse_confined(link))?),
            b"char" => device().map(|(major, minor)| Kind::Character { major, minor })?,
            b"block" => device().map(|(major, minor)| Kind::Block { major, minor })?,
            b"fifo" => Kind::Fifo,
            _ => return Err(refused("its type is none of reg, hardlink, symlink, dir, char, block, fifo")),
        };
        let xattrs = self.xattrs(table)?;
        self.copied(name.len() + link.len())?;
        Ok(Entry {
            path: clean(EntryPath::parse(name))?,
            kind,
            mode: (number(field::MODE)? & 0o7777) as u32,
            uid: table.u32(field::UID).ok_or(wrong(CUT))?,
            gid: table.u32(field::GID).ok_or(wrong(CUT))?,
            mtime: mtime(table.bytes(field::TIME).ok_or(wrong(CUT))?)
                .ok_or_else(|| refused("its time is not RFC 3339"))?,
            xattrs,
        })
    }

    fn xattrs(&mut self, table: Table<'_>) -> Result<Xattrs, IndexError> {
        let records = table.list(field::XATTRS).ok_or(wrong(CUT))?;
        let mut xattrs = Xattrs::new();
        for number in 0..records.len() {
            let record = records.table(number).ok_or(wrong(CUT))?;
            let (name, value) = (record.bytes(0).ok_or(wrong(CUT))?, record.bytes(1).ok_or(wrong(CUT))?);
            self.copied(name.len() + value.len() + 1)?;
            if let Some(name) = name.strip_prefix(XATTR) {
                xattrs.push((name.into(), value.into()));
            }
        }
        xattrs.sort_unstable();
        Ok(xattrs)
    }

    fn copied(&mut self, bytes: usize) -> Result<(), IndexError> {
        self.copied_bytes = self.copied_bytes.saturating_add(bytes as u64);
        let (actual, limit) = (self.copied_bytes, self.limits.toc_bytes_max);
        if actual > limit {
            return Err(IndexError::Limit { what: "bytes of the table of contents", actual, limit });
        }
        Ok(())
    }

    /// Cuts `size` bytes at `offset` of the tar where spans meet.
    fn pieces(&mut self, offset: u64, size: u64) -> Result<(), &'static str> {
        let mut span = self.spans.starts.partition_point(|start| *start <= offset);
        let mut done = 0;
        while done < size {
            let at = offset.checked_add(done).ok_or("it ends behind 2^64")?;
            let number = span.checked_sub(1).ok_or("it begins before the first span")?;
            let group = self.spans.groups.get(number).ok_or("it ends behind the last span")?;
            let inner_offset = at - self.spans.starts[number];
            let rest = group.output_length.and_then(|length| length.checked_sub(inner_offset)).unwrap_or(0);
            if rest == 0 {
                return Err("it ends behind the last span, or in one that is empty");
            }
            if self.chunks.len() >= self.limits.chunks_max {
                return Err("with it, the layer has more chunks than the limit allows");
            }
            let length = rest.min(size - done);
            self.chunks.push(Chunk {
                file_offset: done,
                length,
                digest: None,
                group: number as u32,
                inner_offset,
            });
            done += length;
            span += 1;
        }
        Ok(())
    }
}

fn mtime(text: &[u8]) -> Option<Time> {
    if text.is_empty() {
        return Some(Time::default());
    }
    time(std::str::from_utf8(text).ok()?)
}
