//! Writing the canonical bytes.

use std::collections::HashMap;

use storage_model::Digest;

use super::{MAGIC, coding, kind};
use crate::{Chunk, Coding, Entry, Group, Kind, Toc};

struct Writer {
    out: Vec<u8>,
    digests: HashMap<Digest, u64>,
}

pub(super) fn write(toc: &Toc) -> Vec<u8> {
    let (list, digests) = digests(toc);
    let mut writer = Writer { out: MAGIC.to_vec(), digests };
    writer.number(toc.prefetch_bytes.map_or(0, |bytes| bytes.saturating_add(1)));
    writer.number(list.len() as u64);
    list.iter().for_each(|digest| writer.out.extend_from_slice(digest.as_bytes()));
    writer.number(toc.entries.len() as u64);
    let mut before: &[u8] = &[];
    for entry in &toc.entries {
        writer.entry(entry, before);
        before = &entry.path;
    }
    writer.number(toc.chunks.len() as u64);
    let mut place = (0, 0);
    toc.chunks.iter().for_each(|chunk| place = writer.chunk(chunk, place));
    writer.number(toc.groups.len() as u64);
    let mut offset = 0;
    toc.groups.iter().for_each(|group| offset = writer.group(group, offset));
    writer.number(toc.checkpoints.len() as u64);
    for checkpoint in &toc.checkpoints {
        writer.number(checkpoint.output_offset);
        writer.number(checkpoint.input_offset);
        writer.number(u64::from(checkpoint.bits));
        writer.bytes(&checkpoint.window);
    }
    let checksum = Digest::of(&writer.out);
    writer.out.extend_from_slice(checksum.as_bytes());
    writer.out
}

/// All digests, each once, in the order of their first use, and their numbers.
fn digests(toc: &Toc) -> (Vec<Digest>, HashMap<Digest, u64>) {
    let of_entries = toc.entries.iter().filter_map(|entry| match entry.kind {
        Kind::File { digest, .. } => digest,
        _ => None,
    });
    let of_chunks = toc.chunks.iter().filter_map(|chunk| chunk.digest);
    let of_groups = toc.groups.iter().filter_map(|group| group.digest);
    let (mut list, mut numbers) = (Vec::new(), HashMap::new());
    for digest in of_entries.chain(of_chunks).chain(of_groups) {
        numbers.entry(digest).or_insert_with(|| {
            list.push(digest);
            list.len() as u64
        });
    }
    (list, numbers)
}

impl Writer {
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    /// Small numbers of either sign take few bytes.
    fn signed(&mut self, value: i64) {
        self.number(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    /// The difference to `before`, whichever is larger.
    fn distance(&mut self, value: u64, before: u64) {
        self.signed(value.wrapping_sub(before).cast_signed());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    fn digest(&mut self, digest: Option<Digest>) {
        let number = digest.and_then(|digest| self.digests.get(&digest).copied());
        self.number(number.unwrap_or(0));
    }

    fn entry(&mut self, entry: &Entry, before: &[u8]) {
        let shared = entry.path.iter().zip(before).take_while(|(own, other)| own == other).count();
        self.number(shared as u64);
        self.bytes(&entry.path[shared..]);
        self.number(u64::from(entry.mode));
        self.number(u64::from(entry.uid));
        self.number(u64::from(entry.gid));
        self.signed(entry.mtime.secs);
        self.number(u64::from(entry.mtime.nanos));
        self.number(entry.xattrs.len() as u64);
        for (name, value) in &entry.xattrs {
            self.bytes(name);
            self.bytes(value);
        }
        match &entry.kind {
            Kind::Directory => self.number(kind::DIRECTORY),
            Kind::File { size, digest, chunks } => {
                self.number(kind::FILE);
                self.number(*size);
                self.digest(*digest);
                self.number(u64::from(chunks.start));
                self.number(u64::from(chunks.end));
            }
            Kind::Symlink(target) => {
                self.number(kind::SYMLINK);
                self.bytes(target);
            }
            Kind::Hardlink(target) => {
                self.number(kind::HARDLINK);
                self.bytes(target);
            }
            Kind::Character { major, minor } => self.device(kind::CHARACTER, *major, *minor),
            Kind::Block { major, minor } => self.device(kind::BLOCK, *major, *minor),
            Kind::Fifo => self.number(kind::FIFO),
        }
    }

    fn device(&mut self, kind: u64, major: u32, minor: u32) {
        self.number(kind);
        self.number(u64::from(major));
        self.number(u64::from(minor));
    }

    /// Writes a chunk; `(end, group)` of the one before, where the next one usually begins.
    fn chunk(&mut self, chunk: &Chunk, (end, group): (u64, u32)) -> (u64, u32) {
        self.distance(chunk.file_offset, end);
        self.number(chunk.length);
        self.digest(chunk.digest);
        self.distance(u64::from(chunk.group), u64::from(group));
        self.number(chunk.inner_offset);
        (chunk.file_offset.wrapping_add(chunk.length), chunk.group)
    }

    /// Writes a group; the end of the one before, where the next one usually begins.
    fn group(&mut self, group: &Group, end: u64) -> u64 {
        self.distance(group.offset, end);
        self.number(group.length);
        self.number(group.output_length.map_or(0, |length| length.saturating_add(1)));
        match group.coding {
            Coding::Plain => self.number(coding::PLAIN),
            Coding::Gzip => self.number(coding::GZIP),
            Coding::Zstd => self.number(coding::ZSTD),
            Coding::Deflate { checkpoint } => {
                self.number(coding::DEFLATE);
                self.number(u64::from(checkpoint));
            }
            Coding::Zeros => self.number(coding::ZEROS),
        }
        self.digest(group.digest);
        group.offset.wrapping_add(group.length)
    }
}
