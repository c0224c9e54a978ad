//! Lets changes and a collection run side by side without losing what the changes made reachable.
//!
//! Every change enters the gate with the nodes it touches; a collection closes the gate twice, briefly. Between the two it
//! marks what was reachable at the first closing while changes go on and their nodes are written down. At the second
//! closing it marks from these nodes too, and sweeps: nothing can become reachable any more while it does.
//!
//! Why that is enough: something that was unreachable at the first closing becomes reachable only by a change, either of
//! itself or of something that refers to it, and each such change touches the node it writes.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::Node;

/// The gate of one store.
#[derive(Default)]
pub(crate) struct Gate {
    lock: RwLock<()>,
    /// What changes touched since a running collection began; none if none runs.
    touched: Mutex<Option<HashSet<Node>>>,
}

/// A change is going on.
pub(crate) struct Open<'gate> {
    _guard: RwLockReadGuard<'gate, ()>,
}

/// Nobody else changes anything.
pub(crate) struct Closed<'gate> {
    _guard: RwLockWriteGuard<'gate, ()>,
}

impl Gate {
    /// Begins a change that touches `nodes`. Not to be called by someone who is inside already.
    pub(crate) fn enter(&self, nodes: impl IntoIterator<Item = Node>) -> Open<'_> {
        let guard = self.lock.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(touched) = self.touched().as_mut() {
            touched.extend(nodes);
        }
        Open { _guard: guard }
    }

    /// Waits for the changes that go on, and keeps others out.
    pub(crate) fn close(&self) -> Closed<'_> {
        Closed { _guard: self.lock.write().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Begins to write down what changes touch. To be called while the gate is closed.
    pub(crate) fn watch(&self, _closed: &Closed<'_>) {
        *self.touched() = Some(HashSet::new());
    }

    /// Ends it, and answers with what was touched.
    pub(crate) fn touched_since(&self) -> HashSet<Node> {
        self.touched().take().unwrap_or_default()
    }

    fn touched(&self) -> std::sync::MutexGuard<'_, Option<HashSet<Node>>> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
