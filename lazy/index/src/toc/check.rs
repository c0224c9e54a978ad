//! [`Toc::validate`]: the border between what a registry says and what is used (rows L1 to L4 and L12).

use std::collections::HashSet;

use crate::error::shown;
use crate::image::tree::Tree;
use crate::{Chunk, Coding, Entry, Group, IndexError, Kind, Limits, Toc};

impl Toc {
    /// Checks that this table describes a layer whose blob has `blob_bytes` bytes, within `limits`:
    ///
    /// - every path is clean, every number in its range, and unpacking the entries in order would succeed;
    /// - the chunks of each file are exactly its content, without gap or overlap, and no two files share one;
    /// - no two chunks overlap in what their group decodes to, and none reaches past its end;
    /// - every group lies inside the blob, in order, and no two overlap but by the one byte deflate may be cut in;
    /// - every byte has a digest: its chunk's or its group's.
    ///
    /// # Errors
    /// The first rule broken, as [`IndexError::Entry`], [`IndexError::Chunk`], [`IndexError::Group`],
    /// [`IndexError::Checkpoint`] or [`IndexError::Limit`].
    pub fn validate(&self, blob_bytes: u64, limits: &Limits) -> Result<(), IndexError> {
        at_most("entries of the layer", self.entries.len() as u64, limits.entries_max as u64)?;
        at_most("chunks of the layer", self.chunks.len() as u64, limits.chunks_max as u64)?;
        at_most("groups of the layer", self.groups.len() as u64, limits.chunks_max as u64)?;
        at_most("checkpoints of the layer", self.checkpoints.len() as u64, limits.chunks_max as u64)?;
        at_most("bytes to prefetch", self.prefetch_bytes.unwrap_or(0), blob_bytes)?;
        self.checkpoints_fit(blob_bytes)?;
        self.groups_fit(blob_bytes, limits)?;
        self.entries_fit(limits)?;
        self.chunks_fit(limits)?;
        Tree::of_layer(0, self, limits).map(drop)
    }

    fn checkpoints_fit(&self, blob_bytes: u64) -> Result<(), IndexError> {
        let mut before = None;
        for (number, checkpoint) in self.checkpoints.iter().enumerate() {
            let refused = |reason| Err(IndexError::Checkpoint { number, reason });
            if checkpoint.input_offset > blob_bytes {
                return refused("it lies behind the end of the blob");
            }
            if checkpoint.bits > 7 || (checkpoint.bits > 0 && checkpoint.input_offset == 0) {
                return refused("it has bits of a byte that is not there");
            }
            if checkpoint.window.len() > Limits::WINDOW_BYTES_MAX {
                return refused("its window is longer than 32 KiB");
            }
            let place = (checkpoint.output_offset, checkpoint.input_offset);
            if before.is_some_and(|(output, input)| place.0 <= output || place.1 < input) {
                return refused("it does not lie behind the one before");
            }
            before = Some(place);
        }
        Ok(())
    }

    fn groups_fit(&self, blob_bytes: u64, limits: &Limits) -> Result<(), IndexError> {
        let mut end = 0;
        for (number, group) in self.groups.iter().enumerate() {
            let refused = |reason| Err(IndexError::Group { number, reason });
            let Some(own_end) = group.offset.checked_add(group.length).filter(|end| *end <= blob_bytes)
            else {
                return refused("it does not lie inside the blob");
            };
            // What does not compress grows by less than an eighth in every coding.
            if group.length > limits.chunk_bytes_max.saturating_add(limits.chunk_bytes_max / 8) {
                return refused("it is longer than the limit");
            }
            if group.output_length.is_some_and(|length| length > limits.chunk_bytes_max) {
                return refused("it decodes to more than the limit");
            }
            let shared = match group.coding {
                Coding::Zeros if group.length == 0 => continue,
                Coding::Zeros => return refused("it says that it is all zeros and has bytes all the same"),
                Coding::Deflate { checkpoint } if checkpoint as usize >= self.checkpoints.len() => {
                    return refused("its checkpoint is not in the table");
                }
                Coding::Deflate { .. } => 1,
                Coding::Plain | Coding::Gzip | Coding::Zstd => 0,
            };
            if group.length == 0 {
                return refused("it is empty");
            }
            if group.coding == Coding::Plain
                && group.output_length.is_some_and(|length| length != group.length)
            {
                return refused("it is not coded and yet decodes to another length");
            }
            if group.offset.saturating_add(shared) < end {
                return refused("it overlaps the one before");
            }
            end = own_end;
        }
        Ok(())
    }

    fn entries_fit(&self, limits: &Limits) -> Result<(), IndexError> {
        let (mut bytes, mut chunks) = (0u64, 0u32);
        for entry in &self.entries {
            let refused = |reason| IndexError::Entry { path: shown(&entry.path), reason };
            attributes_fit(entry, limits).map_err(refused)?;
            match &entry.kind {
                Kind::Hardlink(target) => path_fits(target).map_err(refused)?,
                Kind::Symlink(target) if target.contains(&0) => {
                    return Err(refused("its target contains a NUL byte"));
                }
                Kind::File { size, chunks: own, .. } => {
                    if own.start < chunks && own.start != own.end {
                        return Err(refused("its chunks are another file's, or not in order"));
                    }
                    self.content_fits(*size, own).map_err(refused)?;
                    chunks = chunks.max(own.end);
                    bytes = bytes.saturating_add(*size);
                }
                _ => {}
            }
        }
        at_most("bytes of all files of the layer", bytes, limits.layer_bytes_max)
    }

    fn content_fits(&self, size: u64, own: &std::ops::Range<u32>) -> Result<(), &'static str> {
        let chunks =
            self.chunks.get(own.start as usize..own.end as usize).ok_or("its chunks are not in the table")?;
        let mut at = 0u64;
        for chunk in chunks {
            if chunk.file_offset != at {
                return Err("its chunks overlap or leave a gap");
            }
            at = at.checked_add(chunk.length).ok_or("its chunks are longer than 2^64 bytes")?;
        }
        if at != size {
            return Err("its chunks are not as long as the file");
        }
        Ok(())
    }

    fn chunks_fit(&self, limits: &Limits) -> Result<(), IndexError> {
        for (number, chunk) in self.chunks.iter().enumerate() {
            let refused = |reason| IndexError::Chunk { number, reason };
            let group =
                self.groups.get(chunk.group as usize).ok_or(refused("its group is not in the table"))?;
            chunk_fits(chunk, group, limits).map_err(refused)?;
        }
        let mut order: Vec<usize> = (0..self.chunks.len()).collect();
        order.sort_unstable_by_key(|number| (self.chunks[*number].group, self.chunks[*number].inner_offset));
        for pair in order.windows(2) {
            let (one, next) = (&self.chunks[pair[0]], &self.chunks[pair[1]]);
            let zeros = self.groups[one.group as usize].coding == Coding::Zeros;
            if one.group == next.group && !zeros && one.inner_offset + one.length > next.inner_offset {
                let reason = "its bytes are another chunk's as well";
                return Err(IndexError::Chunk { number: pair[1], reason });
            }
        }
        Ok(())
    }
}

fn at_most(what: &'static str, actual: u64, limit: u64) -> Result<(), IndexError> {
    if actual > limit { Err(IndexError::Limit { what, actual, limit }) } else { Ok(()) }
}

fn chunk_fits(chunk: &Chunk, group: &Group, limits: &Limits) -> Result<(), &'static str> {
    if chunk.length == 0 {
        return Err("it is empty");
    }
    let end = chunk.inner_offset.checked_add(chunk.length).ok_or("it ends behind 2^64")?;
    if end > limits.chunk_bytes_max {
        return Err("it is longer than the limit, or its group decodes to more");
    }
    if group.coding == Coding::Zeros {
        return if chunk.inner_offset == 0 { Ok(()) } else { Err("it is all zeros and yet has an offset") };
    }
    if group.output_length.is_some_and(|length| end > length) {
        return Err("it reaches past the end of its group");
    }
    if group.coding == Coding::Plain && end > group.length {
        return Err("it reaches past the end of its group");
    }
    if chunk.digest.is_none() && group.digest.is_none() {
        return Err("neither it nor its group has a digest");
    }
    Ok(())
}

fn path_fits(path: &[u8]) -> Result<(), &'static str> {
    if path.is_empty() {
        return Ok(());
    }
    if path.len() > Limits::PATH_BYTES_MAX {
        return Err("a path is longer than 4095 bytes");
    }
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." | b".." => return Err("its path is not clean"),
            _ if name.len() > Limits::NAME_BYTES_MAX => {
                return Err("one of its components is longer than 255 bytes");
            }
            _ if name.contains(&0) => return Err("its path contains a NUL byte"),
            _ => {}
        }
    }
    Ok(())
}

fn attributes_fit(entry: &Entry, limits: &Limits) -> Result<(), &'static str> {
    path_fits(&entry.path)?;
    if entry.mode > 0o7777 {
        return Err("its mode is more than permissions");
    }
    if entry.uid == u32::MAX || entry.gid == u32::MAX {
        return Err("its owner is 2^32 - 1, which means nobody");
    }
    if entry.mtime.nanos >= 1_000_000_000 {
        return Err("its time has a second too many in the nanoseconds");
    }
    let bytes: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > limits.xattr_bytes_max {
        return Err("its extended attributes are larger than the limit");
    }
    let mut names = HashSet::new();
    for (name, _) in &entry.xattrs {
        if name.is_empty() || name.contains(&0) || !names.insert(name) {
            return Err("the name of an extended attribute is empty, contains a NUL byte, or occurs twice");
        }
    }
    Ok(())
}
