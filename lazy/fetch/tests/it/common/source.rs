//! A source that has blobs in memory and does what its script says.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use bytes::Bytes;
use lazy_fetch::{Ask, RangeBody, SourceError, Sources};
use storage_model::Digest;

/// Bytes handed out at once.
const PIECE_BYTES: usize = 4096;

/// What a place does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deed {
    /// Answers as it should.
    #[default]
    Serve,
    /// Sends the whole blob.
    Whole,
    /// Turns one bit in each of its answers' groups.
    Flip,
    /// Breaks off after this many bytes.
    Break(u64),
    /// Refuses, which may pass.
    Refuse,
    /// Says that it will never have it.
    Never,
    /// Accepts and sends nothing.
    Stall,
    /// Sends one piece at a time, each when [`Script::release`] was called.
    Gate,
}

type Decide = dyn Fn(&Asked) -> Deed + Send + Sync;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Asked {
    pub place: String,
    pub range: Range<u64>,
    /// How many came before it.
    pub number: usize,
}

/// The source. Places are asked in their order, but for those to be avoided.
pub struct Script {
    blobs: Mutex<HashMap<Digest, Bytes>>,
    places: Vec<String>,
    decide: Box<Decide>,
    pub log: Mutex<Vec<Asked>>,
    pub sent: Mutex<u64>,
    gate: Arc<(Mutex<u64>, Condvar)>,
}

impl Script {
    /// One place that decides by `decide`.
    pub fn new(decide: impl Fn(&Asked) -> Deed + Send + Sync + 'static) -> Arc<Self> {
        Self::of(&["origin"], decide)
    }

    /// A place that always serves.
    pub fn good() -> Arc<Self> {
        Self::new(|_| Deed::Serve)
    }

    /// Several places.
    pub fn of(places: &[&str], decide: impl Fn(&Asked) -> Deed + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            blobs: Mutex::default(),
            places: places.iter().map(|place| (*place).to_owned()).collect(),
            decide: Box::new(decide),
            log: Mutex::default(),
            sent: Mutex::default(),
            gate: Arc::default(),
        })
    }

    pub fn add(&self, digest: Digest, blob: &[u8]) {
        self.blobs.lock().unwrap().insert(digest, Bytes::copy_from_slice(blob));
    }

    pub fn requests(&self) -> Vec<Asked> {
        self.log.lock().unwrap().clone()
    }

    /// Bytes that were handed out.
    pub fn bytes_sent(&self) -> u64 {
        *self.sent.lock().unwrap()
    }

    /// Lets gated bodies send `pieces` more pieces, all of them together.
    pub fn release(&self, pieces: u64) {
        let mut open = self.gate.0.lock().unwrap();
        *open = open.saturating_add(pieces);
        self.gate.1.notify_all();
    }
}

fn refused(digest: Digest) -> SourceError {
    SourceError::Short { host: format!("refused {}", digest.short()), received: 0, wanted: 1 }
}

/// The local handle by which bodies count.
pub struct Shared(pub Arc<Script>);

impl Sources for Shared {
    fn range(&self, ask: &Ask<'_>) -> Result<Box<dyn RangeBody>, SourceError> {
        let script = &self.0;
        let blob = script.blobs.lock().unwrap().get(&ask.blob.digest).cloned();
        let none = || SourceError::None { blob: ask.blob.digest, tried: ask.avoid.to_vec() };
        let blob = blob.ok_or_else(none)?;
        assert!(ask.range.start < ask.range.end && ask.range.end <= blob.len() as u64, "{:?}", ask.range);
        let mut last = none();
        for place in script.places.iter().filter(|place| !ask.avoid.contains(place)) {
            let asked = {
                let mut log = script.log.lock().unwrap();
                let asked = Asked { place: place.clone(), range: ask.range.clone(), number: log.len() };
                log.push(asked.clone());
                asked
            };
            let deed = (script.decide)(&asked);
            match deed {
                Deed::Refuse => last = refused(ask.blob.digest),
                Deed::Never => {
                    let source = "..".parse::<storage_model::Reference>().unwrap_err();
                    last = SourceError::Reference { reference: "..".to_owned(), source };
                }
                _ => {
                    let range = if deed == Deed::Whole { 0..blob.len() as u64 } else { ask.range.clone() };
                    let mut bytes = blob[range.start as usize..range.end as usize].to_vec();
                    if deed == Deed::Flip {
                        bytes.iter_mut().step_by(7).for_each(|byte| *byte ^= 1);
                    }
                    let body = Body {
                        script: Arc::clone(script),
                        place: place.clone(),
                        start: range.start,
                        bytes: Bytes::from(bytes),
                        at: 0,
                        deed,
                    };
                    return Ok(Box::new(body));
                }
            }
        }
        Err(last)
    }
}

struct Body {
    script: Arc<Script>,
    place: String,
    start: u64,
    bytes: Bytes,
    at: usize,
    deed: Deed,
}

impl Body {
    fn late(&self) -> SourceError {
        SourceError::Deadline { host: self.place.clone(), after: std::time::Duration::ZERO }
    }
}

impl RangeBody for Body {
    fn start(&self) -> u64 {
        self.start
    }

    fn next(&mut self, deadline: Instant) -> Result<Option<Bytes>, SourceError> {
        let left = self.bytes.len() - self.at;
        let mut count = left.min(PIECE_BYTES);
        match self.deed {
            Deed::Stall => {
                let (lock, bell) = &*self.script.gate;
                let wait = deadline.saturating_duration_since(Instant::now());
                drop(bell.wait_timeout_while(lock.lock().unwrap(), wait, |_| true).unwrap());
                return Err(self.late());
            }
            Deed::Gate => {
                let (lock, bell) = &*self.script.gate;
                let wait = deadline.saturating_duration_since(Instant::now());
                let (mut open, late) =
                    bell.wait_timeout_while(lock.lock().unwrap(), wait, |open| *open == 0).unwrap();
                if late.timed_out() {
                    return Err(self.late());
                }
                *open -= 1;
            }
            Deed::Break(after) => {
                count = count.min((after as usize).saturating_sub(self.at));
                if count == 0 && left > 0 {
                    let (received, wanted) = (self.at as u64, self.bytes.len() as u64);
                    return Err(SourceError::Short { host: self.place.clone(), received, wanted });
                }
            }
            _ => {}
        }
        if count == 0 {
            return Ok(None);
        }
        let piece = self.bytes.slice(self.at..self.at + count);
        self.at += count;
        *self.script.sent.lock().unwrap() += count as u64;
        Ok(Some(piece))
    }

    fn source(&self) -> &str {
        &self.place
    }

    fn host(&self) -> &str {
        &self.place
    }
}
