//! The files that lazily shown images stand on: tables of contents and merged indexes, below `ROOT/lazy`.
//!
//! - `layers/<digest>.toc`: a layer's table of contents in our encoding, by the digest of that encoding. What it says of a
//!   blob was proved by who put it here, so two images that claim different contents for one blob have two files.
//! - `images/<stack>.idx`: the merged index of a stack of layers. Made from the tables, so it may be lost and made again.
//!
//! - `known/<blob>.json`: of a blob that was read whole here once, the table that was made of it: so an image that says
//!   nothing of how it can be read in pieces is lazy the second time. The oldest go when there are too many.
//!
//! A file is absent or whole: `write -> sync -> rename -> sync directory`. Nothing here is ever changed. [`Shelf::sweep`]
//! removes what no snapshot names; it waits for who is putting something here and has not named it yet ([`Shelf::hold`]).

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use lazy_index::{ImageIndex, LayerPart, Limits, Toc};
use serde::{Deserialize, Serialize};
use snapshotters_contract::SnapshotError;
use storage_model::{DiffId, Digest, Hasher};

use crate::layer::{Layer, read_small, write_whole};

/// Blobs whose tables are remembered although no image of them is here.
const KNOWN_MAX: usize = 512;

/// Longest note of such a blob that is read, in bytes.
const KNOWN_BYTES_MAX: u64 = 1024;

/// The three folders.
#[derive(Debug)]
pub struct Shelf {
    layers: PathBuf,
    images: PathBuf,
    known: PathBuf,
    busy: RwLock<()>,
}

/// While it lives, nothing is swept.
pub type Hold<'a> = RwLockReadGuard<'a, ()>;

/// Name of a stack of layers: a digest of what each is and where its bytes are, so that what is shown under one name is
/// the same for every image and namespace.
///
/// A chain ID would not do: it names trees by what their images claim, and a claim is proved only when all bytes are here.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackId(String);

impl StackId {
    /// The name of `layers`, lowest first.
    pub fn of(layers: &[Layer]) -> Self {
        let mut hasher = Hasher::new();
        for layer in layers {
            hasher.update(layer.blob.as_bytes());
            hasher.update(layer.toc.as_bytes());
        }
        Self(hasher.finish().hex())
    }

    /// 64 hexadecimal digits: safe as a file name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Shelf {
    /// Opens the shelf below `root`, the store's directory.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] if the folders cannot be made.
    pub fn open(root: &Path) -> Result<Self, SnapshotError> {
        let (layers, images, known) =
            (root.join("lazy/layers"), root.join("lazy/images"), root.join("lazy/known"));
        for folder in [&layers, &images, &known] {
            fs::create_dir_all(folder).map_err(|source| SnapshotError::io("create", folder, source))?;
        }
        Ok(Self { layers, images, known, busy: RwLock::new(()) })
    }

    /// Keeps the sweep away until what was put here is named by a snapshot.
    pub fn hold(&self) -> Hold<'_> {
        self.busy.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a table of contents here and returns its name. One that is here already costs a look.
    ///
    /// # Errors
    /// [`SnapshotError::Io`], [`SnapshotError::Full`]; no part of it is then here.
    pub fn put_toc(&self, _held: &Hold<'_>, toc: &Toc) -> Result<Digest, SnapshotError> {
        let bytes = toc.encode();
        let digest = Digest::of(&bytes);
        if self.toc_path(&digest).symlink_metadata().is_err() {
            write_whole(&self.layers, &toc_name(&digest), &bytes)?;
        }
        Ok(digest)
    }

    /// Where the table `digest` is.
    pub fn toc_path(&self, digest: &Digest) -> PathBuf {
        self.layers.join(toc_name(digest))
    }

    /// Reads the table `digest`, compares it with its name, and decodes it.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] if it is not here or damaged; damage that is found removes the file, so that the next pull of
    /// the image makes it again.
    pub fn toc(&self, digest: &Digest) -> Result<Toc, SnapshotError> {
        let path = self.toc_path(digest);
        let failed = |source| SnapshotError::io("read", &path, source);
        let bytes = fs::read(&path).map_err(failed)?;
        let damaged = |why: String| {
            let _ = fs::remove_file(&path);
            failed(std::io::Error::new(std::io::ErrorKind::InvalidData, why))
        };
        if Digest::of(&bytes) != *digest {
            return Err(damaged("its bytes are not those it is named after".to_owned()));
        }
        Toc::decode(&bytes).map_err(|error| damaged(error.to_string()))
    }

    /// Remembers that `toc` was made of all bytes of `blob`, whose digests were both proved.
    ///
    /// # Errors
    /// [`SnapshotError::Io`], [`SnapshotError::Full`].
    pub fn remember(&self, _held: &Hold<'_>, blob: &Digest, known: &Known) -> Result<(), SnapshotError> {
        let text = serde_json::to_vec(known).expect("two digests and a word");
        write_whole(&self.known, &known_name(blob), &text)
    }

    /// The table that was made of `blob`, if it was read whole here once; damage is as if there were none.
    pub fn known(&self, blob: &Digest) -> Option<Known> {
        let text = read_small(&self.known.join(known_name(blob)), KNOWN_BYTES_MAX).ok()??;
        let known: Known = serde_json::from_slice(&text).ok()?;
        self.toc_path(&known.toc).exists().then_some(known)
    }

    /// All that are remembered, the oldest let go if there are too many.
    fn remembered(&self) -> Result<Vec<Known>, SnapshotError> {
        let failed = |source| SnapshotError::io("sweep", &self.known, source);
        let mut found = Vec::new();
        for entry in self.known.read_dir().map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let age = path.metadata().and_then(|facts| facts.modified()).map_err(failed)?;
            let text = read_small(&path, KNOWN_BYTES_MAX).ok().flatten();
            match text.and_then(|text| serde_json::from_slice::<Known>(&text).ok()) {
                Some(known) => found.push((age, path, known)),
                None => fs::remove_file(&path).map_err(failed)?,
            }
        }
        found.sort_by_key(|(age, ..)| std::cmp::Reverse(*age));
        for (_, path, _) in found.iter().skip(KNOWN_MAX) {
            fs::remove_file(path).map_err(failed)?;
        }
        Ok(found.into_iter().take(KNOWN_MAX).map(|(_, _, known)| known).collect())
    }

    /// Where the index of `stack` is, made now if it was not.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] if a table is not here, damaged, or the tables cannot be merged.
    pub fn index(&self, stack: &StackId, layers: &[Layer]) -> Result<PathBuf, SnapshotError> {
        let path = self.images.join(index_name(stack));
        if path.symlink_metadata().is_ok() {
            return Ok(path);
        }
        let tocs = layers.iter().map(|layer| self.toc(&layer.toc)).collect::<Result<Vec<_>, _>>()?;
        let parts: Vec<LayerPart<'_>> = layers
            .iter()
            .zip(&tocs)
            .map(|(layer, toc)| LayerPart { blob: layer.blob, blob_bytes: layer.blob_bytes, toc })
            .collect();
        let failed = |source: std::io::Error| SnapshotError::io("make the index", &path, source);
        let bytes = ImageIndex::build(&parts, &Limits::default())
            .map_err(|error| failed(std::io::Error::new(std::io::ErrorKind::InvalidData, error)))?;
        write_whole(&self.images, &index_name(stack), &bytes)?;
        Ok(path)
    }

    /// Removes what is not named: tables that are not in `tocs`, indexes that are not in `stacks`.
    ///
    /// # Errors
    /// [`SnapshotError::Io`]; what is left is found the next time.
    pub fn sweep(&self, named: impl FnOnce() -> Result<Named, SnapshotError>) -> Result<(), SnapshotError> {
        let _alone = self.busy.write().unwrap_or_else(PoisonError::into_inner);
        let mut named = named()?;
        named.tocs.extend(self.remembered()?.iter().map(|known| known.toc));
        let tocs: HashSet<String> = named.tocs.iter().map(toc_name).collect();
        let stacks: HashSet<String> = named.stacks.iter().map(index_name).collect();
        sweep(&self.layers, &tocs)?;
        sweep(&self.images, &stacks)
    }
}

/// What is remembered of a blob that was read whole here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Name of the table that was made of it.
    pub toc: Digest,
    /// Digest of its uncompressed tar.
    pub diff_id: DiffId,
}

/// What snapshots name.
#[derive(Debug, Default)]
pub struct Named {
    /// Tables of contents.
    pub tocs: HashSet<Digest>,
    /// Stacks that are, or may be, shown.
    pub stacks: HashSet<StackId>,
}

fn known_name(blob: &Digest) -> String {
    format!("{}.json", blob.hex())
}

fn toc_name(digest: &Digest) -> String {
    format!("{}.toc", digest.hex())
}

fn index_name(stack: &StackId) -> String {
    format!("{}.idx", stack.as_str())
}

fn sweep(folder: &Path, named: &HashSet<String>) -> Result<(), SnapshotError> {
    let failed = |source| SnapshotError::io("sweep", folder, source);
    for entry in folder.read_dir().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.file_name().to_str().is_some_and(|name| named.contains(name)) {
            fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(blob: &[u8], toc: Digest) -> Layer {
        Layer {
            blob: Digest::of(blob),
            blob_bytes: 1,
            diff_id: DiffId(Digest::of(blob)),
            toc,
            proof: None,
            format: "estargz".to_owned(),
            origins: Vec::new(),
            fill: false,
        }
    }

    #[test]
    fn two_stacks_of_one_chain_with_other_contents_have_two_names() {
        let one = [layer(b"a", Digest::of(b"1"))];
        let other = [layer(b"a", Digest::of(b"2"))];
        assert_ne!(StackId::of(&one), StackId::of(&other));
        assert_eq!(StackId::of(&one), StackId::of(&[layer(b"a", Digest::of(b"1"))]));
    }

    #[test]
    fn a_damaged_table_is_an_error_and_goes() {
        let root = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(root.path()).unwrap();
        let digest = Digest::of(b"something else");
        fs::write(shelf.toc_path(&digest), b"not that").unwrap();
        assert!(shelf.toc(&digest).unwrap_err().to_string().contains(&digest.hex()));
        assert!(!shelf.toc_path(&digest).exists());
    }

    #[test]
    fn a_remembered_blob_keeps_its_table_through_a_sweep() {
        let root = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(root.path()).unwrap();
        let known = Known { toc: Digest::of(b"t"), diff_id: DiffId(Digest::of(b"d")) };
        let blob = Digest::of(b"b");
        shelf.remember(&shelf.hold(), &blob, &known).unwrap();
        assert_eq!(shelf.known(&blob), None, "its table is not here");
        fs::write(shelf.toc_path(&known.toc), b"x").unwrap();
        shelf.sweep(|| Ok(Named::default())).unwrap();
        assert_eq!(shelf.known(&blob), Some(known));
        assert_eq!(shelf.known(&Digest::of(b"other")), None);
    }

    #[test]
    fn a_sweep_leaves_what_is_named_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(root.path()).unwrap();
        let kept = Digest::of(b"kept");
        for digest in [kept, Digest::of(b"gone")] {
            fs::write(shelf.toc_path(&digest), b"x").unwrap();
        }
        fs::write(shelf.images.join("half.new"), b"x").unwrap();
        shelf.sweep(|| Ok(Named { tocs: HashSet::from([kept]), stacks: HashSet::new() })).unwrap();
        assert!(shelf.toc_path(&kept).exists() && !shelf.toc_path(&Digest::of(b"gone")).exists());
        assert_eq!(shelf.images.read_dir().unwrap().count(), 0);
    }
}
