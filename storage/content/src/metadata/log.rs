//! Finds holes in a write-ahead log: zeros where a line should begin, with more behind them.
//!
//! RocksDB takes zeros for the end of a log, since it reserves room ahead; a page that the disk lost would so end the log
//! early, and what was promised behind it would be forgotten in silence. Here only the frames are looked at (RocksDB's
//! `db/log_format.h`: blocks of 32 KiB, in each of which lines follow each other: checksum, length, kind, bytes); that the
//! bytes are right is for RocksDB to say.

use std::path::Path;

use crate::StoreError;
use crate::error::IoContext as _;

/// Size of a block, in bytes. What is left of one that cannot hold a header is filled with zeros.
const BLOCK_BYTES: usize = 32 * 1024;
/// Size of a line's header, in bytes: checksum (4), length (2), kind (1).
const HEADER_BYTES: usize = 7;

/// Whether some log in `directory` has a hole.
pub(super) fn has_hole(directory: &Path) -> Result<bool, StoreError> {
    for entry in directory.read_dir().doing("list", directory)? {
        let path = entry.doing("list", directory)?.path();
        if path.extension().is_some_and(|extension| extension == "log")
            && is_holed(&std::fs::read(&path).doing("read", &path)?)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_holed(log: &[u8]) -> bool {
    let mut at = 0;
    while at + HEADER_BYTES <= log.len() {
        let left = BLOCK_BYTES - at % BLOCK_BYTES;
        if left < HEADER_BYTES {
            at += left;
            continue;
        }
        let length = usize::from(u16::from_le_bytes([log[at + 4], log[at + 5]]));
        if length == 0 && log[at + 6] == 0 {
            return log[at..].iter().any(|byte| *byte != 0);
        }
        if HEADER_BYTES + length > left {
            return false; // no frame: RocksDB says so too
        }
        at += HEADER_BYTES + length;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(length: u8) -> Vec<u8> {
        let mut line = vec![9, 9, 9, 9, length, 0, 1];
        line.extend(vec![7; usize::from(length)]);
        line
    }

    #[test]
    fn zeros_are_a_hole_only_with_something_behind_them() {
        let log = line(200).repeat(400);
        assert!(!is_holed(&[]) && !is_holed(&log[..log.len() - 50]));
        assert!(!is_holed(&[&log[..207 * 5], &[0; 5000]].concat()), "room that was reserved");
        for start in [0, 207, 207 * 100] {
            let mut holed = log.clone();
            holed[start..start + 4096].fill(0);
            assert!(is_holed(&holed), "at {start}");
        }
    }
}
