//! The content of a disk: pages that clones share until one of them writes.

use std::sync::Arc;

/// Bytes of a page; a file system's block too.
const PAGE: usize = 4096;

type Page = [u8; PAGE];

/// What is on a disk. A clone costs 8 bytes a page, and what is never written costs nothing more.
#[derive(Clone)]
pub(crate) struct Blocks {
    pages: Vec<Option<Arc<Page>>>,
}

impl Blocks {
    /// A disk of zeros; `bytes` is a multiple of 4,096.
    pub(crate) fn new(bytes: usize) -> Self {
        assert_eq!(bytes % PAGE, 0, "a disk is made of whole pages");
        Self { pages: vec![None; bytes / PAGE] }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.pages.len() * PAGE
    }

    /// What is at `offset`; shorter at the end of the disk.
    pub(crate) fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        let length = length.min(self.bytes().saturating_sub(offset));
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let at = offset + bytes.len();
            let (page, start) = (at / PAGE, at % PAGE);
            let count = (PAGE - start).min(length - bytes.len());
            match &self.pages[page] {
                Some(page) => bytes.extend_from_slice(&page[start..start + count]),
                None => bytes.resize(bytes.len() + count, 0),
            }
        }
        bytes
    }

    /// Writes at `offset`, which with the bytes lies on the disk.
    pub(crate) fn write(&mut self, offset: usize, mut bytes: &[u8]) {
        let mut at = offset;
        while !bytes.is_empty() {
            let (page, start) = (at / PAGE, at % PAGE);
            let count = (PAGE - start).min(bytes.len());
            let page = Arc::make_mut(self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE])));
            page[start..start + count].copy_from_slice(&bytes[..count]);
            (at, bytes) = (at + count, &bytes[count..]);
        }
    }

    /// Writes zeros, and forgets pages that are nothing else.
    pub(crate) fn clear(&mut self, offset: usize, length: usize) {
        let mut at = offset;
        let end = (offset + length).min(self.bytes());
        while at < end {
            let count = (PAGE - at % PAGE).min(end - at);
            if count == PAGE {
                self.pages[at / PAGE] = None;
            } else {
                self.write(at, &vec![0; count]);
            }
            at += count;
        }
    }
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let written = self.pages.iter().flatten().count();
        write!(f, "Blocks {{ {written} of {} pages }}", self.pages.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_a_clone_keeps_what_it_had() {
        let mut disk = Blocks::new(4 * PAGE);
        disk.write(4000, &[7; 5000]);
        let before = disk.clone();
        disk.clear(4090, 4110);
        assert_eq!(before.read(3999, 3), [0, 7, 7]);
        assert_eq!(disk.read(4089, 2), [7, 0]);
        assert_eq!(disk.read(8199, 2), [0, 7]);
        assert_eq!(disk.read(8999, 2), [7, 0]);
        assert_eq!(disk.read(4 * PAGE - 1, 100).len(), 1);
    }
}
