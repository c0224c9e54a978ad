//! How much a table of contents may ask for, each number with its reason.

/// Limits on one layer's table of contents and on the index of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a table of contents as it lies in the blob, compressed: 32 MiB.
    ///
    /// A layer of 100,000 files has 3 to 8 MB. The describer does not fetch more (row L3).
    pub toc_coded_bytes_max: u64,
    /// Most bytes of a table of contents after decompression: 150 MiB, which containers/storage has as well.
    ///
    /// 100,000 files take 50 MB in the indented JSON that stargz's tools write. It is parsed entry by entry, so what it
    /// becomes is bounded by `entries_max` and not by this.
    pub toc_bytes_max: u64,
    /// Most entries of one layer: 2 million, which is twice the largest images seen.
    pub entries_max: usize,
    /// Most chunks of one layer: 8 million, a layer of 512 GB in chunks of 64 KiB.
    pub chunks_max: usize,
    /// Most bytes of one chunk, and of what one group decodes to: 256 MiB. A reader has to hold a group to check it; a
    /// layer with more is pulled whole.
    pub chunk_bytes_max: u64,
    /// Most bytes of all files of one layer: 16 TiB, sparse files included.
    pub layer_bytes_max: u64,
    /// Most bytes of extended attributes of one entry, names and values: 1 MiB, as when unpacking.
    pub xattr_bytes_max: usize,
    /// Most nodes of an image: 8 million, four layers of the largest kind.
    pub nodes_max: usize,
    /// Most layers of an image: 1,000. Overlay takes 500, Docker 127.
    pub layers_max: usize,
}

impl Limits {
    /// Most bytes of one path: `PATH_MAX` of Linux without its NUL.
    pub const PATH_BYTES_MAX: usize = 4095;
    /// Most bytes of one path component, `NAME_MAX` of Linux.
    pub const NAME_BYTES_MAX: usize = 255;
    /// Most bytes of a checkpoint's window: what deflate looks back (RFC 1951).
    pub const WINDOW_BYTES_MAX: usize = 32 * 1024;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            toc_coded_bytes_max: 32 << 20,
            toc_bytes_max: 150 << 20,
            entries_max: 2_000_000,
            chunks_max: 8_000_000,
            chunk_bytes_max: 256 << 20,
            layer_bytes_max: 16 << 40,
            xattr_bytes_max: 1 << 20,
            nodes_max: 8_000_000,
            layers_max: 1_000,
        }
    }
}
