//! Takes the status of every child, in one place, and hands each to who wants it.
//!
//! A shim is the parent of what it starts (OCI runtimes, loggers) and, as a subreaper, of what those leave behind: the
//! containers' processes, and orphans that nobody knows. One thread waits for any child; no signal handler exists, so a
//! storm of SIGCHLD means nothing.
//!
//! A status is never lost to a race:
//! - A child of our own is registered under the lock that the reaping thread needs, before its status can be taken.
//! - A process that an OCI runtime leaves behind is known only when the runtime has ended, and may be dead by then.
//!   While a [`Window`] is open, statuses that nobody wants are kept, and [`Reaper::adopt`] finds them.
use std::collections::HashMap;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};

use storage_sys::child;
use storage_sys::process::ChildExit;
use storage_sys::terminal::set_nonblocking;

/// Most of a program's standard error that is kept to explain its failure, in bytes. A pipe holds so much, so that the
/// program never waits for us to read.
const WORDS_BYTES_MAX: u64 = 16 * 1024;

/// Most statuses kept while a window is open: orphans that die meanwhile. Beyond it the container's own would have to
/// be behind a thousand others.
const UNCLAIMED_MAX: usize = 4096;

type Callback = Box<dyn FnOnce(ChildExit) + Send>;

/// The one that reaps.
#[derive(Default)]
pub(crate) struct Reaper {
    table: Mutex<Table>,
    spawned: Condvar,
}

#[derive(Default)]
struct Table {
    wanted: HashMap<u32, Callback>,
    unclaimed: HashMap<u32, ChildExit>,
    windows: usize,
    /// How many were ever started: what the reaping thread sleeps on while there is no child.
    started: u64,
}

/// How a program ended, with what it said on standard error.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) words: String,
}

/// While it lives, statuses that nobody wants yet are kept.
pub(crate) struct Window<'a>(&'a Reaper);

impl Reaper {
    /// A reaper, at work on a thread of its own.
    ///
    /// # Errors
    /// Those of starting the thread.
    pub(crate) fn start() -> io::Result<Arc<Self>> {
        let reaper = Arc::new(Self::default());
        let worker = Arc::clone(&reaper);
        super::thread("reaper", move || worker.work())?;
        Ok(reaper)
    }

    /// Starts `command`; `ended` is called once, on the reaping thread, when it has ended.
    ///
    /// # Errors
    /// Those of starting; `ended` is not called then.
    pub(crate) fn spawn(
        &self,
        command: &mut Command,
        ended: impl FnOnce(ChildExit) + Send + 'static,
    ) -> io::Result<Child> {
        // Under the lock: a program that cannot be executed leaves a child whose status std takes itself.
        let mut table = self.lock();
        let child = command.spawn()?;
        table.wanted.insert(child.id(), Box::new(ended));
        table.started += 1;
        self.spawned.notify_one();
        Ok(child)
    }

    /// Runs `command` to its end. Its standard error is kept for words unless `keep_stderr`, when it goes where the
    /// command says.
    ///
    /// # Errors
    /// Those of starting.
    pub(crate) fn run(&self, command: &mut Command, keep_stderr: bool) -> io::Result<Outcome> {
        let mut stderr = None;
        if !keep_stderr {
            let (reader, writer) = io::pipe()?;
            command.stderr(Stdio::from(writer));
            stderr = Some(reader);
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        self.spawn(command, move |exit| {
            // The receiver waits below for as long as it takes.
            let _ = sender.send(exit);
        })?;
        let exit = receiver.recv().map_err(|_| io::Error::other("the reaping thread has ended"))?;
        // Something the program left behind may still hold the other end: only what is there is read.
        let mut words = Vec::new();
        if let Some(reader) = stderr {
            set_nonblocking(reader.as_fd())?;
            let _ = reader.take(WORDS_BYTES_MAX).read_to_end(&mut words);
        }
        let words = String::from_utf8_lossy(&words).trim().to_owned();
        Ok(Outcome { status: status_of(exit), words })
    }

    /// Keeps statuses that nobody wants, for as long as the window lives.
    pub(crate) fn window(&self) -> Window<'_> {
        self.lock().windows += 1;
        Window(self)
    }

    /// Wants the status of a process that became a child while `_window` was open. `ended` is called at once when it
    /// has ended already, else on the reaping thread.
    pub(crate) fn adopt(
        &self,
        _window: &Window<'_>,
        pid: u32,
        ended: impl FnOnce(ChildExit) + Send + 'static,
    ) {
        let mut table = self.lock();
        match table.unclaimed.remove(&pid) {
            Some(exit) => {
                drop(table);
                ended(exit);
            }
            None => {
                table.wanted.insert(pid, Box::new(ended));
            }
        }
    }

    fn work(&self) {
        loop {
            let before = self.lock().started;
            match child::peek_ended() {
                Ok(Some(pid)) => self.take(pid),
                Ok(None) => {
                    let table = self.lock();
                    let wake = self.spawned.wait_while(table, |table| table.started == before);
                    drop(wake.unwrap_or_else(PoisonError::into_inner));
                }
                // It takes no argument that could be wrong, and interruptions are dealt with.
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(100)),
            }
        }
    }

    fn take(&self, pid: u32) {
        let mut table = self.lock();
        let Ok(Some(exit)) = child::reap(pid) else { return };
        match table.wanted.remove(&pid) {
            Some(ended) => {
                drop(table);
                ended(exit);
            }
            None if table.windows > 0 && table.unclaimed.len() < UNCLAIMED_MAX => {
                table.unclaimed.insert(pid, exit);
            }
            None => {}
        }
    }

    /// The table is whole whatever a holder of the lock did: every change is one call.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        let mut table = self.0.lock();
        table.windows -= 1;
        if table.windows == 0 {
            table.unclaimed.clear();
        }
    }
}

fn status_of(exit: ChildExit) -> ExitStatus {
    ExitStatus::from_raw(match exit {
        ChildExit::Exited(code) => (code & 0xff) << 8,
        ChildExit::Signaled(signal) => signal & 0x7f,
    })
}
