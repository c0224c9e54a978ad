//! [`ztoc`]: the zTOC of one layer.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use storage_layer::tar::{Entry, Piece, Reader, TarError};
use storage_layer::{EntryName, Limits};
use storage_model::{Compression, Digest, Hasher};
use storage_sys::inflate::WINDOW_BYTES_MAX;

use super::TOOL;
use super::flat::{Builder, Place, Value};
use crate::BuildError;
use crate::header::Extra;
use crate::index::{Mark, Marking, Start, Stream};
use crate::toc::{kind, link, time};

/// Bytes of the tar between two checkpoints: 4 MiB, what soci-snapshotter takes unasked.
pub const SPAN_BYTES: u64 = 4 << 20;

/// Version of the format.
const VERSION: &str = "0.9";
/// Values of `compression_algorithm`.
const GZIP: u8 = 1;
const UNCOMPRESSED: u8 = 2;
/// What PAX records of extended attributes begin with.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// A zTOC and what was learned on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ztoc {
    /// The zTOC.
    pub bytes: Vec<u8>,
    /// Digest of the layer's blob, for the caller to compare.
    pub blob_digest: Digest,
    /// Digest of its tar, for the caller to compare.
    pub tar_digest: Digest,
}

/// The zTOC of the layer in `blob`, compressed as `compression`, with a checkpoint every `span_bytes` of its tar.
///
/// # Errors
/// [`BuildError::Entry`] for what the format cannot express (sparse files); [`BuildError::NotSeekable`] for zstd; those of
/// reading the layer.
pub fn ztoc(blob: &File, compression: Compression, span_bytes: u64) -> Result<Ztoc, BuildError> {
    if compression == Compression::Zstd {
        return Err(BuildError::NotSeekable { frame_bytes: u64::MAX, limit_bytes: 0 });
    }
    let span_bytes = span_bytes.max(64 * 1024);
    let marking = Marking { span_bytes, group_bytes: span_bytes, group_bytes_max: u64::MAX, members: false };
    let source = At { blob, at: 0 };
    let mut stream = Stream::new(source, compression, marking, Limits::default())?;
    let marks = stream.marks();
    let read = metadata(&mut stream);
    let metadata = match (read, stream.failed()) {
        (_, Some(error)) => return Err(error),
        (read, None) => read?,
    };
    let ended = stream.finish();
    let marks = marks.take();
    let sizes = Sizes { blob: ended.blob_bytes, tar: ended.tar_bytes, span: span_bytes };
    let digests = span_digests(blob, &marks, &sizes).map_err(BuildError::Source)?;
    let bytes = write(&metadata, &marks, &digests, compression, &sizes);
    Ok(Ztoc { bytes, blob_digest: ended.digest, tar_digest: ended.tar_digest })
}

struct Sizes {
    blob: u64,
    tar: u64,
    span: u64,
}

/// A file read from its start, whatever its own position.
struct At<'f> {
    blob: &'f File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.blob.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// One entry, and where its content begins in the tar.
struct Metadata {
    entry: Entry,
    extra: Extra,
    time: String,
    offset: u64,
}

fn metadata<R: BufRead>(stream: &mut R) -> Result<Vec<Metadata>, BuildError> {
    let limits = Limits::default();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let mut reader = Reader::new(Heads { stream, seen: seen.clone() }, &limits);
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        if all.len() as u64 >= limits.entries_max {
            return Err(BuildError::Limit { what: "entries", limit: limits.entries_max });
        }
        let offset = reader.offset();
        // What was read since the last content: its padding, then the headers.
        let head = seen.take();
        let extra = Extra::read(&head[head.len() % 512..]);
        let mut sparse = false;
        reader.read_data(|piece| {
            sparse |= matches!(piece, Piece::Hole(_));
            Ok::<(), TarError>(())
        })?;
        seen.take();
        if sparse {
            let name = EntryName(entry.name.clone());
            return Err(BuildError::Entry { name, reason: "it is sparse, which SOCI does not know" });
        }
        let time = time(&entry, entry.mtime)?;
        all.push(Metadata { entry, extra, time, offset });
    }
    reader.drain()?;
    Ok(all)
}

/// Keeps what is taken from a stream until somebody looks.
struct Heads<'s, R> {
    stream: &'s mut R,
    seen: Rc<RefCell<Vec<u8>>>,
}

/// Most bytes kept: the headers of one entry are within this. Contents pass and are forgotten.
const HEAD_BYTES_MAX: usize = 4 << 20;

impl<R: BufRead> BufRead for Heads<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.stream.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        let mut seen = self.seen.borrow_mut();
        if seen.len() > HEAD_BYTES_MAX {
            seen.clear();
        }
        if let Ok(bytes) = self.stream.fill_buf() {
            seen.extend_from_slice(&bytes[..amount.min(bytes.len())]);
        }
        self.stream.consume(amount);
    }
}

impl<R: BufRead> Read for Heads<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let take = available.len().min(buffer.len());
        buffer[..take].copy_from_slice(&available[..take]);
        self.consume(take);
        Ok(take)
    }
}

/// Digests of the compressed bytes of each span; two neighbours share the byte that both have bits of.
fn span_digests(blob: &File, marks: &[Mark], sizes: &Sizes) -> io::Result<Vec<String>> {
    let mut digests = Vec::new();
    let mut one = |start: u64, end: u64| -> io::Result<()> {
        let mut hasher = Hasher::new();
        let (mut at, mut buffer) = (start, vec![0; 256 * 1024]);
        while at < end {
            let take = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            blob.read_exact_at(&mut buffer[..take], at)?;
            hasher.update(&buffer[..take]);
            at += take as u64;
        }
        digests.push(hasher.finish().to_string());
        Ok(())
    };
    if marks.iter().any(|mark| mark.start == Start::Plain) {
        let mut at = 0;
        while at < sizes.blob {
            one(at, sizes.blob.min(at + sizes.span))?;
            at += sizes.span;
        }
        return Ok(digests);
    }
    for (number, mark) in marks.iter().enumerate() {
        let shared = matches!(mark.start, Start::Block { bits, .. } if bits > 0);
        let end = marks.get(number + 1).map_or(sizes.blob, |next| next.input);
        one(mark.input - u64::from(shared), end)?;
    }
    Ok(digests)
}

fn write(
    metadata: &[Metadata],
    marks: &[Mark],
    digests: &[String],
    compression: Compression,
    sizes: &Sizes,
) -> Vec<u8> {
    let mut builder = Builder::default();
    let long = |value: u64| Value::Long(i64::try_from(value).unwrap_or(i64::MAX));
    let entries: Vec<Place> = metadata.iter().map(|entry| file(&mut builder, entry)).collect();
    let entries = builder.vector(&entries);
    let toc = builder.table(&[(0, Value::Reference(entries))]);
    let (algorithm, records) = match compression {
        Compression::Gzip => (GZIP, gzip_records(marks, sizes.span)),
        _ => (UNCOMPRESSED, tar_records(sizes)),
    };
    let records = builder.vector_of_bytes(&records);
    let spans: Vec<Place> = digests.iter().map(|digest| builder.string(digest.as_bytes())).collect();
    let spans = builder.vector(&spans);
    let last = i32::try_from(digests.len()).unwrap_or(i32::MAX) - 1;
    let compression = builder.table(&[
        (3, Value::Reference(records)),
        (2, Value::Reference(spans)),
        (1, Value::Int(last)),
        (0, Value::Byte(algorithm)),
    ]);
    let (version, tool) = (builder.string(VERSION.as_bytes()), builder.string(TOOL.as_bytes()));
    let root = builder.table(&[
        (2, long(sizes.blob)),
        (3, long(sizes.tar)),
        (5, Value::Reference(compression)),
        (4, Value::Reference(toc)),
        (1, Value::Reference(tool)),
        (0, Value::Reference(version)),
    ]);
    builder.finish(root)
}

fn file(builder: &mut Builder, metadata: &Metadata) -> Place {
    let Metadata { entry, extra, time, offset } = metadata;
    let long = |value: u64| Value::Long(i64::try_from(value).unwrap_or(i64::MAX));
    let mut records = Vec::new();
    for (name, value) in &entry.xattrs {
        let key = builder.string(&[XATTR, name].concat());
        let value = builder.string(value);
        records.push(builder.table(&[(1, Value::Reference(value)), (0, Value::Reference(key))]));
    }
    let records = (!records.is_empty()).then(|| builder.vector(&records));
    let text = |builder: &mut Builder, text: &[u8]| Value::Reference(builder.string(text));
    let name = text(builder, &entry.name);
    let kind = text(builder, kind(&entry.kind).as_bytes());
    let link = text(builder, link(&entry.kind).unwrap_or_default());
    let user = text(builder, extra.user.as_bytes());
    let group = text(builder, extra.group.as_bytes());
    let time = text(builder, time.as_bytes());
    let mut fields = vec![
        (2, long(*offset)),
        (3, long(entry.size)),
        (5, Value::Long(extra.mode)),
        (11, Value::Long(extra.major)),
        (12, Value::Long(extra.minor)),
        (0, name),
        (1, kind),
        (4, link),
        (6, Value::Uint(entry.uid)),
        (7, Value::Uint(entry.gid)),
        (8, user),
        (9, group),
        (10, time),
    ];
    if let Some(records) = records {
        fields.push((13, Value::Reference(records)));
    }
    builder.table(&fields)
}

/// `have`, span size, then `in`, `out`, bits and a full window for each checkpoint (`zinfo_to_blob`).
fn gzip_records(marks: &[Mark], span: u64) -> Vec<u8> {
    let have = u32::try_from(marks.len()).unwrap_or(u32::MAX);
    let mut records = have.to_le_bytes().to_vec();
    records.extend_from_slice(&span.to_le_bytes());
    for mark in marks {
        let Start::Block { bits, window } = &mark.start else { continue };
        records.extend_from_slice(&mark.input.to_le_bytes());
        records.extend_from_slice(&mark.output.to_le_bytes());
        records.push(*bits);
        // Before the window is full for the first time, its beginning is no part of the stream.
        records.resize(records.len() + WINDOW_BYTES_MAX - window.len(), 0);
        records.extend_from_slice(window);
    }
    records
}

/// A `TarZinfo`: version, span size, size.
fn tar_records(sizes: &Sizes) -> Vec<u8> {
    let mut builder = Builder::default();
    let long = |value: u64| Value::Long(i64::try_from(value).unwrap_or(i64::MAX));
    let root = builder.table(&[(1, long(sizes.span)), (2, long(sizes.tar)), (0, Value::Int(2))]);
    builder.finish(root)
}
