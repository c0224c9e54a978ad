//! Small chunks, many in a file: by the digest of their bytes, whatever image they came from.
//!
//! `packs/N.pack` holds bytes, `packs/N.idx` is its journal. Chunks are appended to the newest pack until it is full; they
//! are never changed. A pack is given up as a whole, after what is to stay was copied to the newest.
//!
//! Not here: which packs to give up (`evict.rs`).

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use storage_model::Digest;

use super::blocks::{Damage, read_checked};
use super::journal::{BLOCK_BYTES, Journal, Record, sums};
use super::{lock, now, read_lock, write_lock};

/// Where the newest pack is closed, in bytes: small enough that giving one up frees little that is wanted.
const PACK_BYTES: u64 = 64 * 1024 * 1024;
/// Locks over the table of chunks.
const SHARDS: usize = 16;

/// Where a chunk lies.
#[derive(Debug, Clone, Copy)]
struct Entry {
    pack: u32,
    /// offset + length <= PACK_BYTES, but for a single chunk that is longer.
    offset: u32,
    length: u32,
    /// Its first checksum in [`Pack::sums`].
    block: u32,
    /// Its bytes had their digest when this process wrote or first read them, or nothing happened since another did.
    proved: bool,
}

/// One pack.
pub(super) struct Pack {
    number: u32,
    data: File,
    sums: RwLock<Vec<u32>>,
    bytes: AtomicU64,
    /// When something in it was last read or written, in seconds since 1970.
    used: AtomicU32,
}

/// All packs.
pub(super) struct Packs {
    directory: PathBuf,
    entries: [Mutex<HashMap<Digest, Entry>>; SHARDS],
    aliases: RwLock<HashMap<Digest, Digest>>,
    packs: RwLock<BTreeMap<u32, Arc<Pack>>>,
    newest: Mutex<Option<Newest>>,
}

struct Newest {
    pack: Arc<Pack>,
    journal: Journal,
}

/// What became of a look into the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// The bytes are there and were copied.
    Hit,
    /// They are not there.
    Miss,
    /// They were there and damaged; they are forgotten now.
    Damaged,
}

impl Packs {
    /// Opens all packs in `directory`. With `proved`, what their journals say is believed; else each chunk is compared with
    /// its digest when it is first read.
    pub(super) fn open(directory: PathBuf, proved: bool) -> io::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            let number =
                path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u32>().ok());
            match (number, path.extension().and_then(|extension| extension.to_str())) {
                (Some(number), Some("idx")) => numbers.push(number),
                // Made, and killed before its journal was; or half given up.
                (Some(_), Some("pack")) if !path.with_extension("idx").exists() => {
                    std::fs::remove_file(&path)?
                }
                _ => {}
            }
        }
        numbers.sort_unstable();
        let packs = Self {
            directory,
            entries: Default::default(),
            aliases: RwLock::default(),
            packs: RwLock::default(),
            newest: Mutex::default(),
        };
        for number in numbers {
            let (pack, journal) = packs.load(number, proved)?;
            let newest = (pack.bytes.load(Ordering::Relaxed) < PACK_BYTES)
                .then(|| Newest { pack: Arc::clone(&pack), journal });
            write_lock(&packs.packs).insert(number, pack);
            *lock(&packs.newest) = newest;
        }
        Ok(packs)
    }

    fn path(&self, number: u32, extension: &str) -> PathBuf {
        self.directory.join(format!("{number:08}.{extension}"))
    }

    fn load(&self, number: u32, proved: bool) -> io::Result<(Arc<Pack>, Journal)> {
        let data = self.path(number, "pack");
        let data = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(data)?;
        let used = modified(&data);
        let (mut all, mut end) = (Vec::new(), 0);
        let journal = Journal::open(&self.path(number, "idx"), |record| match record {
            Record::Chunk { content, offset, length, sums } => {
                let (Ok(offset), Ok(length)) = (u32::try_from(offset), u32::try_from(length)) else { return };
                let block = all.len() as u32;
                all.extend_from_slice(&sums);
                end = end.max(u64::from(offset) + u64::from(length));
                let entry = Entry { pack: number, offset, length, block, proved };
                self.shard(&content).insert(content, entry);
            }
            Record::Alias { name, content } => {
                write_lock(&self.aliases).insert(name, content);
            }
        })?;
        let pack = Pack {
            number,
            data,
            sums: RwLock::new(all),
            bytes: AtomicU64::new(end),
            used: AtomicU32::new(used),
        };
        Ok((Arc::new(pack), journal))
    }

    fn shard(&self, content: &Digest) -> MutexGuard<'_, HashMap<Digest, Entry>> {
        lock(&self.entries[usize::from(content.as_bytes()[0]) % SHARDS])
    }

    /// Bytes of all packs.
    pub(super) fn bytes(&self) -> u64 {
        read_lock(&self.packs).values().map(|pack| pack.bytes.load(Ordering::Relaxed)).sum()
    }

    /// The digest of what is asked for under `name`, if it is known.
    pub(super) fn content_of(&self, name: &Digest) -> Option<Digest> {
        read_lock(&self.aliases).get(name).copied()
    }

    /// Whether a chunk is there.
    pub(super) fn has(&self, content: &Digest) -> bool {
        self.shard(content).contains_key(content)
    }

    /// The number of the pack a chunk is in, and its length.
    pub(super) fn place(&self, content: &Digest) -> Option<(u32, u64)> {
        self.shard(content).get(content).map(|entry| (entry.pack, u64::from(entry.length)))
    }

    /// Fills `out` with the bytes of a chunk from `from` on.
    pub(super) fn read(&self, content: &Digest, from: u64, out: &mut [u8]) -> Found {
        let Some(entry) = self.shard(content).get(content).copied() else { return Found::Miss };
        let Some(pack) = read_lock(&self.packs).get(&entry.pack).cloned() else { return Found::Miss };
        let count = u64::from(entry.length).div_ceil(BLOCK_BYTES) as usize;
        let block = entry.block as usize;
        let known: Vec<u32> = read_lock(&pack.sums)[block..block + count].to_vec();
        let place = (u64::from(entry.offset), u64::from(entry.length));
        let digest = (!entry.proved).then_some(content);
        match read_checked(&pack.data, place, &known, digest, from, out) {
            Ok(()) => {
                pack.used.store(now(), Ordering::Relaxed);
                if !entry.proved
                    && let Some(entry) = self.shard(content).get_mut(content)
                {
                    entry.proved = true;
                }
                Found::Hit
            }
            Err(Damage) => {
                tracing::warn!(%content, pack = entry.pack, "a chunk in the cache is damaged; it is fetched again");
                self.shard(content).remove(content);
                Found::Damaged
            }
        }
    }

    /// Keeps `bytes`, whose digest is `content`. Nothing is there after an error.
    pub(super) fn store(&self, content: Digest, bytes: &[u8]) -> io::Result<()> {
        if self.has(&content) {
            return Ok(());
        }
        let mut newest = lock(&self.newest);
        let Newest { pack, journal } = self.room(&mut newest, bytes.len() as u64)?;
        let offset = pack.bytes.load(Ordering::Relaxed);
        let (Ok(at), Ok(length)) = (u32::try_from(offset), u32::try_from(bytes.len())) else {
            return Err(io::ErrorKind::FileTooLarge.into());
        };
        pack.data.write_all_at(bytes, offset)?;
        let sums = sums(bytes);
        let record = Record::Chunk { content, offset, length: bytes.len() as u64, sums: sums.clone() };
        journal.append(&[record])?;
        pack.bytes.store(offset + bytes.len() as u64, Ordering::Relaxed);
        pack.used.store(now(), Ordering::Relaxed);
        let block = {
            let mut all = write_lock(&pack.sums);
            all.extend_from_slice(&sums);
            (all.len() - sums.len()) as u32
        };
        let entry = Entry { pack: pack.number, offset: at, length, block, proved: true };
        self.shard(&content).insert(content, entry);
        Ok(())
    }

    /// Remembers that `name` stands for the bytes with the digest `content`.
    pub(super) fn alias(&self, name: Digest, content: Digest) -> io::Result<()> {
        if self.content_of(&name) == Some(content) {
            return Ok(());
        }
        let mut newest = lock(&self.newest);
        self.room(&mut newest, 0)?.journal.append(&[Record::Alias { name, content }])?;
        write_lock(&self.aliases).insert(name, content);
        Ok(())
    }

    /// The pack to append to: a new one if `bytes` do not fit.
    fn room<'a>(&self, newest: &'a mut Option<Newest>, bytes: u64) -> io::Result<&'a mut Newest> {
        let full = |newest: &Newest| {
            let used = newest.pack.bytes.load(Ordering::Relaxed);
            used > 0 && used + bytes > PACK_BYTES
        };
        if newest.as_ref().is_none_or(full) {
            let number = read_lock(&self.packs).last_key_value().map_or(1, |(number, _)| number + 1);
            let (pack, journal) = self.load(number, true)?;
            write_lock(&self.packs).insert(number, Arc::clone(&pack));
            *newest = Some(Newest { pack, journal });
        }
        Ok(newest.as_mut().expect("just made if there was none"))
    }

    /// All packs that could be given up, as number, bytes and time of last use: all but the newest.
    pub(super) fn candidates(&self) -> Vec<(u32, u64, u32)> {
        let newest = lock(&self.newest).as_ref().map(|newest| newest.pack.number);
        let packs = read_lock(&self.packs);
        let others = packs.values().filter(|pack| Some(pack.number) != newest);
        let facts = others
            .map(|pack| (pack.number, pack.bytes.load(Ordering::Relaxed), pack.used.load(Ordering::Relaxed)));
        facts.collect()
    }

    /// Closes the newest pack, so that it can be given up too.
    pub(super) fn close_newest(&self) {
        *lock(&self.newest) = None;
    }

    /// Gives a pack up. Chunks for which `stays` says so are copied to the newest pack first; one that cannot be is gone
    /// too. Reads that have begun are served to their end.
    pub(super) fn remove(&self, number: u32, stays: &dyn Fn(&Digest) -> bool) -> io::Result<()> {
        let mut kept = Vec::new();
        for shard in &self.entries {
            kept.extend(
                lock(shard).iter().filter(|(_, entry)| entry.pack == number).map(|(c, e)| (*c, e.length)),
            );
        }
        kept.retain(|(content, _)| stays(content));
        for (content, length) in kept {
            let mut bytes = vec![0; length as usize];
            if self.read(&content, 0, &mut bytes) == Found::Hit {
                self.shard(&content).remove(&content);
                self.store(content, &bytes)?;
            }
        }
        for shard in &self.entries {
            lock(shard).retain(|_, entry| entry.pack != number);
        }
        write_lock(&self.packs).remove(&number);
        write_lock(&self.aliases).retain(|_, content| self.has(content));
        // Without its journal, a pack is removed at the next opening.
        remove_file(&self.path(number, "idx"))?;
        remove_file(&self.path(number, "pack"))
    }
}

/// Removes a file, which may be gone already.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// When a file was last written, in seconds since 1970.
pub(super) fn modified(file: &File) -> u32 {
    let time = file.metadata().and_then(|found| found.modified()).ok();
    let since = time.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_secs() as u32)
}
