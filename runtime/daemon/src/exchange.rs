//! Where events meet their listeners.
//!
//! ```text
//! store, Publish, Forward --tell--> one ring of the last events --listen--> each subscriber, at its own pace
//! ```
//! Telling never waits for a listener and costs next to nothing when there is none. A listener hears everything that is
//! told after it began, in one order for all; one that falls behind by more than the ring is told so and ends, because
//! a gap that nobody notices is worse than an error. Nothing is kept for those who come later.
//!
//! Not here: what the store's changes are called (`change`), the wire (`services::events`).

use std::sync::Arc;
use std::time::SystemTime;

use prost_types::Any;
use runtime_api::containerd::types::Envelope;
use runtime_api::event::Fields;
use storage_model::Namespace;
use tokio::sync::broadcast;

/// Events that a listener may be behind before it loses its place: a collection of ten thousand things tells as many
/// events within moments.
const BEHIND_MAX: usize = 16_384;

/// An event with what filters look at, read once for all listeners.
#[derive(Debug)]
pub(crate) struct Told {
    /// As it goes to listeners.
    pub(crate) envelope: Envelope,
    /// What its payload says, if it is known here.
    pub(crate) fields: Option<Fields>,
}

/// The exchange. Clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Exchange(broadcast::Sender<Arc<Told>>);

impl Exchange {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(BEHIND_MAX))
    }

    /// Whether anybody would hear.
    pub(crate) fn is_heard(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Tells that something happened just now.
    pub(crate) fn tell(&self, namespace: &Namespace, topic: &str, event: Any) {
        let envelope = Envelope {
            timestamp: Some(SystemTime::now().into()),
            namespace: namespace.to_string(),
            topic: topic.to_owned(),
            event: Some(event),
        };
        self.forward(envelope);
    }

    /// Passes on an event as it is.
    pub(crate) fn forward(&self, envelope: Envelope) {
        if !self.is_heard() {
            return;
        }
        let fields = envelope.event.as_ref().and_then(Fields::of);
        // It fails only if the last listener left since.
        let _ = self.0.send(Arc::new(Told { envelope, fields }));
    }

    /// Everything that is told from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Arc<Told>> {
        self.0.subscribe()
    }
}
