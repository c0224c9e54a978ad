//! Reading a record: first its checksum, then entry by entry.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use storage_sys::tree::{EntryPath, Timestamp};

use super::write::in_order;
use super::{END, Hash, MAGIC, RecordError, Recorded, What, flags};

/// Bytes of the checksum at the end.
const CHECKSUM: u64 = 32;

/// Reads the entries of a record whose checksum is right.
///
/// Every path is clean, every number within its range, entries are in order and a link names an earlier entry: a record
/// that is otherwise is refused even if its checksum is right.
#[derive(Debug)]
pub struct RecordReader<R> {
    input: io::Take<BufReader<R>>,
    offset: u64,
    before: Option<EntryPath>,
    count: u64,
    ended: bool,
}

impl<R: Read + Seek> RecordReader<R> {
    /// Reads the record once to its end, and gets ready to read its entries.
    ///
    /// # Errors
    /// [`RecordError::Format`], [`RecordError::Checksum`], [`RecordError::Io`].
    pub fn new(mut input: R) -> Result<Self, RecordError> {
        let length = input.seek(SeekFrom::End(0))?;
        input.rewind()?;
        let body = length.checked_sub(CHECKSUM).filter(|body| *body > MAGIC.len() as u64);
        let body = body.ok_or(RecordError::Format)?;
        let mut input = BufReader::with_capacity(256 * 1024, input);
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(RecordError::Format);
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&magic);
        let mut left = body - MAGIC.len() as u64;
        while left > 0 {
            let bytes = input.fill_buf()?;
            let take = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if take == 0 {
                return Err(RecordError::Checksum);
            }
            hasher.update(&bytes[..take]);
            input.consume(take);
            left -= take as u64;
        }
        let mut checksum: Hash = [0; 32];
        input.read_exact(&mut checksum)?;
        if hasher.finalize() != checksum {
            return Err(RecordError::Checksum);
        }
        input.seek(SeekFrom::Start(MAGIC.len() as u64))?;
        let input = input.take(body - MAGIC.len() as u64);
        Ok(Self { input, offset: MAGIC.len() as u64, before: None, count: 0, ended: false })
    }

    /// The next entry; `None` after the last.
    ///
    /// # Errors
    /// [`RecordError::Malformed`], [`RecordError::Io`].
    pub fn next_entry(&mut self) -> Result<Option<Recorded>, RecordError> {
        if self.ended {
            return Ok(None);
        }
        let first = self.byte()?;
        if first == END {
            if self.number()? != self.count || self.input.limit() > 0 {
                return Err(self.malformed("the number of entries is another"));
            }
            self.ended = true;
            return Ok(None);
        }
        let entry = self.entry(first)?;
        self.before = Some(entry.path.clone());
        self.count += 1;
        Ok(Some(entry))
    }

    fn entry(&mut self, first: u8) -> Result<Recorded, RecordError> {
        let kind = first & flags::KIND;
        let has = |flag: u8| first & flag != 0;
        let unfit = (has(flags::IMPLIED | flags::OPAQUE) && kind != flags::DIRECTORY)
            || (has(flags::CONTENT) && kind != flags::FILE)
            || (has(flags::XATTRS) && kind == flags::LINK)
            || first & 0x80 != 0;
        if unfit {
            return Err(self.malformed("an entry has marks its kind cannot have"));
        }
        let path = self.path()?;
        let mut entry = Recorded {
            path,
            what: What::Directory,
            implied: has(flags::IMPLIED),
            opaque: has(flags::OPAQUE),
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            xattrs: None,
        };
        if kind != flags::LINK {
            entry.mode = self.below(0o10000)?;
            (entry.uid, entry.gid) = (self.below(u32::MAX)?, self.below(u32::MAX)?);
            let seconds = self.number()?;
            let seconds = (seconds >> 1).cast_signed() ^ -((seconds & 1).cast_signed());
            entry.mtime = Timestamp { seconds, nanoseconds: self.below(1_000_000_000)? };
            if has(flags::XATTRS) {
                entry.xattrs = Some(self.hash()?);
            }
        }
        entry.what = self.what(kind, has(flags::CONTENT))?;
        Ok(entry)
    }

    fn what(&mut self, kind: u8, has_content: bool) -> Result<What, RecordError> {
        Ok(match kind {
            flags::DIRECTORY => What::Directory,
            flags::FILE => {
                let size = self.number()?;
                let content = if has_content { Some(self.hash()?) } else { None };
                What::File { size, content }
            }
            flags::LINK => {
                let first = self.number()?;
                if first >= self.count {
                    return Err(self.malformed("a link names no earlier entry"));
                }
                What::Link { first }
            }
            flags::SYMLINK => What::Symlink { target: self.bytes(EntryPath::BYTES_MAX)? },
            flags::CHAR | flags::BLOCK => {
                let (major, minor) = (self.below(u32::MAX)?, self.below(u32::MAX)?);
                if kind == flags::CHAR { What::Char { major, minor } } else { What::Block { major, minor } }
            }
            flags::FIFO => What::Fifo,
            _ => return Err(self.malformed("an entry is of no known kind")),
        })
    }

    fn path(&mut self) -> Result<EntryPath, RecordError> {
        let shared = self.number()?;
        let before = self.before.as_ref().map_or(&[][..], EntryPath::as_bytes);
        let shared = usize::try_from(shared).ok().and_then(|shared| before.get(..shared)).map(<[u8]>::to_vec);
        let mut raw = shared.ok_or_else(|| self.malformed("a path shares more than the one before has"))?;
        raw.append(&mut self.bytes(EntryPath::BYTES_MAX)?);
        let path = EntryPath::parse(&raw).ok().filter(|path| path.as_bytes() == raw);
        let path = path.ok_or_else(|| self.malformed("a path is not a clean one"))?;
        let ordered = match &self.before {
            None => path.is_root(),
            Some(before) => in_order(before, &path).is_lt(),
        };
        if ordered { Ok(path) } else { Err(self.malformed("the entries are not in order")) }
    }

    fn malformed(&self, reason: &'static str) -> RecordError {
        RecordError::Malformed { offset: self.offset, reason }
    }

    fn byte(&mut self) -> Result<u8, RecordError> {
        let mut byte = [0];
        self.exact(&mut byte)?;
        Ok(byte[0])
    }

    fn exact(&mut self, buffer: &mut [u8]) -> Result<(), RecordError> {
        match self.input.read_exact(buffer) {
            Ok(()) => {
                self.offset += buffer.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.malformed("it ends inside an entry"))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn hash(&mut self) -> Result<Hash, RecordError> {
        let mut hash = [0; 32];
        self.exact(&mut hash)?;
        Ok(hash)
    }

    /// A LEB128 number in its shortest form.
    fn number(&mut self) -> Result<u64, RecordError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 || (byte == 0 && shift > 0) {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.malformed("a number is too long"))
    }

    fn below(&mut self, limit: u32) -> Result<u32, RecordError> {
        let value = u32::try_from(self.number()?).ok().filter(|value| *value < limit);
        value.ok_or_else(|| self.malformed("a number is out of range"))
    }

    fn bytes(&mut self, most: usize) -> Result<Vec<u8>, RecordError> {
        let length = usize::try_from(self.number()?).ok().filter(|length| *length <= most);
        let mut bytes = vec![0; length.ok_or_else(|| self.malformed("a name is too long"))?];
        self.exact(&mut bytes)?;
        Ok(bytes)
    }
}
