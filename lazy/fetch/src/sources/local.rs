//! Whole blobs that are on this machine already: the content store of a finished pull.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;

use super::{Ask, RangeBody};
use crate::error::SourceError;

/// Name of this source.
pub(super) const LOCAL: &str = "local";

/// Bytes read at once.
const READ_BYTES: u64 = 1024 * 1024;

/// Part of a local blob.
#[derive(Debug)]
struct LocalBody {
    file: File,
    path: PathBuf,
    start: u64,
    position: u64,
    end: u64,
}

/// Opens the asked bytes in `directory/sha256/HEX`; `None` if the blob is not there, or not as long as it should be.
pub(super) fn open(directory: &Path, ask: &Ask<'_>) -> Option<Box<dyn RangeBody>> {
    if ask.avoid.iter().any(|name| name == LOCAL) {
        return None;
    }
    let path = directory.join("sha256").join(ask.blob.digest.hex());
    let file = File::open(&path).ok()?;
    let found = file.metadata().ok()?;
    if !found.is_file() || found.len() != ask.blob.bytes {
        return None;
    }
    let (start, end) = (ask.range.start, ask.range.end);
    Some(Box::new(LocalBody { file, path, start, position: start, end }))
}

impl RangeBody for LocalBody {
    fn start(&self) -> u64 {
        self.start
    }

    fn next(&mut self, _: Instant) -> Result<Option<Bytes>, SourceError> {
        let count = (self.end - self.position).min(READ_BYTES);
        if count == 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; count as usize];
        self.file
            .read_exact_at(&mut bytes, self.position)
            .map_err(|source: io::Error| SourceError::Local { path: self.path.clone(), source })?;
        self.position += count;
        Ok(Some(bytes.into()))
    }

    fn source(&self) -> &str {
        LOCAL
    }

    fn host(&self) -> &str {
        LOCAL
    }

    fn is_local(&self) -> bool {
        true
    }
}
