//! How much a layer may ask for, each number with its reason.

/// Limits on one layer. The defaults let every layer pass that a registry's users are known to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes after decompression.
    ///
    /// 256 GiB: the largest layers in use hold language models of some 100 GB. The engine lowers it to the space left.
    pub uncompressed_bytes_max: u64,
    /// Most bytes after decompression for one byte before, once `ratio_free_bytes` have passed.
    ///
    /// Layers of programs and text stay under 20; a file of zeros reaches 1030 with gzip, more with zstd.
    pub ratio_max: u64,
    /// Bytes after decompression up to which no ratio is too high: 1 GiB, a preallocated database file in a layer.
    pub ratio_free_bytes: u64,
    /// Most entries.
    ///
    /// 10 million: ten times the largest images seen; each costs the target a directory entry.
    pub entries_max: u64,
    /// Most bytes of the extended headers of one entry: 1 MiB, Go's `archive/tar` has the same.
    pub extended_header_bytes_max: u64,
    /// Most pieces of one sparse file: 1 million, 16 MiB of memory.
    pub sparse_pieces_max: usize,
    /// Most bytes of extended attributes of one entry, names and values: 1 MiB; file systems take 64 KiB a value.
    pub xattr_bytes_max: usize,
}

impl Limits {
    /// Largest window a zstd frame may ask for, as a power of two: 128 MiB, as `zstd --ultra -22` without `--long`,
    /// and what `zstd -d` accepts unasked.
    pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            uncompressed_bytes_max: 256 << 30,
            ratio_max: 500,
            ratio_free_bytes: 1 << 30,
            entries_max: 10_000_000,
            extended_header_bytes_max: 1 << 20,
            sparse_pieces_max: 1_000_000,
            xattr_bytes_max: 1 << 20,
        }
    }
}
