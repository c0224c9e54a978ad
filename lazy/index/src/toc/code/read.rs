//! Reading the canonical bytes.

use storage_model::Digest;

use super::{MAGIC, WHAT, coding, kind};
use crate::{Checkpoint, Chunk, Coding, Entry, Group, IndexError, Kind, Limits, Time, Toc};

/// Bytes of the checksum at the end.
const CHECKSUM_BYTES: usize = 32;

struct Reader<'a> {
    left: &'a [u8],
    digests: Vec<Digest>,
}

pub(super) fn read(bytes: &[u8]) -> Result<Toc, IndexError> {
    if !bytes.starts_with(MAGIC) {
        return Err(wrong("it does not begin like one of this version"));
    }
    let (covered, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(wrong(CUT))?;
    if Digest::of(covered).as_bytes() != checksum {
        return Err(IndexError::Checksum { what: WHAT });
    }
    let mut reader = Reader { left: covered.get(MAGIC.len()..).ok_or(wrong(CUT))?, digests: Vec::new() };
    let prefetch_bytes = reader.number()?.checked_sub(1);
    reader.digests = reader.list(CHECKSUM_BYTES, |reader, _| Ok(Digest::from_bytes(reader.array()?)))?;
    let entries = reader.list(9, |reader, before: Option<&Entry>| reader.entry(before))?;
    let chunks = reader.list(5, |reader, before| reader.chunk(before))?;
    let groups = reader.list(5, |reader, before| reader.group(before))?;
    let checkpoints = reader.list(4, |reader, _| reader.checkpoint())?;
    if !reader.left.is_empty() {
        return Err(wrong("something follows its end"));
    }
    Ok(Toc { entries, chunks, groups, checkpoints, prefetch_bytes })
}

const CUT: &str = "it is cut off";
const RANGE: &str = "a number is out of its range";

fn wrong(reason: &'static str) -> IndexError {
    IndexError::Format { what: WHAT, reason }
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], IndexError> {
        let (taken, left) = self.left.split_at_checked(count).ok_or(wrong(CUT))?;
        self.left = left;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], IndexError> {
        let (taken, left) = self.left.split_first_chunk().ok_or(wrong(CUT))?;
        self.left = left;
        Ok(*taken)
    }

    fn number(&mut self) -> Result<u64, IndexError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(wrong(RANGE))
    }

    fn small(&mut self) -> Result<u32, IndexError> {
        u32::try_from(self.number()?).map_err(|_| wrong(RANGE))
    }

    fn signed(&mut self) -> Result<i64, IndexError> {
        let value = self.number()?;
        Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    fn distance(&mut self, before: u64) -> Result<u64, IndexError> {
        Ok(before.wrapping_add(self.signed()?.cast_unsigned()))
    }

    /// A count of things that take at least `bytes_min` bytes each.
    fn count(&mut self, bytes_min: usize) -> Result<usize, IndexError> {
        let count = usize::try_from(self.number()?).map_err(|_| wrong(RANGE))?;
        if count.checked_mul(bytes_min).is_none_or(|bytes| bytes > self.left.len()) {
            return Err(wrong("it counts more than it has bytes for"));
        }
        Ok(count)
    }

    fn list<T>(
        &mut self,
        bytes_min: usize,
        mut one: impl FnMut(&mut Self, Option<&T>) -> Result<T, IndexError>,
    ) -> Result<Vec<T>, IndexError> {
        let count = self.count(bytes_min)?;
        let mut list = Vec::new();
        for _ in 0..count {
            let next = one(self, list.last())?;
            list.push(next);
        }
        Ok(list)
    }

    fn bytes(&mut self) -> Result<Box<[u8]>, IndexError> {
        let count = self.count(1)?;
        Ok(self.take(count)?.into())
    }

    fn digest(&mut self) -> Result<Option<Digest>, IndexError> {
        let Some(number) = self.number()?.checked_sub(1) else { return Ok(None) };
        let found = usize::try_from(number).ok().and_then(|number| self.digests.get(number));
        found.map(|digest| Some(*digest)).ok_or(wrong(RANGE))
    }

    fn path(&mut self, before: Option<&Entry>) -> Result<Box<[u8]>, IndexError> {
        let before = before.map_or(&[][..], |entry| &entry.path);
        let shared = usize::try_from(self.number()?).ok().and_then(|count| before.get(..count));
        let shared = shared.ok_or(wrong(RANGE))?;
        let count = self.count(1)?;
        // Without this, each entry could be as long as all before it together.
        if shared.len() + count > Limits::PATH_BYTES_MAX {
            return Err(wrong("a path is longer than 4095 bytes"));
        }
        Ok([shared, self.take(count)?].concat().into())
    }

    fn entry(&mut self, before: Option<&Entry>) -> Result<Entry, IndexError> {
        let path = self.path(before)?;
        let (mode, uid, gid) = (self.small()?, self.small()?, self.small()?);
        let mtime = Time { secs: self.signed()?, nanos: self.small()? };
        let xattrs = self.list(2, |reader, _| Ok((reader.bytes()?, reader.bytes()?)))?;
        let kind = match self.number()? {
            kind::DIRECTORY => Kind::Directory,
            kind::FILE => {
                let (size, digest) = (self.number()?, self.digest()?);
                Kind::File { size, digest, chunks: self.small()?..self.small()? }
            }
            kind::SYMLINK => Kind::Symlink(self.bytes()?),
            kind::HARDLINK => Kind::Hardlink(self.bytes()?),
            kind::CHARACTER => Kind::Character { major: self.small()?, minor: self.small()? },
            kind::BLOCK => Kind::Block { major: self.small()?, minor: self.small()? },
            kind::FIFO => Kind::Fifo,
            _ => return Err(wrong("it has a kind of entry this version does not know")),
        };
        Ok(Entry { path, kind, mode, uid, gid, mtime, xattrs })
    }

    fn chunk(&mut self, before: Option<&Chunk>) -> Result<Chunk, IndexError> {
        let end = before.map_or(0, |chunk| chunk.file_offset.wrapping_add(chunk.length));
        let (file_offset, length, digest) = (self.distance(end)?, self.number()?, self.digest()?);
        let group = self.distance(before.map_or(0, |chunk| u64::from(chunk.group)))?;
        let group = u32::try_from(group).map_err(|_| wrong(RANGE))?;
        Ok(Chunk { file_offset, length, digest, group, inner_offset: self.number()? })
    }

    fn group(&mut self, before: Option<&Group>) -> Result<Group, IndexError> {
        let offset = self.distance(before.map_or(0, |group| group.offset.wrapping_add(group.length)))?;
        let (length, output_length) = (self.number()?, self.number()?.checked_sub(1));
        let coding = match self.number()? {
            coding::PLAIN => Coding::Plain,
            coding::GZIP => Coding::Gzip,
            coding::ZSTD => Coding::Zstd,
            coding::DEFLATE => Coding::Deflate { checkpoint: self.small()? },
            coding::ZEROS => Coding::Zeros,
            _ => return Err(wrong("it has a coding this version does not know")),
        };
        Ok(Group { offset, length, output_length, coding, digest: self.digest()? })
    }

    fn checkpoint(&mut self) -> Result<Checkpoint, IndexError> {
        let (output_offset, input_offset) = (self.number()?, self.number()?);
        let bits = u8::try_from(self.number()?).map_err(|_| wrong(RANGE))?;
        Ok(Checkpoint { output_offset, input_offset, bits, window: self.bytes()? })
    }
}
