//! Why a layer was not unpacked.

use std::fmt;
use std::io;
use std::path::PathBuf;

use storage_model::Compression;
use storage_sys::tree::PathRefused;

use crate::tar::TarError;

/// Why a layer was not unpacked. The target holds what was written before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The reader of the compressed bytes failed; its own error, unchanged.
    #[error("reading the layer failed: {0}")]
    Source(#[source] io::Error),
    /// The bytes are not what the media type says: corrupt or cut off.
    #[error(
        "the layer is not valid {}: {source}, after {uncompressed_bytes} uncompressed bytes; \
         its builder or a copy on the way damaged it, pull it from elsewhere or build it again",
        format_name(*.compression)
    )]
    Decompress {
        /// What the media type says.
        compression: Compression,
        /// Bytes that came out before.
        uncompressed_bytes: u64,
        /// The decoder's word.
        source: io::Error,
    },
    /// More bytes than [`crate::Limits::uncompressed_bytes_max`].
    #[error(
        "the layer holds more than {limit_bytes} bytes uncompressed, the limit set for it; \
         free space or raise the limit if you trust the image"
    )]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// Expands more than [`crate::Limits::ratio_max`] times: a decompression bomb.
    #[error(
        "{compressed_bytes} bytes of the layer expand to over {uncompressed_bytes}, more than {ratio_max} times; \
         that is what a decompression bomb looks like, raise the ratio limit if you trust the image"
    )]
    Bomb {
        /// Bytes read.
        compressed_bytes: u64,
        /// Bytes that came out of these.
        uncompressed_bytes: u64,
        /// The limit.
        ratio_max: u64,
    },
    /// More entries than [`crate::Limits::entries_max`].
    #[error("the layer has more than {limit} entries, the limit set for it")]
    TooManyEntries {
        /// The limit.
        limit: u64,
    },
    /// The tar cannot be read, or could be read in two ways.
    #[error(
        "the layer's tar is refused: {0}; the image has to be built again by a tool that writes correct tars"
    )]
    Tar(#[source] TarError),
    /// An entry that must not or cannot be made.
    #[error("entry {name} of the layer is refused: {reason}")]
    Entry {
        /// The entry.
        name: EntryName,
        /// Why.
        #[source]
        reason: EntryRefused,
    },
    /// The file system refused an entry.
    #[error("entry {name} of the layer: could not {action}: {source}{}", advice(.source))]
    Write {
        /// The entry.
        name: EntryName,
        /// What was tried, as a verb with its object.
        action: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
    /// The directory to unpack into cannot be used.
    #[error("cannot unpack into {path}: {source}{}", advice(.source))]
    Target {
        /// The directory.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// The record of the tree cannot be written.
    #[error("cannot write the record {path} of the unpacked layer: {source}{}", advice(.source))]
    Record {
        /// Its file.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// No thread could be started.
    #[error("cannot start a thread to unpack the layer: {0}; the machine or its limits allow no more")]
    Thread(#[source] io::Error),
}

/// Why one entry was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryRefused {
    /// Its name.
    #[error("its name cannot be used, {0}")]
    Name(#[source] PathRefused),
    /// The name of what it links to.
    #[error("the name it is a hard link to cannot be used, {0}")]
    LinkName(#[source] PathRefused),
    /// Something other than a directory under the name of the root.
    #[error("it names the root of the image, which can only be a directory")]
    Root,
    /// `.wh.`, `.wh..` and `.wh...`: whiteouts of nothing, of a directory itself, of its parent.
    #[error("a whiteout has to name an entry, this one names nothing, \".\" or \"..\"")]
    Whiteout,
    /// Character device 0:0, which an overlay would read as a whiteout.
    #[error("a character device 0:0 means \"deleted\" to overlayfs and cannot be part of an image")]
    WhiteoutDevice,
    /// A device number the kernel would cut short.
    #[error("device number {major}:{minor} is beyond the kernel's range (4095:1048575)")]
    Device {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A hard link to what the layer does not have.
    #[error("it is a hard link to {target}, which this layer does not contain before it")]
    LinkTarget {
        /// What it links to.
        target: EntryName,
    },
    /// A hard link to a directory.
    #[error("it is a hard link to the directory {target}, which no file system allows")]
    LinkToDirectory {
        /// What it links to.
        target: EntryName,
    },
    /// An empty target of a link, or one of more than 4095 bytes.
    #[error("the target of the symbolic link is empty, longer than 4095 bytes or contains a NUL byte")]
    SymlinkTarget,
    /// A file lies on the way.
    #[error("part of its path is a file and not a directory")]
    NotADirectory,
    /// A file capability bound to the root user of some user namespace.
    #[error("its file capability is bound to a user namespace (version 3), which no image may assume")]
    NamespacedCapability,
    /// An extended attribute the kernel has no room for.
    #[error("extended attribute {name} is too long: names take 255 bytes, values 65536")]
    Xattr {
        /// The attribute.
        name: EntryName,
    },
}

/// Name of an entry for people: escaped and cut to 200 characters.
#[derive(Clone, PartialEq, Eq)]
pub struct EntryName(pub Vec<u8>);

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = &self.0[..self.0.len().min(200)];
        let dots = if cut.len() < self.0.len() { "..." } else { "" };
        match std::str::from_utf8(cut) {
            Ok(text) => write!(f, "{text:?}{dots}"),
            Err(_) => write!(f, "\"{}\"{dots}", cut.escape_ascii()),
        }
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn format_name(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "tar",
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
    }
}

/// What to do about a refusal of the kernel.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => "; free some space and pull again",
        io::ErrorKind::QuotaExceeded => "; raise the quota or free some of it and pull again",
        io::ErrorKind::PermissionDenied => {
            "; unpacking needs root, or a user namespace that has the owner mapped"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; choose a root directory that can be written",
        _ => "",
    }
}
