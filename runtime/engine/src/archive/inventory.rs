//! What is in an archive: its files as blobs of the store, its documents in memory, in one pass over the stream.
//!
//! Every file becomes a blob under the operation's lease, whatever it is: what an image needs of it is only known at the
//! end, and what no image needs goes with the lease. A file `blobs/sha256/<hex>` must have that digest, and is skipped
//! when the namespace has it already. Two threads make blobs durable while the next ones are read.
//!
//! What is refused: two files of one name, names that lead out of the archive, devices, sparse files, and more than the
//! limits below. Not here: what the documents mean (`layout`, `docker`).

use std::collections::HashMap;
use std::io::BufRead;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use storage_content::{ErrorKind, Expected, Ingest, Space};
use storage_layer::Limits;
use storage_layer::tar::{Entry, EntryKind, Piece, Reader, TarError};
use storage_model::{Digest, Labels, limits};

use super::ArchiveError;
use crate::EngineError;
use crate::transfer::{Board, Item, TransferKind, TransferState};
use crate::work::once;

/// Most files of an archive: images of 4096 manifests with 20 layers each fit.
const FILES_MAX: usize = 100_000;
/// Most links, and most of them one after the other.
const LINKS_MAX: usize = 10_000;
const LINK_HOPS_MAX: usize = 8;
/// Longest name that is believed, in bytes.
const NAME_BYTES_MAX: usize = 1024;
/// Blobs that are made durable side by side, and as many that wait: the next ones are read meanwhile.
const COMMITTERS: usize = 2;

/// Documents that stand for themselves, and the most bytes each may have.
const DOCUMENTS: [(&str, u64); 3] = [
    ("oci-layout", 64 * 1024),
    ("index.json", limits::MANIFEST_BYTES_MAX),
    ("manifest.json", limits::MANIFEST_BYTES_MAX),
];

/// A file of the archive, as a blob of the namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// What is in an archive.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    documents: HashMap<&'static str, Vec<u8>>,
    files: HashMap<String, Stored>,
    /// Link names and the paths they stand for.
    links: HashMap<String, String>,
    /// Bytes of all files.
    pub(crate) bytes: u64,
    /// Whether it looks like what docker wrote before 2014.
    pub(crate) has_repositories: bool,
}

impl Inventory {
    /// Reads the tar `input` to its end into blobs of `space`.
    ///
    /// # Errors
    /// [`ArchiveError`] for what the archive is or has; [`EngineError::Store`] if a blob cannot be stored. Finished blobs
    /// hang on the lease of `space`, unfinished ones are aborted.
    pub(crate) fn read(
        input: impl BufRead,
        space: &Space,
        lease: &str,
        board: &Board,
    ) -> Result<Self, EngineError> {
        let done = Done::default();
        let (to_commit, waiting) = sync_channel::<Commit>(COMMITTERS);
        let waiting = Mutex::new(waiting);
        let (read, mut inventory) = std::thread::scope(|scope| {
            for _ in 0..COMMITTERS {
                scope.spawn(|| commit_all(&waiting, &done));
            }
            let inventory = Self::default();
            let mut pass = Pass { inventory, space, lease, board, to_commit, done: &done, count: 0 };
            let read = pass.read(Reader::new(input, &Limits::default()));
            (read, pass.inventory)
        });
        let Committed { files, failed } = done.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        // A commit that failed ends the reading: its error is the cause.
        failed.map_or(Ok(()), Err)?;
        read?;
        inventory.files.extend(files);
        Ok(inventory)
    }

    /// A document that stands for itself.
    pub(crate) fn document(&self, name: &str) -> Option<&[u8]> {
        self.documents.get(name).map(Vec::as_slice)
    }

    /// The file called `name`, through links.
    ///
    /// # Errors
    /// [`ArchiveError::Missing`].
    pub(crate) fn file(&self, name: &str) -> Result<Stored, ArchiveError> {
        let missing = || ArchiveError::Missing { name: name.chars().take(128).collect() };
        let mut path = clean(name.as_bytes())?.ok_or_else(missing)?;
        for _ in 0..=LINK_HOPS_MAX {
            if let Some(stored) = self.files.get(&path) {
                return Ok(*stored);
            }
            path = self.links.get(&path).ok_or_else(missing)?.clone();
        }
        Err(missing())
    }
}

/// A blob that is whole and not yet durable.
struct Commit {
    ingest: Ingest,
    expected: Expected,
    path: String,
    item: Arc<Item>,
}

/// What the committers have done so far.
#[derive(Default)]
struct Done(Mutex<Committed>);

#[derive(Default)]
struct Committed {
    files: HashMap<String, Stored>,
    /// The first failure; nothing more is committed after it.
    failed: Option<EngineError>,
}

impl Done {
    fn lock(&self) -> MutexGuard<'_, Committed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes blobs durable until there are no more. After a failure the rest is taken and dropped, so that nobody waits.
fn commit_all(waiting: &Mutex<Receiver<Commit>>, done: &Done) {
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(commit) = next else { return };
        if done.lock().failed.is_some() {
            continue;
        }
        let path = commit.path.clone();
        match commit.run() {
            Ok(stored) => {
                done.lock().files.insert(path, stored);
            }
            Err(error) => {
                done.lock().failed.get_or_insert(error);
            }
        }
    }
}

impl Commit {
    fn run(self) -> Result<Stored, EngineError> {
        let stored = Stored { digest: self.ingest.digest(), size: self.ingest.offset() };
        match self.ingest.commit(self.expected, Labels::new()) {
            Ok(_) => self.item.set(TransferState::Done),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => self.item.set(TransferState::Exists),
            Err(error) => return Err(error.into()),
        }
        Ok(stored)
    }
}

/// One pass over the archive.
struct Pass<'a> {
    inventory: Inventory,
    space: &'a Space,
    lease: &'a str,
    board: &'a Board,
    to_commit: SyncSender<Commit>,
    done: &'a Done,
    count: usize,
}

impl Pass<'_> {
    fn read<R: BufRead>(&mut self, mut tar: Reader<R>) -> Result<(), EngineError> {
        let mut seen = std::collections::HashSet::new();
        while let Some(entry) = tar.next_entry().map_err(ArchiveError::from)? {
            let Some(path) = clean(&entry.name)? else { continue };
            if self.done.lock().failed.is_some() {
                return Err(EngineError::CalledOff);
            }
            self.count += 1;
            if self.count > FILES_MAX {
                return Err(ArchiveError::TooManyFiles { files_max: FILES_MAX }.into());
            }
            match &entry.kind {
                EntryKind::Directory => continue,
                EntryKind::HardLink(target) => self.link(path, target, false)?,
                EntryKind::Symlink(target) => self.link(path, target, true)?,
                EntryKind::File => {
                    if !seen.insert(path.clone()) {
                        return Err(ArchiveError::Duplicate { name: path }.into());
                    }
                    self.file(&mut tar, &entry, path)?;
                }
                EntryKind::Char { .. } | EntryKind::Block { .. } => {
                    return Err(ArchiveError::EntryKind { name: path, kind: "device" }.into());
                }
                EntryKind::Fifo => return Err(ArchiveError::EntryKind { name: path, kind: "pipe" }.into()),
            }
        }
        tar.drain().map_err(ArchiveError::from)?;
        Ok(())
    }

    fn link(&mut self, path: String, target: &[u8], symbolic: bool) -> Result<(), EngineError> {
        let bad = || ArchiveError::EntryName { name: path.chars().take(128).collect() };
        let target = std::str::from_utf8(target).map_err(|_| bad())?;
        // A symbolic link is read from where it lies, a hard link from the top.
        let whole = match path.rsplit_once('/') {
            Some((directory, _)) if symbolic && !target.starts_with('/') => format!("{directory}/{target}"),
            _ => target.to_owned(),
        };
        let target = normalized(&whole).ok_or_else(bad)?;
        if self.inventory.links.len() >= LINKS_MAX {
            return Err(ArchiveError::TooManyFiles { files_max: LINKS_MAX }.into());
        }
        self.inventory.links.insert(path, target);
        Ok(())
    }

    fn file<R: BufRead>(
        &mut self,
        tar: &mut Reader<R>,
        entry: &Entry,
        path: String,
    ) -> Result<(), EngineError> {
        if let Some((name, bytes_max)) = DOCUMENTS.iter().find(|(name, _)| *name == path) {
            let bytes = read_document(tar, entry, name, *bytes_max)?;
            self.inventory.documents.insert(name, bytes);
            return Ok(());
        }
        // What docker writes for versions of itself before 1.10.
        self.inventory.has_repositories |= path == "repositories";
        if path == "repositories" || path.ends_with("/json") || path.ends_with("/VERSION") {
            return Ok(());
        }
        self.blob(tar, entry, path)
    }

    fn blob<R: BufRead>(
        &mut self,
        tar: &mut Reader<R>,
        entry: &Entry,
        path: String,
    ) -> Result<(), EngineError> {
        let digest = path.strip_prefix("blobs/sha256/").and_then(|hex| Digest::from_hex(hex).ok());
        let name = digest.map_or_else(|| path.clone(), |digest| digest.to_string());
        let item = self.board.item(name, TransferKind::Blob, entry.size);
        self.inventory.bytes += entry.size;
        if let Some(digest) = digest
            && self.is_here(&digest, entry.size)?
        {
            item.set(TransferState::Exists);
            self.inventory.files.insert(path, Stored { digest, size: entry.size });
            return Ok(());
        }
        let reference = once(self.lease);
        let expected = Expected { digest, size: Some(entry.size) };
        // What is expected is said at commit: said now, the blob might be taken over from another namespace without its
        // bytes being read here.
        let mut ingest = self.space.ingest(&reference, Expected { digest: None, size: Some(entry.size) })?;
        item.set(TransferState::Reading);
        tar.read_data(|piece| match piece {
            Piece::Data(bytes) => {
                item.add(bytes.len() as u64);
                ingest.write(bytes).map_err(Failed::from)
            }
            Piece::Hole(_) => Err(ArchiveError::EntryKind { name: path.clone(), kind: "sparse file" }.into()),
        })?;
        let commit = Commit { ingest, expected, path, item };
        self.to_commit.send(commit).map_err(|_| EngineError::CalledOff)
    }

    /// Whether the namespace has this blob; it then joins the lease.
    fn is_here(&self, digest: &Digest, size: u64) -> Result<bool, EngineError> {
        match self.space.blob(digest) {
            Ok(blob) if blob.size == size => {}
            _ => return Ok(false),
        }
        match self.space.pin_blob(digest) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// An error of reading a file's data; the reader's own kind has to fit too.
struct Failed(EngineError);

impl From<TarError> for Failed {
    fn from(error: TarError) -> Self {
        Self(ArchiveError::from(error).into())
    }
}

impl From<ArchiveError> for Failed {
    fn from(error: ArchiveError) -> Self {
        Self(error.into())
    }
}

impl From<storage_content::StoreError> for Failed {
    fn from(error: storage_content::StoreError) -> Self {
        Self(error.into())
    }
}

impl From<Failed> for EngineError {
    fn from(Failed(error): Failed) -> Self {
        error
    }
}

fn read_document<R: BufRead>(
    tar: &mut Reader<R>,
    entry: &Entry,
    name: &str,
    bytes_max: u64,
) -> Result<Vec<u8>, EngineError> {
    let size = entry.size;
    if size > bytes_max {
        return Err(ArchiveError::TooLarge { name: name.to_owned(), size, bytes_max }.into());
    }
    let mut document = Vec::new();
    tar.read_data(|piece| match piece {
        Piece::Data(bytes) => {
            document.extend_from_slice(bytes);
            Ok(())
        }
        Piece::Hole(_) => {
            Err(Failed::from(ArchiveError::EntryKind { name: name.to_owned(), kind: "sparse file" }))
        }
    })?;
    Ok(document)
}

/// The path of an entry inside the archive; `None` for its top.
///
/// # Errors
/// [`ArchiveError::EntryName`] for a name that leads out of it, is no text or is too long.
fn clean(name: &[u8]) -> Result<Option<String>, ArchiveError> {
    let bad = || ArchiveError::EntryName { name: String::from_utf8_lossy(name).chars().take(128).collect() };
    if name.len() > NAME_BYTES_MAX {
        return Err(bad());
    }
    let text = std::str::from_utf8(name).map_err(|_| bad())?;
    let path = normalized(text).ok_or_else(bad)?;
    Ok(if path.is_empty() { None } else { Some(path) })
}

/// A path without `.`, `..` and double slashes; `None` if it leads out.
fn normalized(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_out_of_the_archive_is_refused() {
        for (name, path) in [
            ("index.json", Some("index.json")),
            ("./blobs//sha256/x", Some("blobs/sha256/x")),
            ("a/../b", Some("b")),
            ("./", None),
            ("/etc/passwd", Some("etc/passwd")),
        ] {
            assert_eq!(clean(name.as_bytes()).unwrap().as_deref(), path, "{name}");
        }
        for name in [&b"../x"[..], b"a/../../x", b"\xff", &[b'a'; 2000]] {
            assert!(clean(name).is_err(), "{name:?}");
        }
    }
}
