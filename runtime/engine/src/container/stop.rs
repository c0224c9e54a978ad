//! Ending containers in an orderly way: their stop signal, a time to end in, then SIGKILL.

use std::sync::mpsc;
use std::time::Duration;

use storage_content::ErrorKind;
use storage_model::Namespace;

use super::making::{STOP_SIGNAL, STOP_TIMEOUT};
use super::{Started, Status, signal};
use crate::{Engine, EngineError};

/// How long a container has to end after its stop signal, unless it or the caller says otherwise (docker's number).
const GRACE: Duration = Duration::from_secs(10);

/// Longest that the end after SIGKILL is waited for. A process in a system call that hangs does not end at all.
const DEATH: Duration = Duration::from_secs(30);

/// After SIGKILL, what is still there may be frozen, which defers even that.
const FROZEN: Duration = Duration::from_secs(1);

/// How a container was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Its exit code.
    pub code: u32,
    /// SIGKILL was needed.
    pub killed: bool,
}

impl Engine {
    /// Stops a container: `signal` (empty: its own), then after `grace` (none: its own) SIGKILL. Its policy does not start it
    /// again. One that has ended is left as it is.
    ///
    /// # Errors
    /// [`EngineError::SignalName`]; [`EngineError::Stuck`] if it outlives SIGKILL.
    pub fn stop_container(
        &self,
        namespace: &Namespace,
        id: &str,
        signal: &str,
        grace: Option<Duration>,
    ) -> Result<Stopped, EngineError> {
        let state = self.container(namespace, id)?;
        let label = |name: &str| state.record.labels.get(name).map(String::as_str).unwrap_or_default();
        let signal = if signal.is_empty() { label(STOP_SIGNAL) } else { signal };
        let signal = signal::number(if signal.is_empty() { "TERM" } else { signal })?;
        let own = label(STOP_TIMEOUT).parse().ok().map(Duration::from_secs);
        let grace = grace.or(own).unwrap_or(GRACE);
        self.note_wanted(namespace, id, false)?;
        match state.status {
            Status::Exited { code } => return Ok(Stopped { code, killed: false }),
            Status::Lost => return Ok(Stopped { code: 137, killed: false }),
            Status::Created | Status::Running { .. } => {}
        }
        let (sender, ended) = mpsc::channel();
        self.when_ended(namespace, id, "", Box::new(move |outcome| drop(sender.send(outcome))))?;
        let first = if matches!(state.status, Status::Created) { 9 } else { signal };
        unless_gone(self.kill_any(namespace, id, first))?;
        if let Ok(exit) = ended.recv_timeout(grace) {
            return Ok(Stopped { code: exit.map_or(137, |exit| exit.status), killed: first == 9 });
        }
        unless_gone(self.kill_any(namespace, id, 9))?;
        let mut exit = ended.recv_timeout(FROZEN);
        if exit.is_err() {
            // It is not paused, then.
            let _ = self.resume_task(namespace, id);
            exit = ended.recv_timeout(DEATH);
        }
        match exit {
            Ok(exit) => Ok(Stopped { code: exit.map_or(137, |exit| exit.status), killed: true }),
            Err(_) => Err(EngineError::Stuck { id: id.to_owned(), seconds: DEATH.as_secs() }),
        }
    }

    /// Stops a container if it runs, and starts it.
    ///
    /// # Errors
    /// Those of [`Engine::stop_container`] and of [`Engine::start_again`].
    pub fn restart_container(
        &self,
        namespace: &Namespace,
        id: &str,
        signal: &str,
        grace: Option<Duration>,
    ) -> Result<Started, EngineError> {
        self.stop_container(namespace, id, signal, grace)?;
        self.start_container(namespace, id, false)
    }

    /// Starts a container that has ended; its policy is obeyed from now on. Returns at once with `attach`: then the client
    /// starts the process.
    ///
    /// # Errors
    /// Those of [`Engine::start_again`].
    pub fn start_container(
        &self,
        namespace: &Namespace,
        id: &str,
        attach: bool,
    ) -> Result<Started, EngineError> {
        self.settle(namespace, id);
        let started = self.start_again(namespace, id, attach)?;
        self.note_wanted(namespace, id, true)?;
        Ok(started)
    }

    /// Sends a signal to a container's first process, whatever state it is in.
    fn kill_any(&self, namespace: &Namespace, id: &str, signal: u32) -> Result<(), EngineError> {
        if signal == 9 && !self.tasks().has(namespace, id) {
            return self.kill_waiting(namespace, id);
        }
        self.signal(namespace, id, "", signal, false)
    }
}

/// A process that has just ended needs no signal.
fn unless_gone(sent: Result<(), EngineError>) -> Result<(), EngineError> {
    match sent {
        Err(EngineError::NotRunning { .. }) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
