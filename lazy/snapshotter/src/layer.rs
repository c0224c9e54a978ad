//! What a committed snapshot that has no files of its own stands for: a layer, by what is in it and where its bytes are.
//!
//! `layer.json` in the snapshot's directory. It is written while the snapshot is active and synced before the commit, so a
//! committed snapshot either has it whole or is an ordinary one. `verified` beside it says that the layer was read from
//! end to end since, and what was proved.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use lazy_fetch::Origin;
use serde::{Deserialize, Serialize};
use snapshotters_contract::SnapshotError;
use storage_model::{DiffId, Digest};

/// Name of the description in a snapshot's directory.
const DESCRIPTION: &str = "layer.json";

/// Name of the note that the layer's bytes were all proved.
const VERIFIED: &str = "verified";

/// Largest description that is read, in bytes: a few origins of a few hundred bytes each.
const DESCRIPTION_BYTES_MAX: u64 = 256 * 1024;

/// A layer that is shown without having been unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Digest of the compressed blob.
    pub blob: Digest,
    /// Its size in bytes.
    pub blob_bytes: u64,
    /// Digest of the uncompressed tar as the image's config has it. A claim until [`is_verified`].
    pub diff_id: DiffId,
    /// Digest of the table of contents in our encoding: its name on the [`Shelf`](crate::Shelf).
    pub toc: Digest,
    /// Digest in the image's manifest that vouches for the table; none if the blob itself was read whole and is what it is
    /// named, so that the table is true of it whoever asks.
    pub proof: Option<Digest>,
    /// How the layer can be read in pieces, in words: `estargz`, `zstd:chunked`, `soci`, `indexed`.
    pub format: String,
    /// Where the bytes come from, the first that answers. The local store always goes before.
    pub origins: Vec<Origin>,
    /// Whoever shows it shall bring in the rest behind its readers' backs: nobody else does.
    #[serde(default)]
    pub fill: bool,
}

impl Layer {
    /// Writes the description into `directory`, durably but for the directory's own name.
    ///
    /// # Errors
    /// [`SnapshotError::Io`], [`SnapshotError::Full`]; nothing is there then that [`read`](Self::read) would take.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), SnapshotError> {
        let text = serde_json::to_vec(self)
            .expect("strings, numbers and paths that came from JSON or the command line");
        write_whole(directory, DESCRIPTION, &text)
    }

    /// Reads the description out of `directory`; none if it is an ordinary snapshot's.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] if it cannot be read or is damaged.
    pub(crate) fn read(directory: &Path) -> Result<Option<Self>, SnapshotError> {
        let path = directory.join(DESCRIPTION);
        let failed = |source| SnapshotError::io("read", &path, source);
        let Some(text) = read_small(&path, DESCRIPTION_BYTES_MAX).map_err(failed)? else { return Ok(None) };
        serde_json::from_slice(&text).map(Some).map_err(|source| failed(source.into()))
    }
}

/// Whether `directory` holds a description at all; cheaper than reading it.
pub(crate) fn is_described(directory: &Path) -> bool {
    directory.join(DESCRIPTION).symlink_metadata().is_ok()
}

/// Whether the layer of `directory` was read whole and is what its image says: blob digest, diff ID, table of contents.
pub(crate) fn is_verified(directory: &Path) -> bool {
    directory.join(VERIFIED).symlink_metadata().is_ok()
}

/// Notes durably that it was.
pub(crate) fn set_verified(directory: &Path) -> Result<(), SnapshotError> {
    write_whole(directory, VERIFIED, b"")
}

/// Writes `directory/name` in one step: under another name, synced, renamed, the directory synced.
pub(crate) fn write_whole(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), SnapshotError> {
    let path = directory.join(name);
    let failed = |source| SnapshotError::io("write", &path, source);
    let mut new = tempname(directory, name);
    new.set_extension("new");
    let written = File::create(&new)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&new, &path))
        .and_then(|()| storage_sys::durable::sync_directory(directory));
    written.map_err(|source| {
        // What is left under the other name is swept with the directory.
        let _ = fs::remove_file(&new);
        failed(source)
    })
}

/// A name beside `name` that nobody else uses now.
fn tempname(directory: &Path, name: &str) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    directory.join(format!(".{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
}

/// The bytes of a small file; none if it is not there.
pub(crate) fn read_small(path: &Path, bytes_max: u64) -> std::io::Result<Option<Vec<u8>>> {
    use std::io::Read as _;
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(std::io::Error::new(ErrorKind::InvalidData, format!("longer than {bytes_max} bytes")));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lazy_fetch::Access;

    fn layer() -> Layer {
        Layer {
            blob: Digest::of(b"blob"),
            blob_bytes: 4,
            diff_id: DiffId(Digest::of(b"tar")),
            toc: Digest::of(b"toc"),
            proof: None,
            format: "estargz".to_owned(),
            origins: vec![Origin { reference: "r.example/a:1".to_owned(), access: Access::default() }],
            fill: false,
        }
    }

    #[test]
    fn a_description_is_read_as_it_was_written_and_an_ordinary_directory_has_none() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Layer::read(directory.path()).unwrap(), None);
        assert!(!is_described(directory.path()) && !is_verified(directory.path()));
        layer().write(directory.path()).unwrap();
        set_verified(directory.path()).unwrap();
        assert_eq!(Layer::read(directory.path()).unwrap(), Some(layer()));
        assert!(is_described(directory.path()) && is_verified(directory.path()));
        let left = fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(left, 2, "nothing but the two files");
    }

    #[test]
    fn a_damaged_or_endless_description_is_an_error_that_names_the_file() {
        let directory = tempfile::tempdir().unwrap();
        for text in [b"{".to_vec(), vec![b' '; DESCRIPTION_BYTES_MAX as usize + 1]] {
            fs::write(directory.path().join(DESCRIPTION), text).unwrap();
            let error = Layer::read(directory.path()).unwrap_err();
            assert!(error.to_string().contains("layer.json"), "{error}");
        }
    }
}
