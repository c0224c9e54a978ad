//! Sees containers end: also those that an earlier daemon started.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use runtime_shim::{Client, ExitStatus, RecoverError};
use storage_model::{Identifier, Namespace};

use super::{Status, removes_at_exit};
use crate::task::Exit;
use crate::{Engine, EngineError, ErrorKind};

/// Exit code of a process that was ended with its shim.
const KILLED: u32 = 137;

/// How often, and how soon one after the other, a dead shim's leavings are looked at again.
const RECOVERY_TRIES: u32 = 100;
const RECOVERY_PAUSE: Duration = Duration::from_millis(20);

/// Containers that have a thread waiting for their end.
#[derive(Clone, Default)]
pub(crate) struct Watches {
    running: Arc<Mutex<HashSet<(Namespace, Identifier)>>>,
    removal: Arc<Mutex<()>>,
    starting: Arc<Mutex<()>>,
    /// How often in a row a container ended soon after its start.
    failures: Arc<Mutex<HashMap<(Namespace, String), u32>>>,
}

impl Watches {
    fn begin(&self, key: &(Namespace, Identifier)) -> bool {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone())
    }

    /// Held while a container is taken away.
    pub(super) fn removing(&self) -> MutexGuard<'_, ()> {
        self.removal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while a container is started again, or its labels are changed.
    pub(super) fn starting(&self) -> MutexGuard<'_, ()> {
        self.starting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often in a row the container had ended soon; counts this end, or with `steady` begins anew.
    pub(super) fn failures(&self, namespace: &Namespace, id: &str, steady: bool) -> u32 {
        let mut all = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry((namespace.clone(), id.to_owned())).or_default();
        let before = if steady { 0 } else { *count };
        *count = before.saturating_add(1);
        before
    }

    fn end(&self, key: &(Namespace, Identifier)) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

impl Engine {
    /// Finds the containers of an earlier daemon again: watches those that run, removes those that were to go, starts those
    /// that their policy wants to run, and takes bundles away that no record names.
    pub(crate) fn recover_containers(&self) -> Result<(), EngineError> {
        for namespace in self.store().namespaces()? {
            let Ok(namespace) = namespace.name.as_str().parse::<Namespace>() else { continue };
            self.sweep_bundles(&namespace);
            for state in self.containers(&namespace)? {
                if self.plain_bundle(&namespace, state.record.id.as_str()).is_none() {
                    continue;
                }
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
            self.obey_policies(&namespace);
        }
        Ok(())
    }

    /// Removes bundles whose records a client of containerd deleted, and ends what still runs there.
    fn sweep_bundles(&self, namespace: &Namespace) {
        let directory = self.config().state.join("containers").join(namespace.as_str());
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(id) = entry.file_name().into_string() else { continue };
            let unnamed =
                matches!(self.record(namespace, &id), Err(error) if error.kind() == ErrorKind::NotFound);
            if !unnamed {
                continue;
            }
            let ended = self.end_shim(namespace, &id);
            self.settle(namespace, &id);
            self.detach_network(namespace, &id);
            let removed = std::fs::remove_dir_all(entry.path());
            if ended.is_err() || removed.is_err() {
                tracing::warn!(%namespace, %id, ?ended, ?removed, "a bundle without a container stays for now");
            }
        }
    }

    /// Starts the thread that waits for the container's end.
    pub(super) fn watch(&self, namespace: &Namespace, id: &Identifier) {
        let key = (namespace.clone(), id.clone());
        if !self.watches().begin(&key) {
            return;
        }
        let engine = self.clone();
        std::thread::spawn(move || engine.watched(&key));
    }

    /// Waits for the end of a container and does what comes then.
    fn watched(&self, key: &(Namespace, Identifier)) {
        let (namespace, id) = (&key.0, key.1.as_str());
        let begun = Instant::now();
        let ended = Client::connect(&self.socket(namespace, id)).and_then(|client| client.wait());
        tracing::debug!(%namespace, %id, ?ended, "a container ended");
        let bundle = self.bundle(namespace, id);
        let exit = ended.ok().or_else(|| after_death(&bundle));
        self.detach_network(namespace, id);
        self.tasks().end_second(namespace, id, &bundle);
        self.watches().end(key);
        let code = exit.map_or(KILLED, |exit| exit.code.into());
        let told = Exit { pid: 0, status: code, at: Some(SystemTime::now().into()) };
        self.tasks().events().exited(namespace, id, &told);
        let Ok(record) = self.record(namespace, id) else { return };
        if !removes_at_exit(&record) {
            return self.obey_policy(namespace, id, code, begun.elapsed());
        }
        match self.remove_container(namespace, id, true) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%error, %id, "a container that ended could not be removed");
            }
            _ => self.tasks().events().deleted(namespace, id, &told),
        }
    }
}

/// What is done about a shim that was killed: its process is ended with it, and its word written.
fn after_death(bundle: &Path) -> Option<ExitStatus> {
    for _ in 0..RECOVERY_TRIES {
        match runtime_shim::recover(bundle) {
            Ok(exit) => return Some(exit),
            // While the kernel ends it, its socket may still take a connection.
            Err(RecoverError::Alive { .. }) => std::thread::sleep(RECOVERY_PAUSE),
            Err(error) => {
                tracing::warn!(%error, bundle = %bundle.display(), "what a killed shim left stays for now");
                return None;
            }
        }
    }
    None
}
