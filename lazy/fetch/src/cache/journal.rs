//! What lies where in a data file: records appended to a file beside it.
//!
//! A record is written after the bytes it is about. What a crash cuts off or mixes up at the end fails its checksum and is
//! cut off at the next opening, with what it was about. After a power cut a record may be there without its bytes: whoever
//! uses it then compares the bytes with [`Record::content`] first.
//!
//! ```text
//! "WLJ1" | (u32 length | u8 kind | key 32 | u64 offset | u64 length | u32 count | u32 CRC-32 of each block ... | u32 CRC-32)*
//! ```
//! All numbers are little-endian; `length` counts the whole record.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use storage_model::Digest;

/// Bytes of data under one checksum: what a small read has to read at least.
pub(super) const BLOCK_BYTES: u64 = 64 * 1024;

const MAGIC: &[u8; 4] = b"WLJ1";
const FIXED_BYTES: usize = 4 + 1 + 32 + 8 + 8 + 4 + 4;
/// Longest record, in bytes: one about 1 GiB, the most a group may decode to.
const RECORD_BYTES_MAX: usize = FIXED_BYTES + 4 * (1 << 30) / BLOCK_BYTES as usize;
/// Longest journal that is read: beyond it a pack or an object is given up. 64 MiB of chunks of one byte need less.
const JOURNAL_BYTES_MAX: u64 = 4 << 30;

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// These bytes are in the data file.
    Chunk {
        /// Their digest.
        content: Digest,
        /// Where they begin in the data file.
        offset: u64,
        /// How many there are.
        length: u64,
        /// CRC-32 of each block of them.
        sums: Box<[u32]>,
    },
    /// What is asked for under `name` are the bytes with the digest `content`.
    Alias {
        /// The name.
        name: Digest,
        /// The digest.
        content: Digest,
    },
}

/// CRC-32 of each block of `bytes`.
pub(super) fn sums(bytes: &[u8]) -> Box<[u32]> {
    bytes.chunks(BLOCK_BYTES as usize).map(crc32fast::hash).collect()
}

impl Record {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; 4];
        match self {
            Self::Chunk { content, offset, length, sums } => {
                out.push(1);
                out.extend_from_slice(content.as_bytes());
                out.extend_from_slice(&offset.to_le_bytes());
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(&(sums.len() as u32).to_le_bytes());
                sums.iter().for_each(|sum| out.extend_from_slice(&sum.to_le_bytes()));
            }
            Self::Alias { name, content } => {
                out.push(2);
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(content.as_bytes());
            }
        }
        let length = out.len() + 4;
        out[..4].copy_from_slice(&(length as u32).to_le_bytes());
        let sum = crc32fast::hash(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    /// The record at the start of `bytes` and its length; `None` if there is no whole and sound one.
    fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        if !(4 + 1 + 4..=RECORD_BYTES_MAX).contains(&length) {
            return None;
        }
        let (body, sum) = bytes.get(..length)?.split_at(length - 4);
        if crc32fast::hash(body).to_le_bytes() != sum {
            return None;
        }
        let fields = &body[5..];
        let digest = |at: usize| Some(Digest::from_bytes(fields.get(at..at + 32)?.try_into().ok()?));
        let number = |at: usize| Some(u64::from_le_bytes(fields.get(at..at + 8)?.try_into().ok()?));
        let record = match body[4] {
            1 => {
                let (offset, length) = (number(32)?, number(40)?);
                let count = u32::from_le_bytes(fields.get(48..52)?.try_into().ok()?) as usize;
                let sums = fields.get(52..)?;
                if sums.len() != count * 4 || count as u64 != length.div_ceil(BLOCK_BYTES) {
                    return None;
                }
                let sums =
                    sums.chunks_exact(4).map(|sum| u32::from_le_bytes([sum[0], sum[1], sum[2], sum[3]]));
                Self::Chunk { content: digest(0)?, offset, length, sums: sums.collect() }
            }
            2 if fields.len() == 64 => Self::Alias { name: digest(0)?, content: digest(32)? },
            _ => return None,
        };
        Some((record, length))
    }
}

/// A journal that is open for more.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    /// Where the next record goes.
    end: u64,
}

impl Journal {
    /// Opens the journal at `path`, or makes an empty one, and gives its sound records to `take` in their order. What
    /// follows the last of them is cut off.
    pub(super) fn open(path: &Path, mut take: impl FnMut(Record)) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let found = file.metadata()?.len();
        let mut bytes = Vec::new();
        if found <= JOURNAL_BYTES_MAX {
            bytes = vec![0; found as usize];
            file.read_exact_at(&mut bytes, 0)?;
        }
        let mut end = MAGIC.len();
        if bytes.get(..end) != Some(MAGIC) {
            file.set_len(0)?;
            file.write_all_at(MAGIC, 0)?;
            return Ok(Self { file, end: end as u64 });
        }
        while let Some((record, length)) = Record::decode(&bytes[end..]) {
            take(record);
            end += length;
        }
        if end as u64 != found {
            file.set_len(end as u64)?;
        }
        Ok(Self { file, end: end as u64 })
    }

    /// Appends records, all or none of them. After an error the journal goes on where it was.
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let bytes: Vec<u8> = records.iter().flat_map(Record::encode).collect();
        self.file.write_all_at(&bytes, self.end).inspect_err(|_| {
            // What was half written would be cut off at the next opening anyway.
            let _ = self.file.set_len(self.end);
        })?;
        self.end += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(seed: u8, length: u64) -> Record {
        let bytes = vec![seed; length as usize];
        Record::Chunk {
            content: Digest::of(&bytes),
            offset: u64::from(seed) << 20,
            length,
            sums: sums(&bytes),
        }
    }

    fn read(path: &Path) -> Vec<Record> {
        let mut records = Vec::new();
        Journal::open(path, |record| records.push(record)).unwrap();
        records
    }

    #[test]
    fn what_is_appended_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let alias = Record::Alias { name: Digest::of(b"n"), content: Digest::of(b"c") };
        let all = [record(1, 1), record(2, BLOCK_BYTES), record(3, BLOCK_BYTES * 3 + 7), alias];
        let mut journal = Journal::open(&path, |_| panic!("it is new")).unwrap();
        journal.append(&all[..2]).unwrap();
        journal.append(&all[2..]).unwrap();
        assert_eq!(read(&path), all);
    }

    proptest! {
        #[test]
        fn crash_a_journal_cut_or_damaged_anywhere_keeps_what_came_before(
            count in 1usize..6, cut in 0usize..2000, flip in proptest::option::of((0usize..2000, 1u8..)),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("j");
            let all: Vec<Record> = (0..count).map(|n| record(n as u8 + 1, 70_000 * n as u64 + 1)).collect();
            Journal::open(&path, |_| {}).unwrap().append(&all).unwrap();
            let mut bytes = std::fs::read(&path).unwrap();
            bytes.truncate(cut.max(4));
            if let Some((at, bits)) = flip && let Some(byte) = bytes.get_mut(at) {
                *byte ^= bits;
            }
            std::fs::write(&path, &bytes).unwrap();
            let found = read(&path);
            prop_assert_eq!(&found[..], &all[..found.len()]);
            // Whatever was cut off, it goes on from there.
            Journal::open(&path, |_| {}).unwrap().append(&[record(9, 9)]).unwrap();
            prop_assert_eq!(read(&path).len(), found.len() + 1);
        }
    }
}
