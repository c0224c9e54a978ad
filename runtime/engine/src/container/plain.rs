//! Containers of `windlass run` as tasks: what containerd's clients see of them.
//!
//! Such a container ("plain") has a bundle with a shim of its own protocol and no task. While it runs it is shown as one;
//! what its shim cannot do a second one does (`task::second`). Once it has ended there is no task, as if it had been
//! deleted; its record stays, and how it ended stays in its bundle.

use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use prost_types::Timestamp;
use runtime_api::containerd::v1::types::{Process, Status as WireStatus};
use runtime_shim::{Client, ExitStatus, read_exit};
use storage_model::Namespace;

use super::{ContainerState, Status};
use crate::task::{Exit, TaskError, Waiter};
use crate::{Engine, EngineError};

/// How a plain container ended, as a task's end.
fn exit_of(exit: &ExitStatus) -> Exit {
    let at = UNIX_EPOCH + Duration::from_millis(exit.finished_unix_ms);
    Exit { pid: 0, status: exit.code.into(), at: Some(Timestamp::from(at)) }
}

impl Engine {
    /// The bundle of a plain container; `None` for others.
    pub(crate) fn plain_bundle(&self, namespace: &Namespace, id: &str) -> Option<PathBuf> {
        Some(self.bundle(namespace, id)).filter(|bundle| bundle.join("shim.json").exists())
    }

    /// A plain container as a task; `None` if it has ended, or is none.
    ///
    /// # Errors
    /// [`EngineError::NoContainer`].
    pub(crate) fn plain_process(
        &self,
        namespace: &Namespace,
        id: &str,
    ) -> Result<Option<Process>, EngineError> {
        self.record(namespace, id)?;
        if self.plain_bundle(namespace, id).is_none() {
            return Ok(None);
        }
        Ok(process_of(&self.container(namespace, id)?))
    }

    /// All plain containers that have not ended, as tasks.
    pub(crate) fn plain_processes(&self, namespace: &Namespace) -> Vec<Process> {
        let records = self.space(namespace).containers().unwrap_or_default();
        let plain = records.into_iter().filter(|record| {
            let id = record.id.as_str();
            !self.tasks().has(namespace, id) && self.plain_bundle(namespace, id).is_some()
        });
        plain.filter_map(|record| process_of(&self.state_of(namespace, record))).collect()
    }

    /// Has `waiter` called when a plain container has ended.
    ///
    /// # Errors
    /// [`EngineError::Shim`] if its shim cannot be asked.
    pub(crate) fn when_plain_ended(
        &self,
        namespace: &Namespace,
        id: &str,
        waiter: Waiter,
    ) -> Result<(), EngineError> {
        if let Some(exit) = read_exit(&self.bundle(namespace, id)).ok().flatten() {
            waiter(Ok(exit_of(&exit)));
            return Ok(());
        }
        let client = Client::connect(&self.socket(namespace, id));
        let client = client.map_err(|error| EngineError::shim(id)(error.into()))?;
        let name = id.to_owned();
        let thread = std::thread::Builder::new().name("plain-wait".to_owned()).stack_size(128 * 1024);
        let wait = move || {
            let ended = client.wait();
            waiter(ended.map(|exit| exit_of(&exit)).map_err(|_| TaskError::NoTask { id: name }));
        };
        thread.spawn(wait).map(drop).map_err(|source| {
            EngineError::io("wait for the container in", &self.bundle(namespace, id), source)
        })
    }

    /// What is left of a plain container's task once it has ended: how it did.
    ///
    /// # Errors
    /// [`EngineError::Running`].
    pub(crate) fn delete_plain(&self, namespace: &Namespace, id: &str) -> Result<Exit, EngineError> {
        match read_exit(&self.bundle(namespace, id)).ok().flatten() {
            Some(exit) => Ok(exit_of(&exit)),
            None => Err(EngineError::Running { id: id.to_owned() }),
        }
    }
}

fn process_of(state: &ContainerState) -> Option<Process> {
    let (pid, status) = match state.status {
        Status::Created => (0, WireStatus::Created),
        Status::Running { pid } => (pid, WireStatus::Running),
        Status::Exited { .. } | Status::Lost => return None,
    };
    Some(Process { id: state.record.id.to_string(), pid, status: status.into(), ..Process::default() })
}
