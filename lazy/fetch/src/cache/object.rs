//! Large files: one sparse file each, every chunk at its place, so that a complete one can be read without us.
//!
//! `objects/XX/HEX` is the file, `HEX.map` its journal: the chunks that are there. HEX is a digest of *what the file is
//! made of* (its length, and place and digest of each chunk), not the digest of the file that the image announces: that
//! one is nobody's word until the whole file is here, and an image that announces the digest of another image's file with
//! chunks of its own would be put into the other's mouth. Two images with the same file in the same chunks share it.
//!
//! Not here: which objects to give up (`evict.rs`).

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use storage_model::Digest;

use super::blocks::{Damage, read_checked};
use super::journal::{Journal, Record, sums};
use super::pack::{Found, modified, remove_file};
use super::{lock, now};

/// A large file in the cache, whole or in part.
pub(crate) struct Object {
    id: Digest,
    size: u64,
    path: PathBuf,
    proved: bool,
    /// Bytes of it that are here, as far as known without reading its journal.
    bytes: AtomicU64,
    used: AtomicU32,
    /// Bytes that are zeros without having been fetched.
    holes: AtomicU64,
    /// Everything is here and had its digest.
    whole: AtomicBool,
    /// It was given up: nothing is stored any more.
    gone: AtomicBool,
    state: Mutex<Option<State>>,
}

/// An object that has been read or written since the start.
struct State {
    data: Arc<File>,
    journal: Journal,
    extents: BTreeMap<u64, Extent>,
    /// Sum of the lengths of the extents; present <= size.
    present: u64,
}

#[derive(Clone)]
struct Extent {
    length: u64,
    content: Digest,
    sums: Arc<[u32]>,
    proved: bool,
}

impl Object {
    /// Says how many bytes of it are zeros that are never fetched: the same for all who use it.
    pub(crate) fn set_holes(&self, bytes: u64) {
        self.holes.store(bytes, Ordering::Relaxed);
        if let Some(state) = &*lock(&self.state) {
            self.check_whole(state);
        }
    }

    /// Fills `out` with bytes of the chunk at `at` (its place in the file, and its length) from `from` on.
    pub(crate) fn read(&self, at: (u64, u64), from: u64, out: &mut [u8]) -> Found {
        let (data, extent) = {
            let mut state = lock(&self.state);
            let Ok(Some(state)) = self.opened(&mut state, false) else { return Found::Miss };
            match state.extents.get(&at.0) {
                Some(extent) if extent.length == at.1 => (Arc::clone(&state.data), extent.clone()),
                _ => return Found::Miss,
            }
        };
        let digest = (!extent.proved).then_some(&extent.content);
        match read_checked(&data, at, &extent.sums, digest, from, out) {
            Ok(()) => {
                self.used.store(now(), Ordering::Relaxed);
                if digest.is_some() {
                    self.prove(at.0);
                }
                Found::Hit
            }
            Err(Damage) => {
                tracing::warn!(object = %self.id, offset = at.0, "a chunk in the cache is damaged; it is fetched again");
                self.forget(at.0);
                Found::Damaged
            }
        }
    }

    /// Whether the chunk at this place in the file is here.
    pub(crate) fn has(&self, at: (u64, u64)) -> bool {
        let mut state = lock(&self.state);
        let Ok(Some(state)) = self.opened(&mut state, false) else { return false };
        state.extents.get(&at.0).is_some_and(|extent| extent.length == at.1)
    }

    /// Keeps the chunk that begins at `offset` and whose digest is `content`. Returns how many bytes are here that were not.
    pub(super) fn store(&self, offset: u64, content: Digest, bytes: &[u8]) -> io::Result<u64> {
        let length = bytes.len() as u64;
        let mut state = lock(&self.state);
        if self.gone.load(Ordering::Acquire) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let Some(state) = self.opened(&mut state, true)? else { return Ok(0) };
        if state.extents.get(&offset).is_some_and(|extent| extent.length == length) {
            return Ok(0);
        }
        state.data.write_all_at(bytes, offset)?;
        let sums = sums(bytes);
        state.journal.append(&[Record::Chunk { content, offset, length, sums: sums.clone() }])?;
        state.insert(offset, Extent { length, content, sums: sums.into(), proved: true });
        self.bytes.store(state.present, Ordering::Relaxed);
        self.used.store(now(), Ordering::Relaxed);
        self.check_whole(state);
        Ok(length)
    }

    /// The whole file, if all of it is here and was compared with its digests, now or before.
    pub(crate) fn whole(&self) -> Option<Arc<File>> {
        let mut state = lock(&self.state);
        let state = self.opened(&mut state, false).ok()??;
        self.whole.load(Ordering::Acquire).then(|| Arc::clone(&state.data))
    }

    /// The chunks that are here and not yet compared with their digests, as place and length.
    pub(crate) fn unproved(&self) -> Vec<(u64, u64)> {
        let mut state = lock(&self.state);
        let Ok(Some(state)) = self.opened(&mut state, false) else { return Vec::new() };
        state.extents.iter().filter(|(_, e)| !e.proved).map(|(offset, e)| (*offset, e.length)).collect()
    }

    fn prove(&self, offset: u64) {
        if let Some(state) = &mut *lock(&self.state) {
            if let Some(extent) = state.extents.get_mut(&offset) {
                extent.proved = true;
            }
            self.check_whole(state);
        }
    }

    fn forget(&self, offset: u64) {
        if let Some(state) = &mut *lock(&self.state)
            && let Some(extent) = state.extents.remove(&offset)
        {
            state.present -= extent.length;
            self.bytes.store(state.present, Ordering::Relaxed);
            self.whole.store(false, Ordering::Release);
        }
    }

    fn check_whole(&self, state: &State) {
        let whole = state.present + self.holes.load(Ordering::Relaxed) == self.size
            && state.extents.values().all(|extent| extent.proved);
        self.whole.store(whole, Ordering::Release);
    }

    /// The files, opened at the first use; with `make`, made if they are not there.
    fn opened<'a>(&self, state: &'a mut Option<State>, make: bool) -> io::Result<Option<&'a mut State>> {
        if state.is_none() {
            if !make && (self.gone.load(Ordering::Acquire) || !self.path.exists()) {
                return Ok(None);
            }
            if let Some(folder) = self.path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let data =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&self.path)?;
            if data.metadata()?.len() != self.size {
                data.set_len(self.size)?;
            }
            let mut extents = BTreeMap::new();
            let journal = Journal::open(&map_of(&self.path), |record| {
                if let Record::Chunk { content, offset, length, sums } = record
                    && offset.checked_add(length).is_some_and(|end| end <= self.size)
                {
                    let extent = Extent { length, content, sums: sums.into(), proved: self.proved };
                    extents.insert(offset, extent);
                }
            })?;
            let mut opened = State { data: Arc::new(data), journal, extents: BTreeMap::new(), present: 0 };
            extents.into_iter().for_each(|(offset, extent)| opened.insert(offset, extent));
            self.bytes.store(opened.present, Ordering::Relaxed);
            self.check_whole(&opened);
            // What is used now is not the first to go after the next start.
            let _ = opened.data.set_modified(std::time::SystemTime::now());
            *state = Some(opened);
        }
        Ok(state.as_mut())
    }
}

impl State {
    fn insert(&mut self, offset: u64, extent: Extent) {
        self.present += extent.length;
        if let Some(before) = self.extents.insert(offset, extent) {
            self.present -= before.length;
        }
    }
}

fn map_of(path: &Path) -> PathBuf {
    path.with_extension("map")
}

/// All objects.
pub(super) struct Objects {
    directory: PathBuf,
    proved: bool,
    all: Mutex<HashMap<Digest, Arc<Object>>>,
}

impl Objects {
    /// Looks what there is in `directory`; reads no journal. `proved` as in [`super::pack::Packs::open`].
    pub(super) fn open(directory: PathBuf, proved: bool) -> io::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        let objects = Self { directory, proved, all: Mutex::default() };
        for folder in std::fs::read_dir(&objects.directory)? {
            let folder = folder?.path();
            if !folder.is_dir() {
                continue;
            }
            for entry in std::fs::read_dir(&folder)? {
                let path = entry?.path();
                let id = path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .and_then(|name| Digest::from_hex(name).ok());
                if let Some(id) = id {
                    let file = File::open(&path)?;
                    let found = file.metadata()?;
                    let object = objects.new_object(id, found.len());
                    object.bytes.store((found.blocks() * 512).min(found.len()), Ordering::Relaxed);
                    object.used.store(modified(&file), Ordering::Relaxed);
                    lock(&objects.all).insert(id, Arc::new(object));
                } else if path.extension().is_some_and(|e| e == "map") && !path.with_extension("").exists() {
                    remove_file(&path)?;
                }
            }
        }
        Ok(objects)
    }

    fn new_object(&self, id: Digest, size: u64) -> Object {
        let hex = id.hex();
        Object {
            id,
            size,
            path: self.directory.join(&hex[..2]).join(&hex),
            proved: self.proved,
            bytes: AtomicU64::new(0),
            holes: AtomicU64::new(0),
            used: AtomicU32::new(now()),
            whole: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// The object `id`, which may be empty. Makes no file.
    pub(super) fn get(&self, id: Digest, size: u64) -> Arc<Object> {
        let mut all = lock(&self.all);
        if let Some(object) = all.get(&id).filter(|object| object.size == size) {
            return Arc::clone(object);
        }
        let object = Arc::new(self.new_object(id, size));
        all.insert(id, Arc::clone(&object));
        object
    }

    /// Bytes of all objects.
    pub(super) fn bytes(&self) -> u64 {
        lock(&self.all).values().map(|object| object.bytes.load(Ordering::Relaxed)).sum()
    }

    /// All objects that have bytes and that nobody else holds, as bytes and time of last use.
    pub(super) fn candidates(&self) -> Vec<(Digest, u64, u32)> {
        let all = lock(&self.all);
        let free = all.values().filter(|object| Arc::strong_count(object) == 1);
        let facts = free.map(|object| {
            (object.id, object.bytes.load(Ordering::Relaxed), object.used.load(Ordering::Relaxed))
        });
        facts.filter(|(_, bytes, _)| *bytes > 0).collect()
    }

    /// Gives an object up, unless somebody holds it by now. Returns how many bytes it had.
    pub(super) fn remove(&self, id: &Digest) -> io::Result<u64> {
        let object = {
            let mut all = lock(&self.all);
            if all.get(id).is_none_or(|object| Arc::strong_count(object) > 1) {
                return Ok(0);
            }
            all.remove(id)
        };
        let Some(object) = object else { return Ok(0) };
        object.gone.store(true, Ordering::Release);
        // The map first: data without a map is empty, a map without data would lie.
        remove_file(&map_of(&object.path))?;
        remove_file(&object.path)?;
        Ok(object.bytes.load(Ordering::Relaxed))
    }
}
