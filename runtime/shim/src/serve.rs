//! The shim process: one loop over its socket, its clients, the OCI runtime or the container's process, and the
//! terminal while nobody else reads it.
//!
//! No signal handler exists: the end of a process is read from its handle, so a storm of SIGCHLD means nothing.
//! Clients never block the loop: they are read only when something has arrived, and an answer that a client does not
//! take is dropped with the client.
mod answers;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use runtime_container::runtime::OciRuntime;
use storage_sys::process::{self, Watch, poll};
use storage_sys::socket::{Connection, Listener, Received};

use crate::config::{SOCKET_NAME, ShimConfig, socket_path};
use crate::console::Console;
use crate::exit::{ExitStatus, write_exit};
use crate::prepare::{Prepared, prepare};
use crate::protocol::{Failure, FailureKind, Request, Response};
use crate::spawn::READY;
use crate::task::{Log, Running, Starting, open_log};

/// Longest time between creation and start. Who made the shim starts it at once, or has died.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest time that output still on its way may keep an ended container from being reported.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that a shim stays for who started its container and has not asked yet how it ended.
const FAREWELL: Duration = Duration::from_secs(2);

/// Most clients at once; more are turned away. A container has one or two.
const CLIENTS_MAX: usize = 128;

/// The shim of the bundle at `bundle`: returns when the container has ended and nothing is left of it.
///
/// To be called first thing in a process of its own, while that has one thread. It prints `ready` when its socket
/// listens; whatever goes wrong before is said on standard error.
pub fn main(bundle: &Path) -> ExitCode {
    match Shim::open(bundle) {
        Ok(shim) => {
            shim.run();
            ExitCode::SUCCESS
        }
        Err(error) => {
            let failure = Failure::of(FailureKind::Internal, &*error);
            let _ = writeln!(io::stderr(), "{failure}");
            ExitCode::FAILURE
        }
    }
}

enum State {
    Waiting(Box<Result<Prepared, Failure>>),
    Starting {
        work: Starting,
        prepared: Box<Prepared>,
        client: u64,
        /// Whether that client gets the terminal.
        lend: bool,
    },
    Running {
        work: Running,
        prepared: Box<Prepared>,
    },
    /// Only while moving from one state to the next.
    Moving,
}

struct Peer {
    id: u64,
    connection: Connection,
    waits: bool,
    holds_terminal: bool,
    /// It was told that the container runs, and nothing of its end yet.
    expects_end: bool,
}

struct Shim {
    config: ShimConfig,
    runtime: OciRuntime,
    listener: Listener,
    peers: Vec<Peer>,
    next_id: u64,
    state: State,
    ended: Option<ExitStatus>,
    /// At its end when the OCI runtime has forgotten the container.
    cleaning: Option<io::PipeReader>,
    log: Option<Log>,
    start_deadline: Instant,
}

#[derive(Clone, Copy)]
enum Source {
    Listener,
    Peer(u64),
    Process,
    Terminal,
    Cleaned,
}

type Answer = (Response, Option<OwnedFd>);

impl Shim {
    fn open(bundle: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        process::close_on_exec_all()?;
        // It fails only where this process already leads a group, as when called by hand from a shell.
        let _ = process::new_session();
        let _ = process::set_name("windlass-shim");
        process::set_umask(0o022);
        let config = ShimConfig::read(bundle)?;
        process::become_subreaper()?;
        process::own_mount_namespace()?;
        let listener = Listener::bind(&config.bundle, SOCKET_NAME)?;
        io::stdout().write_all(READY)?;
        io::stdout().flush()?;
        process::replace_stdout(File::options().write(true).open("/dev/null")?)?;
        let prepared = prepare(&config);
        Ok(Self {
            runtime: OciRuntime::at(&config.runtime),
            log: open_log(&config).unwrap_or(None),
            config,
            listener,
            peers: Vec::new(),
            next_id: 0,
            state: State::Waiting(Box::new(prepared)),
            ended: None,
            cleaning: None,
            start_deadline: Instant::now() + START_TIMEOUT,
        })
    }

    fn run(mut self) {
        while self.ended.is_none() {
            for source in self.wait() {
                self.handle(source);
            }
            if matches!(self.state, State::Waiting(_)) && Instant::now() >= self.start_deadline {
                let words = format!("nobody started the container within {} s", START_TIMEOUT.as_secs());
                self.fail(&Failure::new(FailureKind::Internal, words));
            }
        }
        let root = self.report_end();
        while self.cleaning.is_some() {
            for source in self.wait() {
                self.handle(source);
            }
        }
        drop(root);
        let _ = std::fs::remove_file(socket_path(&self.config.bundle));
        self.answer_the_last();
    }

    /// Waits for something to do.
    fn wait(&self) -> Vec<Source> {
        let mut sources = vec![Source::Listener];
        let mut watches = vec![Watch::readable(self.listener.as_fd())];
        for peer in &self.peers {
            sources.push(Source::Peer(peer.id));
            watches.push(Watch::readable(peer.connection.as_fd()));
        }
        if let Some(fd) = self.process() {
            sources.push(Source::Process);
            watches.push(Watch::readable(fd));
        }
        if let Some(fd) = self.unread_terminal() {
            sources.push(Source::Terminal);
            watches.push(Watch::readable(fd));
        }
        if let Some(reader) = &self.cleaning {
            sources.push(Source::Cleaned);
            watches.push(Watch::readable(reader.as_fd()));
        }
        let limit = matches!(self.state, State::Waiting(_))
            .then(|| self.start_deadline.saturating_duration_since(Instant::now()));
        if poll(&mut watches, limit).is_err() {
            // Only memory can be lacking; do not spin.
            std::thread::sleep(Duration::from_millis(50));
            return Vec::new();
        }
        sources
            .into_iter()
            .zip(&watches)
            .filter(|(_, watch)| watch.is_ready())
            .map(|(source, _)| source)
            .collect()
    }

    fn process(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Starting { work, .. } => Some(work.ended()),
            State::Running { work, .. } => Some(work.handle.as_fd()),
            State::Waiting(_) | State::Moving => None,
        }
    }

    fn unread_terminal(&self) -> Option<BorrowedFd<'_>> {
        if self.peers.iter().any(|peer| peer.holds_terminal) {
            return None;
        }
        self.console().and_then(Console::readable)
    }

    fn console(&self) -> Option<&Console> {
        match &self.state {
            State::Running { work, .. } => work.console.as_ref(),
            _ => None,
        }
    }

    fn handle(&mut self, source: Source) {
        match source {
            Source::Listener => self.accept(),
            Source::Peer(id) => self.serve(id),
            Source::Process => self.process_ended(),
            Source::Cleaned => self.cleaning = None,
            Source::Terminal => {
                if let State::Running { work: Running { console: Some(console), .. }, .. } = &mut self.state {
                    console.drain(self.log.as_mut());
                }
            }
        }
    }

    fn accept(&mut self) {
        let Ok(connection) = self.listener.accept() else {
            // No descriptor left: the connection waits in the queue meanwhile.
            std::thread::sleep(Duration::from_millis(10));
            return;
        };
        let allowed = connection.peer_uid().is_ok_and(|uid| uid == 0 || uid == process::effective_uid());
        if !allowed || self.peers.len() >= CLIENTS_MAX {
            return;
        }
        self.next_id += 1;
        self.peers.push(Peer {
            id: self.next_id,
            connection,
            waits: false,
            holds_terminal: false,
            expects_end: false,
        });
    }

    /// Reads one request of client `id` and answers it, now or later.
    fn serve(&mut self, id: u64) {
        let Some(peer) = self.peers.iter().find(|peer| peer.id == id) else { return };
        let Ok(Some(Received { bytes, descriptors })) = peer.connection.receive() else {
            self.peers.retain(|peer| peer.id != id);
            return;
        };
        let answer = match serde_json::from_slice::<Request>(&bytes) {
            Ok(request) => self.answer(id, &request, descriptors),
            Err(error) => Some(answers::refused(FailureKind::BadRequest, format!("not a request: {error}"))),
        };
        if let Some((response, descriptor)) = answer {
            self.send(id, &response, descriptor.as_ref());
        }
    }

    /// The runtime, or the container's process, has ended.
    fn process_ended(&mut self) {
        match std::mem::replace(&mut self.state, State::Moving) {
            State::Starting { work, prepared, client, lend } => {
                match work.finish(&self.config, &self.runtime) {
                    Ok(work) => {
                        let pid = work.pid;
                        self.state = State::Running { work, prepared };
                        let lent = lend.then(|| self.lend_terminal(client).1).flatten();
                        self.send(client, &Response::Started { pid }, lent.as_ref());
                    }
                    Err(failure) => {
                        self.fail(&failure);
                        self.send(client, &Response::Failed(failure), None);
                    }
                }
            }
            State::Running { work, prepared } => {
                match work.reap() {
                    Ok(Some(exit)) => self.ended = Some(ExitStatus::of_process(exit)),
                    Ok(None) => {}
                    Err(error) => self.fail(&Failure::of(FailureKind::Internal, &error)),
                }
                self.state = State::Running { work, prepared };
            }
            other => self.state = other,
        }
    }

    fn fail(&mut self, failure: &Failure) {
        self.ended = Some(ExitStatus::of_failure(failure));
    }

    /// Sends without waiting; a client that does not read is dropped.
    fn send(&mut self, id: u64, response: &Response, descriptor: Option<&OwnedFd>) {
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == id) else { return };
        match response {
            Response::Started { .. } => peer.expects_end = true,
            Response::Exited(_) => peer.expects_end = false,
            Response::Done | Response::State(_) | Response::Failed(_) => {}
        }
        let descriptors: Vec<BorrowedFd<'_>> = descriptor.iter().map(|fd| fd.as_fd()).collect();
        let sent = serde_json::to_vec(response)
            .map_err(io::Error::from)
            .and_then(|text| peer.connection.send(&text, &descriptors, false));
        if sent.is_err() {
            self.peers.retain(|peer| peer.id != id);
        }
    }

    /// Brings the status to disk, then to who waits, and has the OCI runtime forget the container meanwhile. What is
    /// returned keeps the root mounted.
    fn report_end(&mut self) -> Option<Box<Prepared>> {
        let status = self.ended.clone()?;
        let held = self.peers.iter().any(|peer| peer.holds_terminal);
        let root = match std::mem::replace(&mut self.state, State::Moving) {
            State::Running { mut work, prepared } => {
                work.relays.finish(OUTPUT_TIMEOUT);
                if let Some(console) = work.console.as_mut().filter(|_| !held) {
                    console.drain_rest(self.log.as_mut());
                }
                Some(prepared)
            }
            State::Starting { prepared, .. } => Some(prepared),
            State::Waiting(_) | State::Moving => None,
        };
        if let Err(error) = write_exit(&self.config.bundle, &status) {
            let _ = writeln!(io::stderr(), "cannot write how the container ended: {error}");
        }
        let waiting: Vec<u64> = self.peers.iter().filter(|peer| peer.waits).map(|peer| peer.id).collect();
        for id in waiting {
            self.send(id, &Response::Exited(status.clone()), None);
        }
        match forget(self.config.clone(), self.runtime.clone()) {
            Ok(reader) => self.cleaning = Some(reader),
            Err(error) => {
                let _ = writeln!(io::stderr(), "cannot call the OCI runtime: {error}");
            }
        }
        root
    }

    /// Answers what arrived while everything was being taken away, and waits a moment for who started the container: it is
    /// about to ask. The other clients read `exit.json`, which goes with the container if that is removed at its end.
    fn answer_the_last(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        let ids: Vec<u64> = self.peers.iter().map(|peer| peer.id).collect();
        for id in ids {
            while let Some(peer) = self.peers.iter().find(|peer| peer.id == id) {
                let patience = match peer.expects_end {
                    true => deadline.saturating_duration_since(Instant::now()),
                    false => Duration::ZERO,
                };
                let mut watches = [Watch::readable(peer.connection.as_fd())];
                if !matches!(poll(&mut watches, Some(patience)), Ok(1)) {
                    break;
                }
                self.serve(id);
            }
        }
    }
}

/// Has the OCI runtime forget the ended container, on a thread of its own: who asks meanwhile is answered. The reader
/// comes to its end when that is done.
fn forget(config: ShimConfig, runtime: OciRuntime) -> io::Result<io::PipeReader> {
    let (reader, writer) = io::pipe()?;
    let work = move || {
        let target = config.target();
        if let Err(error) = runtime.delete(&target, false).or_else(|_| runtime.delete(&target, true)) {
            let _ = writeln!(io::stderr(), "{}", Failure::of(FailureKind::Internal, &error));
        }
        drop(writer);
    };
    std::thread::Builder::new().name("forget".into()).stack_size(128 * 1024).spawn(work)?;
    Ok(reader)
}
