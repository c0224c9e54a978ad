//! [`index_layer`]: where everything lies in a layer that was not made to be read lazily, found while it streams by.
//!
//! ```text
//! compressed bytes -> Stream: decompress, hash both sides, mark where decoding can begin -> tar reader -> Toc
//! ```
//! A *mark* begins a group: a gzip member, a block of a deflate stream with the 32 KiB before it, a zstd frame, or any byte of a
//! plain tar. Files are cut into chunks at marks, each with its own digest. What the table of contents says was therefore
//! seen in a stream whose blob digest and diff ID come with it: once the caller has compared these, the table is as
//! trustworthy as the layer.
//!
//! Not here: keeping the table (`runtime/engine/src/lazy`), zTOCs of it ([`crate::soci`]).

mod indexer;
mod stream;
mod table;

use std::io::Read;

use lazy_index::Toc;
use storage_layer::Limits;
use storage_layer::tar::Reader;
use storage_model::{Compression, DiffId, Digest};

use crate::BuildError;

pub use indexer::Indexer;
pub(crate) use stream::{Mark, Marking, Start, Stream};

/// How a layer is indexed.
#[derive(Debug, Clone, Copy)]
pub struct IndexOptions {
    /// Least distance, in bytes of the tar, between two places at which a deflate stream can be entered.
    ///
    /// 2 MiB: what one fault has to fetch and inflate is then some 700 kB (0.1 s at 50 Mbit/s, 10 ms of one core), and the
    /// windows, 32 KiB each, are 1.6 % of the tar. SOCI has 4 MiB.
    pub span_bytes: u64,
    /// Least distance between two marks that cost nothing: members, frames, places in a plain tar.
    ///
    /// 256 KiB: below it, a request costs more in round trips than in bytes.
    pub group_bytes: u64,
    /// Most bytes that one group may decode to; a zstd frame beyond it makes the layer one that cannot be entered.
    ///
    /// 64 MiB: decoding that for one file takes a tenth of a second, and each reader may hold as much.
    pub group_bytes_max: u64,
    /// Longest chunk, in bytes: what is verified and kept at once.
    pub chunk_bytes_max: u64,
    /// Limits on the tar, as for unpacking.
    pub limits: Limits,
}

impl Default for IndexOptions {
    fn default() -> Self {
        Self {
            span_bytes: 2 << 20,
            group_bytes: 256 << 10,
            group_bytes_max: 64 << 20,
            chunk_bytes_max: 4 << 20,
            limits: Limits::default(),
        }
    }
}

/// A layer that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Indexed {
    /// What is in it and where.
    pub toc: Toc,
    /// Digest of the compressed bytes: to be compared with the descriptor's.
    pub digest: Digest,
    /// How many these were.
    pub blob_bytes: u64,
    /// Digest of the tar: to be compared with the config's diff ID.
    pub diff_id: DiffId,
    /// Bytes of the tar.
    pub uncompressed_bytes: u64,
}

/// Reads the layer in `source`, compressed as `compression`, to its end. Nothing is written; memory is some 200 bytes an entry
/// and 32 KiB a span.
///
/// # Errors
/// [`BuildError::Source`], [`BuildError::Stream`], [`BuildError::Tar`], [`BuildError::Limit`]; and
/// [`BuildError::NotSeekable`] for a zstd layer of too large frames, which is found out before the layer ends.
pub fn index_layer(
    source: impl Read,
    compression: Compression,
    options: &IndexOptions,
) -> Result<Indexed, BuildError> {
    let marking = Marking {
        span_bytes: options.span_bytes,
        group_bytes: options.group_bytes,
        group_bytes_max: options.group_bytes_max,
        members: true,
    };
    let mut stream = Stream::new(source, compression, marking, options.limits)?;
    let marks = stream.marks();
    let mut reader = Reader::new(&mut stream, &options.limits);
    let table = table::read(&mut reader, &marks, options);
    let table = table.and_then(|table| Ok((table, reader.drain()?)));
    // The stream's own word is the cause of what the tar reader says.
    let table = match (table, stream.failed()) {
        (_, Some(error)) => return Err(error),
        (Err(error), None) => return Err(error),
        (Ok((table, _)), None) => table,
    };
    let ended = stream.finish();
    let marks = marks.take();
    Ok(Indexed {
        toc: table.finish(marks, ended.blob_bytes, ended.tar_bytes),
        digest: ended.digest,
        blob_bytes: ended.blob_bytes,
        diff_id: DiffId(ended.tar_digest),
        uncompressed_bytes: ended.tar_bytes,
    })
}
