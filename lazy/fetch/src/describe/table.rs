//! From the bytes of a table to a [`Toc`]: decompressed within limits, its digest compared, read, validated. Pure.

use std::io::{self, Cursor, Read};

use flate2::bufread::GzDecoder;
use lazy_index::zstd_chunked::{self, Dialect};
use lazy_index::{Digest, Entry, IndexError, Kind, Limits, Time, Toc, estargz};
use storage_layer::tar;
use storage_sys::tree::EntryPath;

/// Largest window of a zstd frame, as a power of two: 128 MiB, as for whole layers.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Bytes a table's gzip member may have beside the JSON: tar headers and the end of the archive.
const TAR_BYTES_MAX: u64 = 2 << 20;

/// Why bytes are not the table.
pub(super) enum Fault {
    /// They cannot be decompressed.
    Coding(io::Error),
    /// They have another digest.
    Digest { expected: Digest, actual: Digest },
    /// There is no table where it should be: nothing vouches for what is around it.
    Around(IndexError),
    /// It is the right one, and refused.
    Index(IndexError),
}

/// The layer a table is of.
#[derive(Clone, Copy)]
pub(super) struct Of {
    /// Size of its blob in bytes.
    pub(super) blob_bytes: u64,
    /// Digest of its table: of the JSON, for podman's zstd:chunked of the compressed bytes.
    pub(super) expected: Digest,
    pub(super) limits: Limits,
}

impl Of {
    fn check(&self, bytes: &[u8]) -> Result<(), Fault> {
        let actual = Digest::of(bytes);
        if actual == self.expected { Ok(()) } else { Err(Fault::Digest { expected: self.expected, actual }) }
    }

    fn validated(&self, toc: Toc) -> Result<Toc, Fault> {
        toc.validate(self.blob_bytes, &self.limits).map_err(Fault::Index)?;
        Ok(toc)
    }
}

/// The table of eStargz from its member, which begins at `offset` of the blob.
pub(super) fn estargz(member: &[u8], offset: u64, of: Of) -> Result<Toc, Fault> {
    let inside = member_json(member, of.limits)?;
    of.check(inside.json())?;
    let mut toc = estargz::toc(inside.json(), offset, &of.limits).map_err(Fault::Index)?;
    let table = estargz::Table {
        entry: entry(&inside.entry).map_err(Fault::Index)?,
        offset,
        length: member.len() as u64,
        inner_offset: inside.start as u64,
        size: inside.entry.size,
        digest: of.expected,
    };
    estargz::add_table(&mut toc, table);
    of.validated(toc)
}

/// The table of eStargz from a layer of the image beside it, whose member ends at `payload_end` of the blob.
pub(super) fn estargz_outside(archive: &[u8], payload_end: u64, of: Of) -> Result<Toc, Fault> {
    let inside = member_json(archive, of.limits)?;
    of.check(inside.json())?;
    of.validated(estargz::toc(inside.json(), payload_end, &of.limits).map_err(Fault::Index)?)
}

/// The table of zstd:chunked from its compressed bytes, whose frames end at `payload_end` of the blob.
pub(super) fn zstd_chunked(coded: &[u8], dialect: Dialect, payload_end: u64, of: Of) -> Result<Toc, Fault> {
    if dialect == Dialect::Containers {
        of.check(coded)?;
    }
    let json = inflated_zstd(coded, of.limits.toc_bytes_max)?;
    if dialect == Dialect::Stargz {
        of.check(&json)?;
    }
    let contents = zstd_chunked::toc(&json, dialect, payload_end, &of.limits).map_err(Fault::Index)?;
    of.validated(contents.toc)
}

/// A tar with a table in it.
struct Inside {
    tar: Vec<u8>,
    entry: tar::Entry,
    /// Where the JSON begins; `tar[start..start + entry.size]` is there.
    start: usize,
}

impl Inside {
    fn json(&self) -> &[u8] {
        &self.tar[self.start..self.start + self.entry.size as usize]
    }
}

/// Finds the JSON in a gzip member that holds a tar of it.
fn member_json(member: &[u8], limits: Limits) -> Result<Inside, Fault> {
    let tar = limited(GzDecoder::new(member), limits.toc_bytes_max.saturating_add(TAR_BYTES_MAX))?;
    let around = |reason| Fault::Around(IndexError::Format { what: "eStargz layer", reason });
    let mut reader = tar::Reader::new(Cursor::new(&tar), &storage_layer::Limits::default());
    let entry = reader.next_entry().ok().flatten().ok_or(around("its table is not in a tar"))?;
    if entry.kind != tar::EntryKind::File || entry.name != estargz::TOC_NAME.as_bytes() {
        return Err(around("what its footer points to is not its table"));
    }
    let start = usize::try_from(reader.offset()).map_err(|_| around("its table is cut off"))?;
    let end = usize::try_from(entry.size).ok().and_then(|size| start.checked_add(size));
    if end.is_none_or(|end| end > tar.len()) {
        return Err(around("its table is cut off"));
    }
    Ok(Inside { tar, entry, start })
}

/// The table's own entry, from the tar header in front of it.
fn entry(tar: &tar::Entry) -> Result<Entry, IndexError> {
    let refused =
        IndexError::Format { what: "eStargz layer", reason: "the name of its table cannot be used" };
    let path = EntryPath::parse(&tar.name).map_err(|_| refused)?;
    Ok(Entry {
        path: path.as_bytes().into(),
        kind: Kind::Fifo,
        mode: tar.mode,
        uid: tar.uid,
        gid: tar.gid,
        mtime: Time { secs: tar.mtime.seconds, nanos: tar.mtime.nanoseconds },
        xattrs: tar.xattrs.iter().map(|(name, value)| (name[..].into(), value[..].into())).collect(),
    })
}

fn inflated_zstd(coded: &[u8], bytes_max: u64) -> Result<Vec<u8>, Fault> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(coded).map_err(Fault::Coding)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(Fault::Coding)?;
    limited(decoder, bytes_max)
}

/// All that comes out of a decoder, unless it is more than `bytes_max` (row L3).
fn limited(decoder: impl Read, bytes_max: u64) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    decoder.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(Fault::Coding)?;
    let (actual, limit) = (bytes.len() as u64, bytes_max);
    if actual > limit {
        return Err(Fault::Index(IndexError::Limit {
            what: "bytes of the table of contents",
            actual,
            limit,
        }));
    }
    Ok(bytes)
}
