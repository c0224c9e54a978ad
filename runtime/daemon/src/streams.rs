//! Side channels between a client and one of its calls: opened by `Streaming.Stream`, taken by the call that names them.
//!
//! ```text
//! client opens "import-1" -> waiting -> Transfer names it and takes it -> bytes or progress -> either side ends it
//!                              `-> the client leaves, or the daemon stops: forgotten
//! ```
//! A stream has one owner at a time; a name that is taken or ended is free again. Streams of one namespace are not seen in
//! another.
//!
//! Not here: what is said on a stream (`transfer`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use prost_types::Any;
use storage_model::Namespace;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::status::{invalid, stopping};
use crate::stop::Stop;

/// Streams that may wait for a call at once. A transfer has at most four, and takes them within moments.
const WAITING_MAX: usize = 1024;

/// Longest name of a stream, in bytes. containerd's clients use some forty.
const NAME_BYTES_MAX: usize = 256;

/// Messages on their way to a client that is slower than we are.
const MESSAGES_WAITING: usize = 16;

/// The daemon's end of a stream. Dropping it ends the stream for the client.
#[derive(Debug)]
pub(crate) struct Stream {
    /// What the client says.
    pub(crate) from_client: Streaming<Any>,
    /// What it hears.
    pub(crate) to_client: mpsc::Sender<Result<Any, Status>>,
}

/// What the client of a stream hears. The name is forgotten with it if nobody took the stream.
#[derive(Debug)]
pub(crate) struct Heard {
    messages: mpsc::Receiver<Result<Any, Status>>,
    key: Key,
    number: u64,
    streams: Streams,
}

/// Streams that wait for the call that will name them. Clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Streams(Arc<Mutex<Waiting>>);

type Key = (Namespace, String);

#[derive(Debug, Default)]
struct Waiting {
    /// The number tells a stream from an earlier one of its name.
    streams: HashMap<Key, (u64, Stream)>,
    made: u64,
    stopped: bool,
}

impl Streams {
    /// None yet; those that wait when the daemon stops are ended.
    pub(crate) fn new(stop: Stop) -> Self {
        let streams = Self(Arc::default());
        let all = streams.clone();
        tokio::spawn(async move {
            stop.stopping().await;
            let mut waiting = all.lock();
            waiting.stopped = true;
            waiting.streams.clear();
        });
        streams
    }

    /// Lets a stream wait under `name`. The first that its client hears is that it does.
    ///
    /// # Errors
    /// `AlreadyExists` if one waits there, `InvalidArgument` for a bad name, `ResourceExhausted` for too many.
    pub(crate) fn open(
        &self,
        namespace: Namespace,
        name: String,
        from_client: Streaming<Any>,
        hello: Any,
    ) -> Result<Heard, Status> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            let words = format!("the name of a stream has 1 to {NAME_BYTES_MAX} bytes, not {}", name.len());
            return Err(invalid(words));
        }
        let (to_client, messages) = mpsc::channel(MESSAGES_WAITING);
        to_client.try_send(Ok(hello)).map_err(|_| Status::internal("a new channel has no room"))?;
        let mut waiting = self.lock();
        if waiting.stopped {
            return Err(stopping());
        }
        if waiting.streams.len() >= WAITING_MAX {
            let words = format!("{WAITING_MAX} streams wait for a call that names them: close some");
            return Err(Status::resource_exhausted(words));
        }
        waiting.made += 1;
        let (number, key) = (waiting.made, (namespace, name));
        match waiting.streams.entry(key.clone()) {
            Entry::Occupied(_) => {
                return Err(Status::already_exists(format!("stream {:?}: already exists", key.1)));
            }
            Entry::Vacant(place) => place.insert((number, Stream { from_client, to_client })),
        };
        drop(waiting);
        Ok(Heard { messages, key, number, streams: self.clone() })
    }

    /// Takes the stream that waits under `name`.
    ///
    /// # Errors
    /// `NotFound` if none does.
    pub(crate) fn take(&self, namespace: &Namespace, name: &str) -> Result<Stream, Status> {
        let found = self.lock().streams.remove(&(namespace.clone(), name.to_owned()));
        found.map(|(_, stream)| stream).ok_or_else(|| {
            Status::not_found(format!(
                "no stream {name:?} is open: it must be, before the call that names it"
            ))
        })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl tokio_stream::Stream for Heard {
    type Item = Result<Any, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.messages.poll_recv(context)
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        let mut waiting = self.streams.lock();
        if waiting.streams.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            waiting.streams.remove(&self.key);
        }
    }
}
