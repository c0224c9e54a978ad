//! Sees containers end: also those that an earlier daemon started.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runtime_shim::Client;
use storage_model::{Identifier, Namespace};

use super::{Status, removes_at_exit};
use crate::{Engine, EngineError, ErrorKind};

/// Containers that have a thread waiting for their end.
#[derive(Clone, Default)]
pub(crate) struct Watches {
    running: Arc<Mutex<HashSet<(Namespace, Identifier)>>>,
    removal: Arc<Mutex<()>>,
}

impl Watches {
    fn begin(&self, key: &(Namespace, Identifier)) -> bool {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone())
    }

    /// Held while a container is taken away.
    pub(super) fn removing(&self) -> MutexGuard<'_, ()> {
        self.removal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, key: &(Namespace, Identifier)) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

impl Engine {
    /// Finds the containers of an earlier daemon again: watches those that run, removes those that were to go.
    pub(crate) fn recover_containers(&self) -> Result<(), EngineError> {
        for namespace in self.store().namespaces()? {
            let Ok(namespace) = namespace.name.as_str().parse::<Namespace>() else { continue };
            for state in self.containers(&namespace)? {
                match state.status {
                    Status::Running { .. } | Status::Created => self.watch(&namespace, &state.record.id),
                    Status::Exited { .. } | Status::Lost if removes_at_exit(&state.record) => {
                        if let Err(error) = self.take_away(&namespace, &state.record) {
                            tracing::warn!(%error, id = %state.record.id, "a container that ended could not be removed");
                        }
                    }
                    Status::Exited { .. } | Status::Lost => {}
                }
            }
        }
        Ok(())
    }

    /// Starts the thread that waits for the container's end.
    pub(super) fn watch(&self, namespace: &Namespace, id: &Identifier) {
        let key = (namespace.clone(), id.clone());
        if !self.watches().begin(&key) {
            return;
        }
        let engine = self.clone();
        std::thread::spawn(move || {
            let (namespace, id) = &key;
            let ended =
                Client::connect(&engine.socket(namespace, id.as_str())).and_then(|client| client.wait());
            tracing::debug!(%namespace, %id, ?ended, "a container ended");
            engine.detach_network(namespace, id.as_str());
            engine.watches().end(&key);
            if let Ok(record) = engine.record(namespace, id.as_str())
                && removes_at_exit(&record)
                && let Err(error) = engine.remove_container(namespace, id.as_str(), true)
                && error.kind() != ErrorKind::NotFound
            {
                tracing::warn!(%error, %id, "a container that ended could not be removed");
            }
        });
    }
}
