//! Tells the daemon what happens, in order.
//!
//! Events wait in a queue that one thread empties: over ttrpc to the address in `TTRPC_ADDRESS`, or else by calling the
//! program of `-publish-binary` for each. A daemon that is away (killed, replaced) finds them when it is back; a queue
//! of [`QUEUE_MAX`] drops what is newest, since a daemon that was away so long asks for the states anyway. Nothing here
//! ever holds up a container, and an exit status is in the shim's memory whether or not somebody heard of it.
use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use prost::{Message, Name};
use prost_types::{Any, Timestamp};
use runtime_api::any;
use runtime_api::containerd::services::events::ttrpc::v1::ForwardRequest;
use runtime_api::containerd::types::Envelope;
use runtime_ttrpc::{Client, NAMESPACE_KEY, socket_of};

use super::reaper::Reaper;

/// Most events that wait for a daemon that is away.
pub(crate) const QUEUE_MAX: usize = 2048;

/// Longest time a daemon may take to accept one.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between attempts while the daemon is away.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Service and method of a daemon that takes events.
const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";

/// Where events go.
#[derive(Debug, Clone, Default)]
pub(crate) struct Destination {
    /// The daemon's ttrpc socket.
    pub(crate) ttrpc: Option<String>,
    /// A program that publishes one event given on standard input, and the daemon's address for it.
    pub(crate) program: Option<(PathBuf, String)>,
}

/// The queue and its thread.
pub(crate) struct Publisher {
    namespace: String,
    queue: Mutex<VecDeque<Envelope>>,
    changed: Condvar,
}

impl Publisher {
    /// A publisher, at work on a thread of its own.
    ///
    /// # Errors
    /// Those of starting the thread.
    pub(crate) fn start(
        namespace: &str,
        destination: Destination,
        reaper: Arc<Reaper>,
    ) -> io::Result<Arc<Self>> {
        let publisher = Arc::new(Self {
            namespace: namespace.to_owned(),
            queue: Mutex::default(),
            changed: Condvar::new(),
        });
        let worker = Arc::clone(&publisher);
        super::thread("events", move || worker.work(&destination, &reaper))?;
        Ok(publisher)
    }

    /// Puts an event into the queue; never waits.
    pub(crate) fn publish<M: Message + Name>(&self, topic: &str, event: &M) {
        let envelope = Envelope {
            timestamp: Some(Timestamp::from(SystemTime::now())),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(any::pack(event)),
        };
        let mut queue = self.lock();
        if queue.len() < QUEUE_MAX {
            queue.push_back(envelope);
            self.changed.notify_all();
        }
    }

    /// Waits until everything has been told, or `limit` has passed.
    pub(crate) fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut queue = self.lock();
        while !queue.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn work(&self, destination: &Destination, reaper: &Reaper) {
        let mut connection = None;
        loop {
            let next = {
                let queue = self.lock();
                let queue = self.changed.wait_while(queue, |queue| queue.is_empty());
                queue.unwrap_or_else(PoisonError::into_inner).front().cloned()
            };
            let Some(envelope) = next else { continue };
            // It stays in the queue until it has arrived, so that `flush` waits for it.
            if tell(destination, &mut connection, reaper, envelope) {
                self.lock().pop_front();
                self.changed.notify_all();
            } else {
                connection = None;
                std::thread::sleep(RETRY_PAUSE);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Envelope>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells one event. False when the daemon is away, so that it is worth trying again.
fn tell(
    destination: &Destination,
    connection: &mut Option<Client>,
    reaper: &Reaper,
    envelope: Envelope,
) -> bool {
    if let Some(address) = &destination.ttrpc {
        if connection.as_ref().is_none_or(Client::is_closed) {
            let metadata = vec![(NAMESPACE_KEY.to_owned(), envelope.namespace.clone())];
            *connection =
                Client::connect(socket_of(address)).ok().map(|client| client.with_metadata(metadata));
        }
        let Some(client) = connection else { return false };
        let request = ForwardRequest { envelope: Some(envelope) };
        // A daemon that is there and refuses will refuse again.
        return match client.call::<_, ()>(SERVICE, "Forward", &request, Some(FORWARD_TIMEOUT)) {
            Ok(()) => true,
            Err(error) => !error.is_gone(),
        };
    }
    if let Some((program, address)) = &destination.program {
        return publish_by(program, address, reaper, envelope);
    }
    true
}

fn publish_by(program: &PathBuf, address: &str, reaper: &Reaper, envelope: Envelope) -> bool {
    let work = || -> io::Result<bool> {
        let (reader, mut writer) = io::pipe()?;
        let mut command = Command::new(program);
        command.args(["--address", address, "publish", "--topic", &envelope.topic]);
        command.args(["--namespace", &envelope.namespace]);
        command.stdin(Stdio::from(reader)).stdout(Stdio::null());
        let event: Any = envelope.event.unwrap_or_default();
        let body = event.encode_to_vec();
        // A pipe holds an event: they are some hundred bytes.
        writer.write_all(&body)?;
        drop(writer);
        Ok(reaper.run(&mut command, false)?.status.success())
    };
    work().unwrap_or(false)
}
