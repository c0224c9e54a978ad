//! What the engine itself tells of tasks: what their shims cannot tell any more.
//!
//! A shim publishes what happens to its tasks. Only the end of a task whose shim died is told from here. What is told
//! before somebody listens is kept: a daemon finds dead shims before it serves.

use std::sync::{Arc, Mutex, PoisonError};

use prost_types::Any;
use runtime_api::any::pack;
use runtime_api::containerd::events as wire;
use storage_model::Namespace;

use super::live::Exit;

/// Hears events: namespace, topic, message.
pub type EventSink = Arc<dyn Fn(&Namespace, &str, Any) + Send + Sync>;

/// One event.
type Event = (Namespace, &'static str, Any);

/// Most events kept for one who listens later: more tasks than a machine runs.
const EARLY_MAX: usize = 10_000;

/// Where events go.
#[derive(Default)]
pub(crate) struct Events(Mutex<State>);

#[derive(Default)]
struct State {
    sink: Option<EventSink>,
    early: Vec<Event>,
}

impl Events {
    /// From now on `sink` hears everything, first what was told before.
    pub(super) fn listen(&self, sink: EventSink) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (namespace, topic, event) in state.early.drain(..) {
            sink(&namespace, topic, event);
        }
        state.sink = Some(sink);
    }

    fn tell(&self, namespace: &Namespace, topic: &'static str, event: Any) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &state.sink {
            Some(sink) => sink(namespace, topic, event),
            None if state.early.len() < EARLY_MAX => state.early.push((namespace.clone(), topic, event)),
            None => {}
        }
    }

    /// The first process of a task runs.
    pub(crate) fn started(&self, namespace: &Namespace, id: &str, pid: u32) {
        let event = wire::TaskStart { container_id: id.to_owned(), pid };
        self.tell(namespace, "/tasks/start", pack(&event));
    }

    /// The first process of a task ended.
    pub(crate) fn exited(&self, namespace: &Namespace, id: &str, exit: &Exit) {
        let event = wire::TaskExit {
            container_id: id.to_owned(),
            id: id.to_owned(),
            pid: exit.pid,
            exit_status: exit.status,
            exited_at: exit.at,
        };
        self.tell(namespace, "/tasks/exit", pack(&event));
    }

    /// A task was taken away.
    pub(crate) fn deleted(&self, namespace: &Namespace, id: &str, exit: &Exit) {
        let event = wire::TaskDelete {
            container_id: id.to_owned(),
            pid: exit.pid,
            exit_status: exit.status,
            exited_at: exit.at,
            id: String::new(),
        };
        self.tell(namespace, "/tasks/delete", pack(&event));
    }
}
