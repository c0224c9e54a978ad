//! Making room: what goes when the quota is reached or the disk is full.
//!
//! Objects and packs compete by the time of their last use. An object goes as a whole, if no mounted image holds it. A pack
//! goes if little of it is pinned; what is pinned is copied on. If all of it does not help, the caller serves without
//! keeping, and is not looked at again for a moment.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use storage_model::Digest;
use storage_sys::durable;

use super::{Cache, lock};

/// How much more than needed is given up at once, in bytes: a look at everything is not made for each chunk.
pub(super) const STEP_BYTES: u64 = 64 * 1024 * 1024;
/// How long nothing is tried after nothing could be given up.
const REST: Duration = Duration::from_secs(2);
/// How often the file system is asked for its free bytes.
const LOOK: Duration = Duration::from_secs(1);

/// When there is too much.
pub(super) struct Pressure {
    quota_bytes: u64,
    reserve_bytes: u64,
    state: Mutex<State>,
    /// One at a time gives up.
    turn: Mutex<()>,
}

#[derive(Default)]
struct State {
    /// Nothing could be given up: until then nothing is kept.
    rest_until: Option<Instant>,
    looked: Option<Instant>,
    free_bytes: u64,
}

impl Pressure {
    pub(super) fn new(quota_bytes: u64, reserve_bytes: u64) -> Self {
        Self { quota_bytes, reserve_bytes, state: Mutex::default(), turn: Mutex::default() }
    }

    /// The disk said that it is full.
    pub(super) fn refused(&self) {
        lock(&self.state).rest_until = Some(Instant::now() + REST);
    }

    fn rests(&self) -> bool {
        lock(&self.state).rest_until.is_some_and(|until| Instant::now() < until)
    }
}

impl Cache {
    /// Whether `more` bytes may be kept; gives up others for them if need be.
    pub(super) fn make_room(&self, more: u64) -> bool {
        let excess = self.excess(more);
        if excess == 0 {
            return true;
        }
        let step = STEP_BYTES.min(self.pressure.quota_bytes / 20);
        self.evict(excess.saturating_add(step)) && self.excess(more) == 0
    }

    /// How many bytes must go before `more` may come.
    fn excess(&self, more: u64) -> u64 {
        let pressure = &self.pressure;
        let over_quota = self.bytes().saturating_add(more).saturating_sub(pressure.quota_bytes);
        let mut state = lock(&pressure.state);
        if state.looked.is_none_or(|at| at.elapsed() > LOOK) {
            state.free_bytes = durable::free_bytes(&self.directory).unwrap_or(u64::MAX);
            state.looked = Some(Instant::now());
        }
        let wanted = pressure.reserve_bytes.saturating_add(more);
        over_quota.max(wanted.saturating_sub(state.free_bytes))
    }

    /// Gives up at least `bytes` bytes, if as many are not needed. Returns whether anything went.
    pub(super) fn evict(&self, bytes: u64) -> bool {
        if self.pressure.rests() {
            return false;
        }
        let _turn = lock(&self.pressure.turn);
        let mut freed = 0;
        self.packs.close_newest();
        let pinned = self.pinned_bytes();
        for (_, candidate) in self.by_age() {
            if freed >= bytes {
                break;
            }
            freed += match candidate {
                Candidate::Object(id) => self.objects.remove(&id).unwrap_or(0),
                Candidate::Pack(number, has) => {
                    let stays = pinned.packs.get(&number).copied().unwrap_or(0);
                    // Copying most of it would cost more than it gives.
                    if stays > has / 2 {
                        continue;
                    }
                    match self.packs.remove(number, &|content| pinned.needs(content)) {
                        Ok(()) => has - stays.min(has),
                        Err(_) => 0,
                    }
                }
            };
        }
        tracing::debug!(freed, wanted = bytes, "made room in the cache");
        self.bytes.store(self.packs.bytes() + self.objects.bytes(), Ordering::Relaxed);
        self.evicted_bytes.fetch_add(freed, Ordering::Relaxed);
        let mut state = lock(&self.pressure.state);
        state.looked = None;
        if freed == 0 {
            state.rest_until = Some(Instant::now() + REST);
        }
        freed > 0
    }

    /// All that could go, the least recently used first.
    fn by_age(&self) -> Vec<(u32, Candidate)> {
        let objects =
            self.objects.candidates().into_iter().map(|(id, _, used)| (used, Candidate::Object(id)));
        let packs = self.packs.candidates().into_iter();
        let packs = packs.map(|(number, bytes, used)| (used, Candidate::Pack(number, bytes)));
        let mut all: Vec<_> = objects.chain(packs).collect();
        all.sort_by_key(|(used, _)| *used);
        all
    }

    /// What mounted images need of each pack.
    fn pinned_bytes(&self) -> Pinned {
        let mut pinned = Pinned::default();
        self.pins.each(&mut |name| {
            let content = self.packs.content_of(&name).unwrap_or(name);
            if let Some((pack, length)) = self.packs.place(&content)
                && pinned.contents.insert(content, ()).is_none()
            {
                *pinned.packs.entry(pack).or_default() += length;
            }
        });
        pinned
    }
}

enum Candidate {
    Object(Digest),
    Pack(u32, u64),
}

#[derive(Default)]
struct Pinned {
    contents: HashMap<Digest, ()>,
    /// Bytes of each pack.
    packs: HashMap<u32, u64>,
}

impl Pinned {
    fn needs(&self, content: &Digest) -> bool {
        self.contents.contains_key(content)
    }
}
