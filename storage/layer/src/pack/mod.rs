//! Packing: from a directory to a compressed layer, in one pass.
//!
//! [`pack_overlay`] reads what an overlay's upper directory changes, [`pack_difference`] compares two trees. Both write
//! entries sorted by path, parents before children, with whiteouts for what is gone; two runs over the same trees give
//! the same bytes. Unpacking the result onto the lower tree gives the upper one (`tests/it/packing.rs`).
//!
//! ```text
//! names, sorted -> same as below? -> nothing
//!                  gone            -> .wh.NAME
//!                  new or changed  -> parents not yet written, then the entry
//! ```
//! What is left out: sockets (no tar holds one), labels that belong to a machine (`security.selinux` and kin), times of
//! the root. Holes of sparse files become zeros. A tree that changes meanwhile gives an error or a layer with some of
//! the change, as with every copy of a tree in use.
//!
//! Not here: mounting what is compared (`runtime/engine`), compression (`compress`).

mod difference;
mod emit;
mod error;
mod overlay;
mod same;
mod stack;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use storage_model::Compression;
use storage_sys::tree::{Timestamp, View};

pub use error::{PackError, Unpackable};

use crate::Packed;
use crate::compress::compressed;
use crate::tar::Writer;
use emit::Emitter;

/// How a layer is packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackOptions {
    /// Compression of the layer.
    pub compression: Compression,
    /// Level of it: gzip 0 to 9 (unasked: 6), zstd 1 to 22 (unasked: 3).
    pub level: Option<i32>,
    /// Latest time an entry may have; what is later gets this time. Whiteouts have it too, or else 1970.
    ///
    /// For builds that give the same image each time (`SOURCE_DATE_EPOCH`).
    pub source_date_epoch: Option<SystemTime>,
    /// The overlay was mounted with `userxattr`: its own attributes are `user.overlay.*`, not `trusted.overlay.*`.
    pub user_xattr: bool,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self { compression: Compression::Gzip, level: None, source_date_epoch: None, user_xattr: false }
    }
}

impl PackOptions {
    fn epoch(&self) -> Option<Timestamp> {
        self.source_date_epoch.map(|at| match at.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => Timestamp {
                seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                nanoseconds: since.subsec_nanos(),
            },
            Err(_) => Timestamp::default(),
        })
    }
}

/// Packs what the overlay upper directory `upper` changes of `lowers`, of which the first is the highest.
///
/// Character devices 0:0 and opaque marks become whiteouts if there is something below to hide; entries that were
/// copied up but equal what is below are left out; overlayfs's own attributes are left out and escaped ones written as
/// the container sees them. The directories may be mounted meanwhile.
///
/// # Errors
/// See [`PackError`]; [`Unpackable::Redirected`] for an upper directory written with `redirect_dir` or `metacopy`. The
/// sink keeps what it got.
pub fn pack_overlay(
    upper: &Path,
    lowers: &[PathBuf],
    sink: impl Write + Send,
    options: &PackOptions,
) -> Result<Packed, PackError> {
    let mut upper = view(upper)?;
    let lowers = lowers.iter().map(|lower| view(lower)).collect::<Result<Vec<_>, _>>()?;
    compressed(sink, options.compression, options.level, |feeder| {
        let mut emitter = Emitter::new(Writer::new(feeder), options.epoch());
        overlay::pack(&mut upper, stack::Stack::new(lowers, options.user_xattr), &mut emitter)?;
        emitter.finish().map(Some)
    })
}

/// Packs what makes the tree `upper` out of the tree `lower`, or all of `upper`.
///
/// Entries are the same if kind, mode, owner, size, device, target, time and extended attributes are, and, when the
/// times are whole seconds and so may hide a change, the contents. Attributes are written as they are: this is for
/// mounted trees, which show what a container sees.
///
/// # Errors
/// See [`PackError`]. The sink keeps what it got.
pub fn pack_difference(
    lower: Option<&Path>,
    upper: &Path,
    sink: impl Write + Send,
    options: &PackOptions,
) -> Result<Packed, PackError> {
    let mut upper = view(upper)?;
    let mut lower = lower.map(view).transpose()?;
    compressed(sink, options.compression, options.level, |feeder| {
        let mut emitter = Emitter::new(Writer::new(feeder), options.epoch());
        difference::pack(lower.as_mut(), &mut upper, &mut emitter)?;
        emitter.finish().map(Some)
    })
}

fn view(root: &Path) -> Result<View, PackError> {
    View::open(root).map_err(|source| PackError::Root { path: root.to_owned(), source })
}
