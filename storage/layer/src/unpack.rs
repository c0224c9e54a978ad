//! [`unpack`]: the three stages, and whose error counts.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread::{Builder, ScopedJoinHandle};
use std::time::{Duration, Instant};

use storage_model::{Compression, DiffId, Hasher};
use storage_sys::tree::EntryPath;

use crate::apply::{Applied, apply};
use crate::pipeline::{Edges, Empties, edges};
use crate::tar::TarError;
use crate::{Decompressor, LayerError, Limits};

/// How deletions of lower layers' entries are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteouts {
    /// For the upper directory of an overlay: a character device 0:0 for an entry, `trusted.overlay.opaque=y` for all
    /// of a directory.
    Overlay,
    /// Deletes in the target, which holds the lower layers' tree. What this layer itself brings stays, whether it came
    /// before or after its whiteout.
    Apply,
}

/// How a layer is unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpackOptions {
    /// Form of deletions.
    pub whiteouts: Whiteouts,
    /// What the layer may ask for.
    pub limits: Limits,
    /// Where to write the record of the tree, for [`crate::check_tree`]; outside the target. With
    /// [`Whiteouts::Apply`] it is of the whole tree, with contents only of what this layer brings.
    pub record: Option<PathBuf>,
}

impl Default for UnpackOptions {
    fn default() -> Self {
        Self { whiteouts: Whiteouts::Overlay, limits: Limits::default(), record: None }
    }
}

/// Time each stage was busy: waiting for the source or for another stage does not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartTimes {
    /// Decompression.
    pub inflate: Duration,
    /// SHA-256 of the uncompressed bytes.
    pub hash: Duration,
    /// Tar and file system.
    pub write: Duration,
}

/// What an unpacked layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// Digest of all uncompressed bytes, also of those after the end of the tar.
    pub diff_id: DiffId,
    /// How many these were.
    pub uncompressed_bytes: u64,
    /// Entries read, whiteouts included.
    pub entries: u64,
    /// Inodes the target has more, the root not counted.
    pub inodes: u64,
    /// Bytes on disk these take, estimated in blocks of 4 KiB.
    pub disk_bytes: u64,
    /// Directories that entries lie in but that have no entry of their own, parents first: mode 0755 and owner 0:0.
    ///
    /// In overlay form they hide the attributes of a lower layer's directory; [`crate::settle`] copies these over
    /// once the lower layers are there.
    pub implied: Vec<EntryPath>,
    /// Where the time went.
    pub times: PartTimes,
}

/// Unpacks a layer into the existing directory `target`, and says what it was.
///
/// `compressed` is read to its end; an error of it comes back unchanged in [`LayerError::Source`]. `progress` is called
/// on the calling thread with the number of uncompressed bytes so far, every 256 KiB. Two threads are started and have
/// ended when this returns. Nothing is synced.
///
/// # Errors
/// See [`LayerError`]. The target keeps what was written; whoever made it removes it.
pub fn unpack(
    compressed: impl Read + Send,
    compression: Compression,
    target: &Path,
    options: &UnpackOptions,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Unpacked, LayerError> {
    let mut source = Decompressor::new(compressed, compression, &options.limits)?;
    let Edges { empties, to_hash, hash_in, to_write, mut write_in } = edges();
    let mut inflate_time = Duration::ZERO;
    let (inflated, hashed, written) = std::thread::scope(|scope| {
        let hash = Builder::new().name("layer-hash".into()).spawn_scoped(scope, move || {
            let (mut hasher, mut busy) = (Hasher::new(), Duration::ZERO);
            for buffer in hash_in {
                let start = Instant::now();
                hasher.update(buffer.filled());
                busy += start.elapsed();
                if to_write.send(buffer).is_err() {
                    break;
                }
            }
            (hasher, busy)
        });
        let hash = hash.map_err(LayerError::Thread)?;
        let write = Builder::new().name("layer-write".into()).spawn_scoped(scope, move || {
            let start = Instant::now();
            // Without a umask of its own the thread could not make files with the mode an entry has.
            let applied = storage_sys::tree::clear_thread_umask()
                .map_err(LayerError::Thread)
                .and_then(|()| apply(&mut write_in, target, options));
            (applied, start.elapsed().saturating_sub(write_in.waited))
        });
        let write = write.map_err(LayerError::Thread)?;
        let inflated = inflate(&mut source, empties, &to_hash, progress, &mut inflate_time);
        drop(to_hash);
        Ok::<_, LayerError>((inflated, join(hash), join(write)))
    })?;
    let (hasher, hash_time) = hashed;
    let (applied, write_time) = written;
    let Applied { entries, finished } = whose_error(inflated, applied)?;
    Ok(Unpacked {
        uncompressed_bytes: hasher.bytes(),
        diff_id: DiffId(hasher.finish()),
        entries,
        inodes: finished.inodes,
        disk_bytes: finished.disk_bytes,
        implied: finished.implied,
        times: PartTimes { inflate: inflate_time, hash: hash_time, write: write_time },
    })
}

/// Reads and decompresses to the end, or until the other stages have gone.
fn inflate<R: Read>(
    source: &mut Decompressor<R>,
    mut empties: Empties,
    to_hash: &std::sync::mpsc::SyncSender<crate::pipeline::Buffer>,
    progress: &(dyn Fn(u64) + Sync),
    busy: &mut Duration,
) -> Result<(), LayerError> {
    while let Some(mut buffer) = empties.take() {
        let (start, waited) = (Instant::now(), source.waited());
        let filled = source.fill(buffer.space());
        *busy += start.elapsed().saturating_sub(source.waited().saturating_sub(waited));
        buffer.length = filled?;
        let last = buffer.length < crate::pipeline::BUFFER_BYTES;
        progress(source.uncompressed_bytes());
        if (buffer.length > 0 && to_hash.send(buffer).is_err()) || last {
            break;
        }
    }
    Ok(())
}

/// A source that ends early makes the tar look cut off: then the source's error is the cause. A writer that gives up
/// ends the source without an error.
fn whose_error(
    inflated: Result<(), LayerError>,
    applied: Result<Applied, LayerError>,
) -> Result<Applied, LayerError> {
    match (inflated, applied) {
        (Ok(()), applied) => applied,
        (
            Err(inflated),
            Ok(_) | Err(LayerError::Tar(TarError::Truncated { .. } | TarError::Orphan { .. })),
        ) => Err(inflated),
        (Err(_), Err(applied)) => Err(applied),
    }
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
