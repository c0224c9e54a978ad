//! The reader: blocks to entries, and their data without a copy.

use std::io::BufRead;

use storage_sys::tree::Timestamp;

use super::header::{BLOCK, Dialect, Header, text};
use super::pax::{self, Records};
use super::sparse::{self, Extent, Form};
use super::{Entry, EntryKind, TarError};
use crate::{EntryName, Limits};

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes.
    Data(&'a [u8]),
    /// That many zeros that are not stored.
    Hole(u64),
}

/// Reads a tar from a buffered reader. See the module.
///
/// [`Reader::next_entry`], then [`Reader::read_data`] if the entry is a file (what is not read is skipped), to
/// the end; then [`Reader::drain`].
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    limits: Limits,
    /// Bytes taken so far.
    offset: u64,
    /// Stored bytes of the present entry not yet taken.
    data: u64,
    /// Bytes after these up to the next block.
    padding: u64,
    /// Where the data lie in a sparse file.
    extents: Option<Vec<Extent>>,
    /// Length of the present file.
    size: u64,
    ended: bool,
}

/// Extended headers met before an entry.
#[derive(Default)]
struct Pending {
    pax: Option<Records>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    bytes: u64,
}

/// Largest time that is believed, in seconds from 1970 either way: 34,000 years. File systems end long before.
pub(super) const SECONDS_MAX: u64 = 1 << 40;

impl<R: BufRead> Reader<R> {
    /// A reader at the start of an archive.
    pub fn new(input: R, limits: &Limits) -> Self {
        let (offset, data, padding, size) = (0, 0, 0, 0);
        Self { input, limits: *limits, offset, data, padding, extents: None, size, ended: false }
    }

    /// Bytes of the archive taken so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next entry, `None` at the end of the archive.
    ///
    /// # Errors
    /// What makes the archive unreadable or ambiguous; nothing can be read after it.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        self.skip(self.data)?;
        self.skip(self.padding)?;
        (self.data, self.padding, self.extents) = (0, 0, None);
        let mut pending = Pending::default();
        while !self.ended {
            let Some(header) = self.header()? else { break };
            match header.kind() {
                b'x' => {
                    let body = self.extended(&header, &mut pending.bytes)?;
                    let records = Records::parse(&body, header.offset, self.limits.xattr_bytes_max)?;
                    once(&mut pending.pax, records, header.offset, b"a local header")?;
                }
                b'g' => {
                    let body = self.extended(&header, &mut pending.bytes)?;
                    pax::check_global(&body, header.offset)?;
                }
                b'L' => {
                    let name = self.long_name(&header, &mut pending.bytes)?;
                    once(&mut pending.long_name, name, header.offset, b"a long name")?;
                }
                b'K' => {
                    let name = self.long_name(&header, &mut pending.bytes)?;
                    once(&mut pending.long_link, name, header.offset, b"a long link name")?;
                }
                _ => return self.entry(&header, pending).map(Some),
            }
        }
        if pending.pax.is_some() || pending.long_name.is_some() || pending.long_link.is_some() {
            return Err(TarError::Orphan { offset: self.offset });
        }
        self.ended = true;
        Ok(None)
    }

    /// Hands the data of the present entry to `sink`, as they lie in the input's buffer.
    ///
    /// # Errors
    /// Those of `sink`, and [`TarError::Truncated`] or [`TarError::Input`].
    pub fn read_data<E: From<TarError>>(
        &mut self,
        mut sink: impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(extents) = self.extents.take() else { return self.pass(self.data, &mut sink) };
        let mut at = 0;
        for (start, length) in extents {
            if start > at {
                sink(Piece::Hole(start - at))?;
            }
            self.pass(length, &mut sink)?;
            at = start + length;
        }
        if self.size > at {
            sink(Piece::Hole(self.size - at))?;
        }
        Ok(())
    }

    /// Reads what follows the end of the archive, to the end of the input; returns how many bytes that were.
    ///
    /// # Errors
    /// [`TarError::Input`].
    pub fn drain(&mut self) -> Result<u64, TarError> {
        let start = self.offset;
        loop {
            let length = self.input.fill_buf().map_err(TarError::Input)?.len();
            if length == 0 {
                return Ok(self.offset - start);
            }
            self.input.consume(length);
            self.offset += length as u64;
        }
    }

    /// The next header; `None` at the end.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let offset = self.offset;
        let Some(block) = self.block()? else { return Ok(None) };
        if block != [0; BLOCK] {
            let header = Header::new(&block, offset)?;
            header.check_numbers()?;
            return Ok(Some(header));
        }
        // Two blocks of zeros end an archive; one and the end of the input does as well.
        match self.block()? {
            Some(second) if second != [0; BLOCK] => Err(TarError::LoneZeroBlock { offset }),
            _ => {
                self.ended = true;
                Ok(None)
            }
        }
    }

    /// The next block; `None` if the input ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let input = self.input.fill_buf().map_err(TarError::Input)?;
            if input.is_empty() {
                return if filled == 0 { Ok(None) } else { Err(TarError::Truncated { offset: self.offset }) };
            }
            let take = input.len().min(BLOCK - filled);
            block[filled..filled + take].copy_from_slice(&input[..take]);
            self.input.consume(take);
            self.offset += take as u64;
            filled += take;
        }
        Ok(Some(block))
    }

    /// Passes `length` bytes of stored data on.
    fn pass<E: From<TarError>>(
        &mut self,
        length: u64,
        sink: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut left = length;
        while left > 0 {
            let input = self.input.fill_buf().map_err(TarError::Input)?;
            if input.is_empty() {
                return Err(TarError::Truncated { offset: self.offset }.into());
            }
            let take = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            sink(Piece::Data(&input[..take]))?;
            self.input.consume(take);
            self.offset += take as u64;
            left -= take as u64;
            self.data -= take as u64;
        }
        Ok(())
    }

    fn skip(&mut self, length: u64) -> Result<(), TarError> {
        // `data` is what `pass` counts down; padding is skipped with it at zero.
        let data = std::mem::replace(&mut self.data, length);
        let skipped = self.pass(length, &mut |_| Ok::<(), TarError>(()));
        self.data = data.saturating_sub(length);
        skipped
    }

    /// The body of an extended header.
    fn extended(&mut self, header: &Header, bytes: &mut u64) -> Result<Vec<u8>, TarError> {
        let size = header.size()?;
        let limit_bytes = self.limits.extended_header_bytes_max;
        *bytes = bytes.saturating_add(size).saturating_add(BLOCK as u64);
        if *bytes > limit_bytes.saturating_add(BLOCK as u64) {
            return Err(TarError::TooLong { offset: header.offset, limit_bytes });
        }
        let mut body = Vec::with_capacity(usize::try_from(size).expect("checked against the limit"));
        self.data = size;
        self.pass(size, &mut |piece| {
            if let Piece::Data(bytes) = piece {
                body.extend_from_slice(bytes);
            }
            Ok::<(), TarError>(())
        })?;
        self.skip(padding(size))?;
        Ok(body)
    }

    /// The body of a GNU long name: up to its NUL, after which there must be nothing else.
    fn long_name(&mut self, header: &Header, bytes: &mut u64) -> Result<Vec<u8>, TarError> {
        let bad = |reason| TarError::Extended { offset: header.offset, reason };
        let mut body = self.extended(header, bytes)?;
        let length = text(&body).len();
        if body[length..].iter().any(|&byte| byte != 0) {
            return Err(bad("a long name goes on after its NUL byte"));
        }
        if length == 0 {
            return Err(bad("a long name is empty"));
        }
        body.truncate(length);
        Ok(body)
    }

    /// Puts an entry together from its header and the extended ones before it.
    fn entry(&mut self, header: &Header, pending: Pending) -> Result<Entry, TarError> {
        let offset = header.offset;
        let pax = pending.pax.unwrap_or_default();
        let twice = |key: &[u8]| TarError::Duplicate { offset, key: EntryName(key.to_vec()) };
        let (mut name, link) = match (pax.path, pending.long_name, pax.link_path, pending.long_link) {
            (Some(_), Some(_), ..) => return Err(twice(b"path")),
            (.., Some(_), Some(_)) => return Err(twice(b"linkpath")),
            (path, long, link, long_link) => (
                path.or(long).unwrap_or_else(|| header.name()),
                link.or(long_link).unwrap_or_else(|| header.link_name()),
            ),
        };
        let stored = pax.size.map_or_else(|| header.size(), Ok)?;
        let kind = kind(header, &name, link)?;
        let (stored, size) = match kind {
            EntryKind::File => self.file(header, &pax.sparse, stored)?,
            // Archives that keep the length of the file in a hard link have no data there; readers agree on it.
            EntryKind::HardLink(_) => (0, 0),
            _ if stored > 0 => return Err(TarError::UnexpectedData { offset }),
            _ => (0, 0),
        };
        if let Some(sparse) = pax.sparse.name.filter(|_| kind == EntryKind::File) {
            name = sparse;
        }
        (self.data, self.size) = (stored, size);
        // A sparse map in the data may have used part of the last block: what is stored ends where the size says.
        self.padding = padding(stored);
        let id = |value: i64, field| match u32::try_from(value) {
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(TarError::Number { offset, field }),
        };
        let mtime = pax.mtime.map_or_else(|| header.mtime().map(whole), Ok)?;
        for time in [Some(mtime), pax.atime].into_iter().flatten() {
            if time.seconds.unsigned_abs() > SECONDS_MAX {
                return Err(TarError::Number { offset, field: "time" });
            }
        }
        Ok(Entry {
            name,
            kind,
            mode: header.mode()?,
            uid: id(pax.uid.map_or_else(|| header.uid(), Ok)?, "owner")?,
            gid: id(pax.gid.map_or_else(|| header.gid(), Ok)?, "group")?,
            mtime,
            atime: pax.atime,
            xattrs: pax.xattrs,
            size,
        })
    }

    /// Bytes stored for a file from here, and its length; reads its sparse map if it has one.
    fn file(
        &mut self,
        header: &Header,
        records: &super::pax::SparseRecords,
        stored: u64,
    ) -> Result<(u64, u64), TarError> {
        let offset = header.offset;
        let limit = self.limits.sparse_pieces_max;
        let form = sparse::form(records, limit, offset)?;
        if header.kind() == b'S' {
            if form != Form::None || header.dialect != Dialect::Gnu {
                return Err(TarError::Sparse { offset, reason: "it is of two forms" });
            }
            return self.old_sparse(header, stored);
        }
        let (extents, stored) = match form {
            Form::None => return Ok((stored, stored)),
            Form::InRecords(extents) => (extents, stored),
            Form::InData => {
                let (extents, used) = self.map_in_data(stored, offset)?;
                (extents, stored - used)
            }
        };
        let missing = TarError::Sparse { offset, reason: "the length of the file is missing" };
        let size = records.real_size.ok_or(missing)?;
        sparse::check(&extents, size, stored, offset)?;
        self.extents = Some(extents);
        Ok((stored, size))
    }

    /// An old GNU sparse file: a map in the header and in blocks between it and the data.
    fn old_sparse(&mut self, header: &Header, stored: u64) -> Result<(u64, u64), TarError> {
        let offset = header.offset;
        let (mut more, size) = sparse::old_gnu(header)?;
        let mut extents = Vec::new();
        sparse::take_pairs(&header.raw()[386..482], &mut extents, offset)?;
        while more {
            let block = self.block()?.ok_or(TarError::Truncated { offset: self.offset })?;
            sparse::take_pairs(&block[..504], &mut extents, offset)?;
            more = block[504] != 0;
            if extents.len() > self.limits.sparse_pieces_max {
                return Err(TarError::Sparse { offset, reason: "it has more pieces than the limit" });
            }
        }
        sparse::check(&extents, size, stored, offset)?;
        self.extents = Some(extents);
        Ok((stored, size))
    }

    /// A PAX 1.0 map: decimal numbers, one a line, in blocks at the start of the data. Also returns their bytes.
    fn map_in_data(&mut self, stored: u64, offset: u64) -> Result<(Vec<Extent>, u64), TarError> {
        let bad = |reason| TarError::Sparse { offset, reason };
        let mut numbers: Vec<u64> = Vec::new();
        let mut line = Vec::new();
        let mut used = 0u64;
        let mut wanted = None;
        while wanted != Some(numbers.len()) {
            used += BLOCK as u64;
            if used > stored {
                return Err(bad("its map is longer than its data"));
            }
            let block = self.block()?.ok_or(TarError::Truncated { offset: self.offset })?;
            for byte in block {
                if wanted == Some(numbers.len()) {
                    break;
                }
                if byte != b'\n' {
                    line.push(byte);
                    if line.len() > 19 {
                        return Err(bad("a piece is not a number"));
                    }
                    continue;
                }
                let value = pax::decimal(&line).ok_or(bad("a piece is not a number"))?;
                line.clear();
                if wanted.is_some() {
                    numbers.push(value);
                    continue;
                }
                let count =
                    usize::try_from(value).ok().filter(|count| *count <= self.limits.sparse_pieces_max);
                wanted = Some(count.ok_or(bad("it has more pieces than the limit"))? * 2);
            }
        }
        Ok((numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect(), used))
    }
}

fn kind(header: &Header, name: &[u8], link: Vec<u8>) -> Result<EntryKind, TarError> {
    let (major, minor) = header.device()?;
    Ok(match header.kind() {
        // Before POSIX a directory was a file whose name ends with a slash.
        0 if name.ends_with(b"/") => EntryKind::Directory,
        0 | b'0' | b'7' | b'S' => EntryKind::File,
        b'1' => EntryKind::HardLink(link),
        b'2' => EntryKind::Symlink(link),
        b'3' => EntryKind::Char { major, minor },
        b'4' => EntryKind::Block { major, minor },
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        kind => return Err(TarError::Kind { offset: header.offset, kind }),
    })
}

fn once<T>(slot: &mut Option<T>, value: T, offset: u64, key: &[u8]) -> Result<(), TarError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(TarError::Duplicate { offset, key: EntryName(key.to_vec()) }),
    }
}

/// Bytes from the end of `size` bytes of data to the next block.
fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

fn whole(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanoseconds: 0 }
}
