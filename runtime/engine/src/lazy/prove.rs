//! Proves, when all bytes of a layer are here, that what was shown of it is what it is (row L5).
//!
//! A table of contents is vouched for by the manifest, but nothing made it agree with the tar it describes: a layer may
//! show a clean file to who reads it lazily and hold another. So the whole tar is read once: its digest must be the
//! config's diff ID, and each of its entries what the table says, contents included; and the table may say nothing more.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use lazy_index::{Chunk, Coding, Entry, Kind, Toc};
use storage_layer::tar::{self, EntryKind, Piece, Reader, TarError};
use storage_layer::{Decompressor, LayerError, Limits};
use storage_model::{Compression, DiffId, Hasher};

/// Entries that formats add to a tar for themselves; some tables have them, and others do not.
const OWN: [&[u8]; 3] = [b"stargz.index.json", b".prefetch.landmark", b".no.prefetch.landmark"];

/// Bytes decompressed at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// How a layer was found not to be what was said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unproved {
    /// It could not be read as a layer at all.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The tar is not the one of the config.
    #[error("its diff ID is {actual}, the config says {expected}")]
    DiffId {
        /// What the config says.
        expected: DiffId,
        /// What it is.
        actual: DiffId,
    },
    /// The table says something else of it.
    #[error("{path}: {what}")]
    Entry {
        /// Path of the first entry that differs.
        path: String,
        /// In what.
        what: &'static str,
    },
    /// Somebody asked to stop.
    #[error("called off")]
    CalledOff,
}

impl From<TarError> for Unproved {
    fn from(error: TarError) -> Self {
        Self::Layer(LayerError::Tar(error))
    }
}

/// Reads all of `blob`, which is `compression` of the layer that `toc` describes.
///
/// # Errors
/// [`Unproved`] at the first difference.
pub(crate) fn prove(
    blob: File,
    compression: Compression,
    toc: &Toc,
    expected: DiffId,
    stop: &AtomicBool,
) -> Result<(), Unproved> {
    let limits = Limits::default();
    let mut source = Hashed::new(Decompressor::new(blob, compression, &limits)?);
    let mut reader = Reader::new(&mut source, &limits);
    let walked = Table::new(toc).compare(&mut reader, stop);
    let walked = walked.and_then(|()| Ok(reader.drain().map(drop)?));
    // The tar reader only knows that there were no more bytes; the decompressor knows why.
    if let Some(error) = source.failure.take() {
        return Err(error.into());
    }
    walked?;
    let actual = DiffId(source.hasher.finish());
    if actual == expected { Ok(()) } else { Err(Unproved::DiffId { expected, actual }) }
}

/// What a table says, by path; of several entries of one path the last counts, as it does when they are unpacked.
struct Table<'a> {
    toc: &'a Toc,
    entries: HashMap<&'a [u8], &'a Entry>,
}

impl<'a> Table<'a> {
    fn new(toc: &'a Toc) -> Self {
        Self { toc, entries: toc.entries.iter().map(|entry| (&*entry.path, entry)).collect() }
    }

    fn compare<R: BufRead>(&self, reader: &mut Reader<R>, stop: &AtomicBool) -> Result<(), Unproved> {
        // What the last entry of each path was found to be.
        let mut found: HashMap<Vec<u8>, Option<&'static str>> = HashMap::new();
        while let Some(entry) = reader.next_entry()? {
            if stop.load(Ordering::Relaxed) {
                return Err(Unproved::CalledOff);
            }
            let path = clean(&entry.name);
            if OWN.contains(&&*path) && !self.entries.contains_key(&*path) {
                continue;
            }
            let payload = reader.offset();
            let difference = match self.entries.get(&*path) {
                None => Some("is in the tar and not in the table"),
                Some(said) => match attributes(said, &entry) {
                    None => self.content(said, &entry, reader, payload)?,
                    difference => difference,
                },
            };
            found.insert(path, difference);
        }
        if let Some((path, what)) = found.iter().find_map(|(path, what)| Some((path, (*what)?))) {
            return Err(unproved(path, what));
        }
        // A directory that the table adds shows nothing that is not there.
        let added = |entry: &&&Entry| {
            !matches!(entry.kind, Kind::Directory)
                && !found.contains_key(&*entry.path)
                && !OWN.contains(&&*entry.path)
        };
        match self.entries.values().find(added) {
            Some(entry) => Err(unproved(&entry.path, "is in the table and not in the tar")),
            None => Ok(()),
        }
    }

    /// Compares what a file holds; reads all of it.
    fn content<R: BufRead>(
        &self,
        said: &Entry,
        entry: &tar::Entry,
        reader: &mut Reader<R>,
        payload: u64,
    ) -> Result<Option<&'static str>, Unproved> {
        let Kind::File { size, digest, chunks } = &said.kind else { return Ok(None) };
        if *size != entry.size {
            return Ok(Some("has another size"));
        }
        let mut pieces = Pieces::new(&self.toc.chunks[chunks.start as usize..chunks.end as usize]);
        let mut whole = Hasher::new();
        reader.read_data::<Unproved>(|piece| {
            match piece {
                Piece::Data(bytes) => {
                    whole.update(bytes);
                    pieces.take(bytes);
                }
                Piece::Hole(mut length) => {
                    const ZEROS: [u8; 4096] = [0; 4096];
                    while length > 0 {
                        let take = usize::try_from(length).unwrap_or(usize::MAX).min(ZEROS.len());
                        whole.update(&ZEROS[..take]);
                        pieces.take(&ZEROS[..take]);
                        length -= take as u64;
                    }
                }
            }
            Ok(())
        })?;
        if digest.is_some_and(|digest| digest != whole.finish()) || pieces.differ {
            return Ok(Some("has another content"));
        }
        // Pieces without a digest are what lies at their place: it has to be this file's place.
        let elsewhere = |chunk: &Chunk| {
            chunk.digest.is_none()
                && digest.is_none()
                && self.place(chunk).is_some_and(|place| place != payload + chunk.file_offset)
        };
        let pieces = &self.toc.chunks[chunks.start as usize..chunks.end as usize];
        Ok(pieces.iter().any(elsewhere).then_some("is said to lie elsewhere"))
    }

    /// Where in the uncompressed tar a piece lies, for formats that say so.
    fn place(&self, chunk: &Chunk) -> Option<u64> {
        let group = self.toc.groups.get(chunk.group as usize)?;
        match group.coding {
            Coding::Deflate { checkpoint } => {
                let checkpoint = self.toc.checkpoints.get(checkpoint as usize)?;
                Some(checkpoint.output_offset + chunk.inner_offset)
            }
            Coding::Plain => Some(group.offset + chunk.inner_offset),
            Coding::Gzip | Coding::Zstd | Coding::Zeros => None,
        }
    }
}

/// Hashes each piece of a file as its bytes come.
struct Pieces<'a> {
    left: std::slice::Iter<'a, Chunk>,
    current: Option<(&'a Chunk, Hasher)>,
    differ: bool,
}

impl<'a> Pieces<'a> {
    fn new(chunks: &'a [Chunk]) -> Self {
        Self { left: chunks.iter(), current: None, differ: false }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.current.is_none() {
                self.current = self.left.next().map(|chunk| (chunk, Hasher::new()));
            }
            let Some((chunk, hasher)) = &mut self.current else {
                self.differ = true;
                return;
            };
            let wanted = usize::try_from(chunk.length - hasher.bytes()).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(wanted.min(bytes.len()));
            hasher.update(now);
            bytes = later;
            if hasher.bytes() == chunk.length
                && let Some((chunk, hasher)) = self.current.take()
            {
                self.differ |= chunk.digest.is_some_and(|digest| digest != hasher.finish());
            }
        }
    }
}

/// In what `said` differs from the tar's `entry`, contents aside.
fn attributes(said: &Entry, entry: &tar::Entry) -> Option<&'static str> {
    let same_kind = match (&said.kind, &entry.kind) {
        (Kind::Directory, EntryKind::Directory)
        | (Kind::File { .. }, EntryKind::File)
        | (Kind::Fifo, EntryKind::Fifo) => true,
        (Kind::Symlink(said), EntryKind::Symlink(target)) => **said == **target,
        (Kind::Hardlink(said), EntryKind::HardLink(target)) => **said == *clean(target),
        (Kind::Character { major, minor }, EntryKind::Char { major: a, minor: b })
        | (Kind::Block { major, minor }, EntryKind::Block { major: a, minor: b }) => major == a && minor == b,
        _ => false,
    };
    if !same_kind {
        return Some("is another kind of file, or leads elsewhere");
    }
    if matches!(said.kind, Kind::Hardlink(_)) {
        // It has no attributes of its own.
        return None;
    }
    if said.mode & 0o7777 != entry.mode & 0o7777 {
        return Some("has another mode");
    }
    if (said.uid, said.gid) != (entry.uid, entry.gid) {
        return Some("has another owner");
    }
    // eStargz rounds to whole seconds.
    if said.mtime.secs.abs_diff(entry.mtime.seconds) > 1 {
        return Some("has another time");
    }
    let mut theirs: Vec<(&[u8], &[u8])> =
        said.xattrs.iter().map(|(name, value)| (&**name, &**value)).collect();
    let mut ours: Vec<(&[u8], &[u8])> =
        entry.xattrs.iter().map(|(name, value)| (&**name, &**value)).collect();
    theirs.sort_unstable();
    ours.sort_unstable();
    (theirs != ours).then_some("has other extended attributes")
}

fn unproved(path: &[u8], what: &'static str) -> Unproved {
    Unproved::Entry { path: String::from_utf8_lossy(path).chars().take(256).collect(), what }
}

/// A tar's name as tables have it: relative, without empty components, `.` and `..`.
fn clean(name: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

/// The uncompressed bytes, hashed as they pass.
struct Hashed {
    source: Decompressor<File>,
    buffer: Box<[u8]>,
    filled: usize,
    taken: usize,
    hasher: Hasher,
    /// Why there are no more: the tar reader only knows of I/O.
    failure: Option<LayerError>,
}

impl Hashed {
    fn new(source: Decompressor<File>) -> Self {
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        Self { source, buffer, filled: 0, taken: 0, hasher: Hasher::new(), failure: None }
    }
}

impl BufRead for Hashed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken == self.filled && self.failure.is_none() {
            match self.source.fill(&mut self.buffer) {
                Ok(filled) => (self.filled, self.taken) = (filled, 0),
                Err(error) => {
                    self.failure = Some(error);
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
            self.hasher.update(&self.buffer[..self.filled]);
        }
        Ok(&self.buffer[self.taken..self.filled])
    }

    fn consume(&mut self, amount: usize) {
        self.taken += amount;
    }
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let filled = self.fill_buf()?;
        let amount = filled.len().min(buffer.len());
        buffer[..amount].copy_from_slice(&filled[..amount]);
        self.consume(amount);
        Ok(amount)
    }
}
