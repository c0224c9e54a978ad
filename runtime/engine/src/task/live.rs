//! One task: its shim, and those who wait for its processes.
//!
//! Waiting costs one thread for each process that somebody waits for, however many wait, and the thread ends with the
//! process. The first process is always waited for: by the thread that watches the shim (`watch`).

use std::collections::HashMap;
use std::io::{PipeReader, PipeWriter, pipe};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use prost_types::Timestamp;
use runtime_api::containerd::task::v2 as wire;
use storage_model::Namespace;
use storage_sys::process::Pidfd;

use super::TaskError;
use super::bundle::Bundle;
use super::link::{Link, exec_exit};
use super::program::Program;

/// Stack of a thread that waits, in bytes.
pub(super) const THREAD_STACK_BYTES: usize = 128 * 1024;

/// Exit status of a process that ended with its shim: by SIGKILL.
pub(super) const KILLED: u32 = 137;

/// How a process ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Exit {
    /// Its process id on this machine; 0 if it is not known any more.
    pub pid: u32,
    /// What a shell would report: its code, or 128 + n after signal n.
    pub status: u32,
    /// When.
    pub at: Option<Timestamp>,
}

impl Exit {
    pub(super) fn killed_now(pid: u32) -> Self {
        Self { pid, status: KILLED, at: Some(SystemTime::now().into()) }
    }
}

impl From<wire::DeleteResponse> for Exit {
    fn from(answer: wire::DeleteResponse) -> Self {
        Self { pid: answer.pid, status: answer.exit_status, at: answer.exited_at }
    }
}

/// What is done when a process has ended.
pub type Waiter = Box<dyn FnOnce(Result<Exit, TaskError>) + Send>;

/// A task.
pub(crate) struct Task {
    pub(super) namespace: Namespace,
    pub(super) bundle: Bundle,
    pub(super) program: Program,
    pub(super) link: Link,
    /// The shim's process; `None` if it could not be had, which is as good as ended.
    pub(super) shim: Option<Pidfd>,
    /// The first process, to be ended if the shim and its program both fail.
    init: Option<Pidfd>,
    pub(super) init_pid: u32,
    /// When it was made, or found again.
    begun: Instant,
    /// How the first process ended, once it has.
    ended: OnceLock<Exit>,
    /// By exec; the first process is the empty one.
    waiters: Mutex<HashMap<String, Vec<Waiter>>>,
    /// Closed when the task is taken away.
    kept: Mutex<Option<PipeWriter>>,
}

impl Task {
    /// A task whose shim has answered `greeting`. The reader comes to its end when the task is taken away.
    ///
    /// # Errors
    /// [`TaskError::Io`] if no pipe can be had.
    pub(super) fn new(
        namespace: &Namespace,
        bundle: Bundle,
        program: Program,
        link: Link,
        greeting: &wire::ConnectResponse,
    ) -> Result<(Arc<Self>, PipeReader), TaskError> {
        let (reader, writer) = pipe().map_err(TaskError::io("make a pipe for", &bundle.path))?;
        let task = Self {
            namespace: namespace.clone(),
            bundle,
            program,
            link,
            shim: Pidfd::open(greeting.shim_pid).ok(),
            init: Some(greeting.task_pid).filter(|pid| *pid != 0).and_then(|pid| Pidfd::open(pid).ok()),
            init_pid: greeting.task_pid,
            begun: Instant::now(),
            ended: OnceLock::new(),
            waiters: Mutex::default(),
            kept: Mutex::new(Some(writer)),
        };
        Ok((Arc::new(task), reader))
    }

    /// The container's name.
    pub(crate) fn id(&self) -> &str {
        &self.bundle.id
    }

    fn waiters(&self) -> MutexGuard<'_, HashMap<String, Vec<Waiter>>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For how long it has been known.
    pub(super) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// How the first process ended, if it has.
    pub(super) fn exit(&self) -> Option<&Exit> {
        self.ended.get()
    }

    /// Notes how the first process ended and tells those who wait. Whether it was not known before.
    pub(super) fn set_exit(&self, exit: Exit) -> bool {
        // Under the lock, so that nobody begins to wait in between and is never told.
        let mut all = self.waiters();
        let first = self.ended.set(exit.clone()).is_ok();
        let waiting = all.remove("").unwrap_or_default();
        drop(all);
        let exit = self.ended.get().cloned().unwrap_or(exit);
        waiting.into_iter().for_each(|waiter| waiter(Ok(exit.clone())));
        first
    }

    /// Has `waiter` called when a process has ended; `exec` is empty for the first one. At once if it has already.
    pub(super) fn when_ended(self: &Arc<Self>, exec: &str, waiter: Waiter) {
        let mut all = self.waiters();
        if exec.is_empty() {
            match self.ended.get().cloned() {
                Some(exit) => {
                    drop(all);
                    waiter(Ok(exit));
                }
                None => all.entry(String::new()).or_default().push(waiter),
            }
            return;
        }
        let waiting = all.entry(exec.to_owned()).or_default();
        waiting.push(waiter);
        if waiting.len() > 1 {
            return;
        }
        drop(all);
        let (task, exec_id) = (self.clone(), exec.to_owned());
        let thread = std::thread::Builder::new().name("exec-wait".to_owned()).stack_size(THREAD_STACK_BYTES);
        let spawned = thread.spawn(move || {
            let answer = task.link.wait(&exec_id);
            task.tell(&exec_id, || exec_exit(task.id(), &exec_id, &answer));
        });
        if let Err(error) = spawned {
            let path = self.bundle.path.clone();
            self.tell(exec, || {
                let source = std::io::Error::new(error.kind(), error.to_string());
                Err(TaskError::io("start a thread that waits for a process of", &path)(source))
            });
        }
    }

    fn tell(&self, exec: &str, outcome: impl Fn() -> Result<Exit, TaskError>) {
        let waiting = self.waiters().remove(exec).unwrap_or_default();
        waiting.into_iter().for_each(|waiter| waiter(outcome()));
    }

    /// Ends the first process without anybody's help.
    pub(super) fn kill_init(&self) {
        if let Some(init) = &self.init {
            // It has ended, then.
            let _ = init.signal(9);
        }
    }

    /// Tells the thread that watches that the task was taken away.
    pub(super) fn leave(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
