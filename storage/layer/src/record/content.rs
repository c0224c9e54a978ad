//! The digests in a record.

use std::io::{self, Read};

use super::Hash;
use crate::escape::is_overlays_own;
use crate::tar::Xattrs;

/// Most bytes of holes in a file whose content is hashed: 1 GiB, half a second of hashing zeros.
const HOLES_MAX: u64 = 1 << 30;

/// The content of one file as it is written.
///
/// Most files arrive in one piece. Hashed at once, the chunks of one go through the processor's vectors side by side,
/// which is twice as fast for files of a few kilobytes as feeding them to a hasher.
#[derive(Debug)]
pub(crate) struct Content {
    hasher: blake3::Hasher,
    /// Of a file that came in one piece.
    whole: Option<Hash>,
    /// Length of the file.
    size: u64,
    holes: u64,
}

impl Content {
    pub(crate) fn new() -> Self {
        Self { hasher: blake3::Hasher::new(), whole: None, size: 0, holes: 0 }
    }

    /// Starts with a file of `size` bytes, holes included.
    pub(crate) fn start(&mut self, size: u64) {
        if self.hasher.count() > 0 {
            self.hasher.reset();
        }
        (self.whole, self.size, self.holes) = (None, size, 0);
    }

    pub(crate) fn data(&mut self, bytes: &[u8]) {
        if bytes.len() as u64 == self.size {
            self.whole = Some(blake3::hash(bytes).into());
        } else {
            self.hasher.update(bytes);
        }
    }

    pub(crate) fn hole(&mut self, bytes: u64) {
        self.holes = self.holes.saturating_add(bytes);
        if self.holes <= HOLES_MAX {
            let zeros = [0; 16 * 1024];
            let mut left = bytes;
            while left > 0 {
                let take = left.min(zeros.len() as u64);
                self.hasher.update(&zeros[..usize::try_from(take).expect("within the buffer")]);
                left -= take;
            }
        }
    }

    /// `None` if the holes are too large to be worth it.
    pub(crate) fn digest(&self) -> Option<Hash> {
        let digest = || self.whole.unwrap_or_else(|| self.hasher.finalize().into());
        (self.holes <= HOLES_MAX).then(digest)
    }

    /// Reads a file to its end.
    pub(crate) fn of(mut file: impl Read, buffer: &mut [u8]) -> io::Result<Hash> {
        let mut hasher = blake3::Hasher::new();
        loop {
            match file.read(buffer) {
                Ok(0) => return Ok(hasher.finalize().into()),
                Ok(read) => {
                    hasher.update(&buffer[..read]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// One digest for the extended attributes that are the layer's: overlayfs's own and labels of the machine excepted.
/// `None` if there are none. They have to be sorted by name.
pub(crate) fn xattr_digest(xattrs: &Xattrs) -> Option<Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut any = false;
    for (name, value) in
        xattrs.iter().filter(|(name, _)| !is_overlays_own(name) && !crate::escape::is_a_label(name))
    {
        for part in [name, value] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        any = true;
    }
    any.then(|| hasher.finalize().into())
}
