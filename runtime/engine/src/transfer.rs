//! What push, import, export and convert tell while they run, and what they return.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use storage_model::{ChainId, Descriptor, Digest, LayerKind, media};
use tokio::sync::mpsc::Sender;

use crate::layers::PullEvent;

/// What a thing on its way is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferKind {
    /// A manifest.
    Manifest,
    /// A list of manifests.
    Index,
    /// The config of an image.
    Config,
    /// A layer.
    Layer,
    /// A named image.
    Image,
    /// Bytes of which nothing more is known.
    Blob,
}

impl TransferKind {
    /// What `descriptor` says it is.
    pub(crate) fn of(descriptor: &Descriptor) -> Self {
        let media_type = descriptor.media_type.as_str();
        if media::is_index(media_type) {
            Self::Index
        } else if media::is_manifest(media_type) {
            Self::Manifest
        } else if media::is_config(media_type) {
            Self::Config
        } else if media::layer_kind(media_type) != LayerKind::Foreign {
            Self::Layer
        } else {
            Self::Blob
        }
    }

    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Index => "index",
            Self::Config => "config",
            Self::Layer => "layer",
            Self::Image => "image",
            Self::Blob => "blob",
        }
    }
}

/// How far a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum TransferState {
    /// Its turn has not come.
    Waiting,
    /// It is being sent.
    Uploading,
    /// The registry took it from another repository of its own.
    Mounted,
    /// It was there already.
    Exists,
    /// It is being read from an archive.
    Reading,
    /// It is being written to an archive.
    Writing,
    /// It is being compressed anew.
    Converting,
    /// It is being unpacked.
    Unpacking,
    /// It is where it should be.
    Done,
}

const STATES: [(TransferState, &str); 9] = [
    (TransferState::Waiting, "waiting"),
    (TransferState::Uploading, "uploading"),
    (TransferState::Mounted, "mounted"),
    (TransferState::Exists, "exists"),
    (TransferState::Reading, "reading"),
    (TransferState::Writing, "writing"),
    (TransferState::Converting, "converting"),
    (TransferState::Unpacking, "unpacking"),
    (TransferState::Done, "done"),
];

impl TransferState {
    /// One word.
    pub fn as_str(self) -> &'static str {
        STATES[self as usize].1
    }

    /// Whether nothing more happens to the thing.
    fn is_final(self) -> bool {
        matches!(self, Self::Mounted | Self::Exists | Self::Done)
    }
}

/// What a push, import, export or conversion tells.
#[derive(Debug, Clone)]
pub enum TransferEvent {
    /// One thing moved on.
    Progress {
        /// Its digest, or the name of an image, or of a file in an archive.
        name: String,
        /// What it is.
        kind: TransferKind,
        /// How far it is.
        state: TransferState,
        /// Bytes that are done.
        done_bytes: u64,
        /// Bytes there are; 0 when nobody knows.
        total_bytes: u64,
    },
    /// A line for people.
    Message(String),
}

/// An image that a transfer was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferredImage {
    /// Its name.
    pub name: String,
    /// What the name stands for.
    pub digest: Digest,
    /// The unpacked tree; `None` when nothing was unpacked.
    pub chain: Option<ChainId>,
}

/// What a transfer did.
#[derive(Debug, Clone, Default)]
pub struct Transferred {
    /// The images, by name.
    pub images: Vec<TransferredImage>,
    /// Bytes that were sent, read or written.
    pub bytes: u64,
    /// Wall-clock time, in seconds.
    pub seconds: f64,
}

/// One thing on its way.
#[derive(Debug)]
pub(crate) struct Item {
    name: String,
    kind: TransferKind,
    total: AtomicU64,
    done: AtomicU64,
    state: AtomicU8,
}

impl Item {
    pub(crate) fn set(&self, state: TransferState) {
        if state.is_final() {
            self.done.store(self.total.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.state.store(state as u8, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn at(&self, bytes: u64) {
        self.done.store(bytes, Ordering::Relaxed);
    }

    fn reading(&self) -> (TransferState, u64) {
        let state = STATES[usize::from(self.state.load(Ordering::Relaxed)).min(STATES.len() - 1)].0;
        (state, self.done.load(Ordering::Relaxed))
    }

    fn event(&self) -> TransferEvent {
        let (state, done_bytes) = self.reading();
        TransferEvent::Progress {
            name: self.name.clone(),
            kind: self.kind,
            state,
            done_bytes,
            total_bytes: self.total.load(Ordering::Relaxed),
        }
    }
}

/// An item and what was last told of it.
type Row = (Arc<Item>, Option<(TransferState, u64)>);

/// All things of one transfer. Tells of those that moved while it lives, and of the last moves when it goes.
pub(crate) struct Board {
    rows: Arc<Mutex<Vec<Row>>>,
    events: Sender<TransferEvent>,
    ticker: tokio::task::JoinHandle<()>,
}

/// Time between two readings: often enough to look alive, rarely enough to cost nothing.
const TICK: Duration = Duration::from_millis(100);

impl Board {
    pub(crate) fn start(events: Sender<TransferEvent>) -> Arc<Self> {
        let rows: Arc<Mutex<Vec<Row>>> = Arc::default();
        let (watched, sender) = (rows.clone(), events.clone());
        let ticker = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(TICK);
            loop {
                ticks.tick().await;
                for event in news(&watched) {
                    if sender.send(event).await.is_err() {
                        return;
                    }
                }
            }
        });
        Arc::new(Self { rows, events, ticker })
    }

    /// A new thing, waiting.
    pub(crate) fn item(&self, name: impl Into<String>, kind: TransferKind, total: u64) -> Arc<Item> {
        let item = Arc::new(Item {
            name: name.into(),
            kind,
            total: AtomicU64::new(total),
            done: AtomicU64::new(0),
            state: AtomicU8::new(TransferState::Waiting as u8),
        });
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).push((item.clone(), None));
        item
    }

    /// A line for people.
    pub(crate) fn say(&self, text: impl Into<String>) {
        let _ = self.events.try_send(TransferEvent::Message(text.into()));
    }

    /// Tells of layers being unpacked what a pull would tell.
    pub(crate) fn unpacking(&self) -> Sender<PullEvent> {
        let (sender, mut layers) = tokio::sync::mpsc::channel(64);
        let events = self.events.clone();
        tokio::spawn(async move {
            while let Some(event) = layers.recv().await {
                if let Some(event) = unpacking(event)
                    && events.send(event).await.is_err()
                {
                    return;
                }
            }
        });
        sender
    }
}

/// A pull's word in ours. What a layer's compressed bytes do is not told: they are here.
fn unpacking(event: PullEvent) -> Option<TransferEvent> {
    use crate::layers::LayerState;
    match event {
        PullEvent::Layer { digest, state, total_bytes, unpacked_bytes, .. } => {
            let state = match state {
                LayerState::Waiting => return None,
                LayerState::Downloading | LayerState::Unpacking => TransferState::Unpacking,
                LayerState::Done => TransferState::Done,
                LayerState::Exists => TransferState::Exists,
            };
            let done_bytes = if state.is_final() { total_bytes } else { unpacked_bytes.min(total_bytes) };
            let (name, kind) = (digest.to_string(), TransferKind::Layer);
            Some(TransferEvent::Progress { name, kind, state, done_bytes, total_bytes })
        }
        PullEvent::Message(text) => Some(TransferEvent::Message(text)),
        PullEvent::Resolved { .. } => None,
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.ticker.abort();
        for event in news(&self.rows) {
            let _ = self.events.try_send(event);
        }
    }
}

/// What moved since the last time; what is at its end is told once and forgotten.
fn news(rows: &Mutex<Vec<Row>>) -> Vec<TransferEvent> {
    let mut events = Vec::new();
    rows.lock().unwrap_or_else(PoisonError::into_inner).retain_mut(|(item, told)| {
        let reading = item.reading();
        if *told != Some(reading) {
            *told = Some(reading);
            events.push(item.event());
        }
        !reading.0.is_final()
    });
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_own_word_at_its_own_place() {
        for (place, (state, word)) in STATES.iter().enumerate() {
            assert_eq!((*state as usize, state.as_str()), (place, *word));
        }
    }

    #[tokio::test]
    async fn each_move_is_told_once_and_the_last_when_the_board_goes() {
        let (sender, mut events) = tokio::sync::mpsc::channel(16);
        let board = Board::start(sender);
        let item = board.item("a", TransferKind::Layer, 10);
        item.set(TransferState::Uploading);
        item.add(4);
        item.set(TransferState::Done);
        drop((board, item));
        let mut last = None;
        while let Some(event) = events.recv().await {
            last = Some(event);
        }
        let Some(TransferEvent::Progress { state, done_bytes, .. }) = last else { panic!("{last:?}") };
        assert_eq!((state, done_bytes), (TransferState::Done, 10));
    }
}
