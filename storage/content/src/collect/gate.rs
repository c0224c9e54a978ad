//! Lets changes and a collection run side by side without losing what the changes made reachable.
//!
//! Every change enters the gate with the nodes it touches; a collection closes the gate for moments. At the first it begins
//! to watch: from then on the nodes of every change are written down. While it marks what was reachable, changes go on. At
//! each later closing it marks from the nodes that were touched since the one before, and sweeps a batch of what is still
//! unmarked: nothing can become reachable while it does.
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
    /// What changes touched since a running collection last asked; none if none runs.
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

/// Writing down what changes touch, until dropped.
pub(crate) struct Watch<'gate> {
    gate: &'gate Gate,
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

    /// Begins to write down what changes touch. One watches at a time.
    pub(crate) fn watch(&self) -> Watch<'_> {
        let _closed = self.close();
        *self.touched() = Some(HashSet::new());
        Watch { gate: self }
    }

    fn touched(&self) -> std::sync::MutexGuard<'_, Option<HashSet<Node>>> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'gate> Watch<'gate> {
    /// Closes the gate, and answers with what was touched since it was last closed so.
    pub(crate) fn close(&self) -> (Closed<'gate>, HashSet<Node>) {
        let closed = self.gate.close();
        let touched = self.gate.touched().replace(HashSet::new()).unwrap_or_default();
        (closed, touched)
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.gate.touched().take();
    }
}
