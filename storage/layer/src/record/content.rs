//! The digests in a record.

use std::io::{self, Read};

use super::Hash;
use crate::escape::is_overlays_own;
use crate::tar::Xattrs;

/// Most bytes of holes in a file whose content is hashed: 1 GiB, half a second of hashing zeros.
const HOLES_MAX: u64 = 1 << 30;

/// The content of one file as it is written.
#[derive(Debug)]
pub(crate) struct Content {
    hasher: blake3::Hasher,
    holes: u64,
}

impl Content {
    pub(crate) fn new() -> Self {
        Self { hasher: blake3::Hasher::new(), holes: 0 }
    }

    /// The same for the next file.
    pub(crate) fn restart(&mut self) {
        self.hasher.reset();
        self.holes = 0;
    }

    pub(crate) fn data(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
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
        (self.holes <= HOLES_MAX).then(|| self.hasher.finalize().into())
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
