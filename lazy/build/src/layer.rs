//! [`write_layer`]: one tar as a layer that can be read lazily.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;

use lazy_index::{estargz, zstd_chunked};
use storage_model::{Compression, DiffId, Digest};

use crate::encode::{Codec, Output};
use crate::toc::containers::{self, CodedTarSplit, Places};
use crate::toc::stargz;
use crate::{BuildError, order, plan, scan, tar_split};

/// What a layer is made into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// gzip, read lazily by stargz-snapshotter and by ordinary readers as a whole.
    Estargz,
    /// Zstandard, read in parts by one of two families and by ordinary readers as a whole.
    ZstdChunked(Dialect),
}

/// Whose zstd:chunked: neither family reads the other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// podman, buildah, bootc (containers/storage). The tar stays byte for byte what it was, and so do diff IDs.
    Containers,
    /// stargz-snapshotter.
    Stargz,
}

impl Format {
    /// The compression of its blobs, for their media types.
    pub fn compression(self) -> Compression {
        match self {
            Self::Estargz => Compression::Gzip,
            Self::ZstdChunked(_) => Compression::Zstd,
        }
    }

    /// The tar inside is the one that was converted.
    pub fn keeps_diff_id(self) -> bool {
        self == Self::ZstdChunked(Dialect::Containers)
    }

    fn codec(self, level: Option<i32>) -> Result<Codec, BuildError> {
        // eStargz: what stargz's tools take unasked. zstd: close to what containers' tools take, at half the time.
        let (format, range, default) = match self {
            Self::Estargz => ("gzip", 0..=9, 9),
            Self::ZstdChunked(_) => ("zstd", 1..=22, 7),
        };
        let level = level.unwrap_or(default);
        if !range.contains(&level) {
            return Err(BuildError::Level { format, level, least: *range.start(), most: *range.end() });
        }
        Ok(match self {
            Self::Estargz => Codec::Gzip(u32::try_from(level).expect("0 to 9")),
            Self::ZstdChunked(_) => Codec::Zstd(level),
        })
    }
}

/// How a layer is written.
#[derive(Debug, Clone)]
pub struct LayerOptions {
    /// Into what.
    pub format: Format,
    /// Paths (clean, relative) of what is read first, in that order; those that the layer does not have do not matter.
    /// Dialect C keeps the order of its tar and pays no heed to it.
    pub prioritized: Vec<Vec<u8>>,
    /// Longest piece of a file that is compressed and verified alone, in bytes, at least 4 KiB. Dialect C cuts by content.
    pub chunk_bytes: u64,
    /// Level of the compression; `None`: 9 for gzip, 7 for zstd.
    pub level: Option<i32>,
    /// Threads that compress, at least 1; the result does not depend on it.
    pub threads: usize,
}

/// Longest piece of a file unless asked otherwise: 4 MiB, as stargz's tools have it.
const CHUNK_BYTES: u64 = 4 << 20;
/// A table of contents needs some 250 bytes a piece: shorter pieces would make it a large part of the layer.
const CHUNK_BYTES_MIN: u64 = 4096;

impl LayerOptions {
    /// The usual options of `format`, on one thread a processor.
    pub fn new(format: Format) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { format, prioritized: Vec::new(), chunk_bytes: CHUNK_BYTES, level: None, threads }
    }
}

/// A layer that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Digest of the blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Digest of the tar in it: for the config.
    pub diff_id: DiffId,
    /// Size of that tar in bytes.
    pub uncompressed_bytes: u64,
    /// Digest of the uncompressed table of contents.
    pub toc_digest: Digest,
    /// What the layer's descriptor has to say for readers to find and trust the table of contents.
    pub annotations: BTreeMap<String, String>,
    /// Digest of the tar that was read, for the caller to compare with the diff ID it knows.
    pub source_diff_id: DiffId,
}

/// Writes the uncompressed tar in `tar` to `sink` as `options` say.
///
/// The tar is read twice, and must not change meanwhile. Memory: some `chunk_bytes` a thread, and 300 bytes an entry.
///
/// # Errors
/// [`BuildError`]; `is_inexpressible` tells layers that are better left as they are, and nothing was written then.
pub fn write_layer(tar: &File, sink: impl Write, options: &LayerOptions) -> Result<Written, BuildError> {
    let codec = options.format.codec(options.level)?;
    let keeps = options.format.keeps_diff_id();
    let scanned = scan::scan(tar, keeps)?;
    let output = Output::new(sink, codec);
    let mut written = if keeps {
        write_containers(tar, &scanned, output, codec, options.threads)?
    } else {
        write_stargz(tar, &scanned, output, codec, options)?
    };
    if !keeps {
        // Dialect C's readers take the size from the tar-split.
        let bytes = written.uncompressed_bytes.to_string();
        written.annotations.insert(estargz::UNCOMPRESSED_SIZE.to_owned(), bytes);
    }
    Ok(written)
}

fn write_stargz<W: Write>(
    tar: &File,
    scanned: &scan::Scanned,
    mut output: Output<W>,
    codec: Codec,
    options: &LayerOptions,
) -> Result<Written, BuildError> {
    let order = order::order(&scanned.items, &options.prioritized)?;
    let plan = plan::stargz(&scanned.items, &order, options.chunk_bytes.max(CHUNK_BYTES_MIN))?;
    // Before anything is written: whether every entry can be expressed.
    stargz::json(&plan, &vec![crate::encode::Placed { offset: 0, piece: None }; plan.members.len()])?;
    let placed = output.members(tar, &plan.members, options.threads)?;
    let json = stargz::json(&plan, &placed)?;
    let toc_digest = Digest::of(&json);
    let mut annotations = BTreeMap::from([(estargz::TOC_DIGEST.to_owned(), toc_digest.to_string())]);
    if options.format == Format::Estargz {
        stargz::finish_gzip(&mut output, &json)?;
    } else {
        let stargz::Position { offset, coded } = stargz::finish_zstd(&mut output, codec, &json)?;
        let position = format!("{offset}:{}:{}:1", coded.len(), json.len());
        annotations.insert(zstd_chunked::STARGZ_CHECKSUM.to_owned(), Digest::of(&coded).to_string());
        annotations.insert(zstd_chunked::STARGZ_POSITION.to_owned(), position);
    }
    written(output, toc_digest, annotations, scanned.digest)
}

fn write_containers<W: Write>(
    tar: &File,
    scanned: &scan::Scanned,
    mut output: Output<W>,
    codec: Codec,
    threads: usize,
) -> Result<Written, BuildError> {
    let plan = plan::containers(scanned);
    let nowhere = vec![crate::encode::Placed { offset: 0, piece: None }; plan.members.len()];
    containers::json(&plan, &Places { members: &nowhere, end: 0 }, None)?;
    let split = match tar_split::tar_split(tar, scanned)? {
        Some(lines) => {
            let coded = codec.compress(&lines).map_err(BuildError::Sink)?;
            Some(CodedTarSplit { coded, bytes: lines.len() as u64 })
        }
        None => None,
    };
    let placed = output.members(tar, &plan.members, threads)?;
    let places = Places { members: &placed, end: output.offset() };
    let json = containers::json(&plan, &places, split.as_ref().map(|split| Digest::of(&split.coded)))?;
    let positions = containers::finish(&mut output, codec, &json, split.as_ref())?;
    // The names were those of stargz at first (containers/storage 1.43 has them); podman of that age pulls in parts by them.
    let mut annotations = BTreeMap::from([
        (zstd_chunked::CONTAINERS_CHECKSUM.to_owned(), positions.checksum.to_string()),
        (zstd_chunked::STARGZ_CHECKSUM.to_owned(), positions.checksum.to_string()),
        (zstd_chunked::CONTAINERS_POSITION.to_owned(), positions.toc.clone()),
        (zstd_chunked::STARGZ_POSITION.to_owned(), positions.toc),
    ]);
    if let Some(position) = positions.tar_split {
        annotations.insert(zstd_chunked::CONTAINERS_TAR_SPLIT.to_owned(), position);
    }
    written(output, Digest::of(&json), annotations, scanned.digest)
}

fn written<W: Write>(
    output: Output<W>,
    toc_digest: Digest,
    annotations: BTreeMap<String, String>,
    source: Digest,
) -> Result<Written, BuildError> {
    let finished = output.finish()?;
    Ok(Written {
        digest: finished.digest,
        size: finished.size,
        diff_id: DiffId(finished.tar_digest),
        uncompressed_bytes: finished.tar_bytes,
        toc_digest,
        annotations,
        source_diff_id: DiffId(source),
    })
}
