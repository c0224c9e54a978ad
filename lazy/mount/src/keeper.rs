//! The keeper: a small process that holds what must outlive a server, and sees to it that there is one.
//!
//! ```text
//!                  +-- /dev/fuse of each connection, and what a successor needs to know of it
//! keeper holds ----+-- the control socket: calls wait in it while there is no server
//!                  +-- the lock: one keeper per state directory
//! server dies ---> the next one is started at once and is given all of it
//! keeper dies ---> its server starts another with `--adopt PID` and gives it all of it (`server/link.rs`)
//! ```
//! It reads no image, asks no registry, opens nothing on a mount, and has one thread. It ends when its server says that
//! nothing is left ([`ToKeeper::Leave`]). Only if keeper and server die at the same moment are mounts lost: their users get
//! `ENOTCONN`, and the next [`Client::mount`](crate::Client::mount) makes them anew.
//!
//! Not here: anything about FUSE (`session`), clients (`server`).

pub(crate) mod protocol;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ExitCode, Stdio};
use std::time::{Duration, Instant};

use storage_sys::process::{self, Pidfd, Watch, poll};
use storage_sys::socket::{Connection, Listener};

use crate::places::{CONTROL_SOCKET, Places};
use crate::{spawn, wire};
use protocol::{FromKeeper, Held, ToKeeper};

/// Name of the socket by which servers reach their keeper.
const KEEPER_SOCKET: &str = "lazy-keeper.sock";

/// Longest time a keeper waits for another one to end or to be up.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause between two looks at the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Longest pause before the next server, when servers die before they are ready.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Why a keeper ends other than in peace.
#[derive(Debug, thiserror::Error)]
enum KeeperError {
    /// Something about its own files or sockets.
    #[error("cannot {doing}")]
    Io {
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    /// Another keeper has the lock and nobody answers.
    #[error("another keeper holds {path} and does not answer")]
    Locked { path: std::path::PathBuf },
    /// The first server did not come up, and there is nothing to keep.
    #[error("its server ends before it is ready")]
    NoServer,
}

fn io_error(doing: &'static str) -> impl FnOnce(io::Error) -> KeeperError {
    move |source| KeeperError::Io { doing, source }
}

/// Runs the keeper of `places` until nothing is left to keep. With `adopt` it was started by the server with this process
/// id, whose keeper died.
///
/// The caller sends the log to standard error. What it writes to standard output is for whoever started it.
pub fn keeper_main(places: &Places, adopt: Option<u32>) -> ExitCode {
    match run(places, adopt) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            tracing::error!("the keeper of lazy mounts ends: {error}{}", cause.unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}

fn run(places: &Places, adopt: Option<u32>) -> Result<(), KeeperError> {
    detach(places);
    std::fs::create_dir_all(&places.state).map_err(io_error("make the state directory"))?;
    let Some(lock) = lock(places, adopt.is_some())? else {
        say_ready();
        return Ok(());
    };
    let door = bind(places, KEEPER_SOCKET).map_err(io_error("bind the keeper's socket"))?;
    let control = if adopt.is_some() {
        None
    } else {
        Some(bind(places, CONTROL_SOCKET).map_err(io_error("bind the control socket"))?)
    };
    let mut keeper = Keeper {
        places,
        door,
        control,
        held: BTreeMap::new(),
        server: None,
        link: None,
        failures: 0,
        seen_ready: false,
    };
    match adopt {
        None => keeper.start_server(),
        Some(pid) => {
            keeper.expect(pid)?;
            say_ready();
        }
    }
    let outcome = keeper.serve();
    // Released last: whoever gets it finds no socket of ours.
    drop(keeper);
    drop(lock);
    outcome
}

/// Makes this process independent of whoever started it.
fn detach(places: &Places) {
    // It may lead its group already, if it was started by hand.
    let _ = process::new_session();
    let _ = process::set_name("lazy-keeper");
    crate::life::protect();
    crate::life::own_namespace(places);
    if let Err(error) = process::close_on_exec_all() {
        tracing::warn!(%error, "descriptors may have been inherited");
    }
}

/// Takes the lock, or gives `None` if another keeper is at work. Who adopts knows that there is none.
fn lock(places: &Places, adopt: bool) -> Result<Option<File>, KeeperError> {
    let path = places.state.join("lazy.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io_error("open the lock"))?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(std::fs::TryLockError::Error(source)) => return Err(io_error("take the lock")(source)),
            Err(std::fs::TryLockError::WouldBlock) => {}
        }
        if !adopt && Connection::connect(&places.control()).is_ok() {
            return Ok(None);
        }
        if Instant::now() > deadline {
            return Err(KeeperError::Locked { path });
        }
        std::thread::sleep(LOCK_PAUSE);
    }
}

/// Binds a socket in the state directory; one that a dead process left there is no obstacle, as we have the lock.
fn bind(places: &Places, name: &str) -> io::Result<Listener> {
    match std::fs::remove_file(places.state.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    Listener::bind(&places.state, name)
}

/// The socket by which a server of `places` reaches its keeper.
pub(crate) fn socket(places: &Places) -> std::path::PathBuf {
    places.state.join(KEEPER_SOCKET)
}

fn say_ready() {
    // Whoever started us may be gone.
    let mut out = io::stdout().lock();
    let _ = out.write_all(spawn::READY).and_then(|()| out.flush());
}

/// The process that is served by.
struct Server {
    pid: u32,
    alive: Pidfd,
    /// Only of one this keeper started.
    child: Option<Child>,
    ready: bool,
}

struct Keeper<'a> {
    places: &'a Places,
    door: Listener,
    control: Option<Listener>,
    held: BTreeMap<u64, (Held, OwnedFd)>,
    server: Option<Server>,
    link: Option<Connection>,
    /// Servers in a row that ended before they were ready.
    failures: u32,
    seen_ready: bool,
}

/// What there is to do.
#[derive(Debug, Default)]
struct Events {
    server_died: bool,
    message: bool,
    caller: bool,
}

impl Keeper<'_> {
    /// The server `pid` is about to call. If it dies before, there is nothing to keep.
    fn expect(&mut self, pid: u32) -> Result<(), KeeperError> {
        let alive = Pidfd::open(pid).map_err(|_| KeeperError::NoServer)?;
        self.server = Some(Server { pid, alive, child: None, ready: false });
        Ok(())
    }

    fn serve(&mut self) -> Result<(), KeeperError> {
        loop {
            let events = self.wait().map_err(io_error("wait for a server"))?;
            if events.message && self.handle_message() {
                return Ok(());
            }
            if events.server_died {
                self.bury();
                if !self.seen_ready && self.held.is_empty() {
                    return Err(KeeperError::NoServer);
                }
                self.start_server();
            }
            if events.caller {
                match self.door.accept() {
                    Ok(connection) => self.link = Some(connection),
                    Err(error) => tracing::warn!(%error, "a server could not be let in"),
                }
            }
        }
    }

    fn wait(&self) -> io::Result<Events> {
        let mut watches = vec![Watch::readable(self.door.as_fd())];
        watches.extend(self.link.as_ref().map(|link| Watch::readable(link.as_fd())));
        watches.extend(self.server.as_ref().map(|server| Watch::readable(server.alive.as_fd())));
        poll(&mut watches, None)?;
        let mut ready = watches.iter().map(Watch::is_ready);
        Ok(Events {
            caller: ready.next().unwrap_or(false),
            message: self.link.is_some() && ready.next().unwrap_or(false),
            server_died: self.server.is_some() && ready.next().unwrap_or(false),
        })
    }

    /// Starts the next server. If the system refuses, it is tried again after a pause, as long as there is something to keep.
    fn start_server(&mut self) {
        loop {
            if self.failures > 3 {
                std::thread::sleep((Duration::from_millis(50) * self.failures).min(RESTART_PAUSE_MAX));
            }
            let started = spawn::command(self.places, spawn::SERVER_VERB)
                .and_then(|mut command| command.stdin(Stdio::null()).spawn())
                .and_then(|child| Ok((Pidfd::open(child.id())?, child)));
            match started {
                Ok((alive, child)) => {
                    self.server = Some(Server { pid: child.id(), alive, child: Some(child), ready: false });
                    return;
                }
                Err(error) => tracing::error!(%error, "no server for lazy mounts can be started"),
            }
            self.failures += 1;
        }
    }

    fn bury(&mut self) {
        self.link = None;
        let Some(mut server) = self.server.take() else { return };
        let status = server.child.as_mut().and_then(|child| child.wait().ok());
        self.failures = if server.ready { 0 } else { self.failures + 1 };
        let (pid, mounts) = (server.pid, self.held.len());
        let how = status.map_or_else(|| "in an unknown way".into(), |status| status.to_string());
        tracing::warn!(pid, mounts, "the server of lazy mounts ended ({how}); the next one is started");
    }

    /// Whether that was the end.
    fn handle_message(&mut self) -> bool {
        let Some(link) = self.link.take() else { return false };
        let (message, descriptors) = match wire::receive::<ToKeeper>(&link) {
            Ok(Some(message)) => message,
            // The server is dying; its handle tells when it is dead.
            Ok(None) => return false,
            Err(error) => {
                tracing::warn!(%error, "a server said something unintelligible");
                return false;
            }
        };
        let end = message == ToKeeper::Leave;
        let outcome = self.answer(&link, message, descriptors.into_iter().next());
        match outcome {
            Ok(FromKeeper::Kept) if end => {
                self.leave();
                // Its answer goes out when nobody can connect any more.
                let _ = wire::send(&link, &FromKeeper::Kept, &[]);
                return true;
            }
            Ok(answer) => {
                if let Err(error) = wire::send(&link, &answer, &[]) {
                    tracing::debug!(%error, "a server died while it was answered");
                    return false;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a server could not be answered");
                return false;
            }
        }
        self.link = Some(link);
        false
    }

    fn answer(
        &mut self,
        link: &Connection,
        message: ToKeeper,
        descriptor: Option<OwnedFd>,
    ) -> io::Result<FromKeeper> {
        Ok(match (message, descriptor) {
            (ToKeeper::Hello { .. }, _) => {
                // There is none if the server that adopted us died before it had handed it over.
                let control = match self.control.take() {
                    Some(control) => control,
                    None => bind(self.places, CONTROL_SOCKET)?,
                };
                let sent = wire::send(link, &FromKeeper::Listener, &[control.as_fd()]);
                self.control = Some(control);
                sent?;
                for (held, device) in self.held.values() {
                    wire::send(link, &FromKeeper::Mount(Box::new(held.clone())), &[device.as_fd()])?;
                }
                FromKeeper::End
            }
            (ToKeeper::Adopt { pid }, _) => {
                let is_expected = self.server.as_ref().is_some_and(|server| server.pid == pid);
                if is_expected { FromKeeper::Kept } else { FromKeeper::Refused }
            }
            (ToKeeper::Listener, Some(control)) => {
                self.control = Some(Listener::from(control));
                FromKeeper::Kept
            }
            (ToKeeper::Hold(held), descriptor) => match (self.held.remove(&held.instance), descriptor) {
                (_, Some(device)) | (Some((_, device)), None) => {
                    self.held.insert(held.instance, (*held, device));
                    FromKeeper::Kept
                }
                (None, None) => FromKeeper::Refused,
            },
            (ToKeeper::Forget { instance }, _) => {
                self.held.remove(&instance);
                FromKeeper::Kept
            }
            (ToKeeper::Ready, _) => {
                if let Some(server) = &mut self.server {
                    server.ready = true;
                }
                if !self.seen_ready {
                    say_ready();
                }
                self.seen_ready = true;
                FromKeeper::Kept
            }
            (ToKeeper::Leave, _) if self.held.is_empty() => FromKeeper::Kept,
            (ToKeeper::Leave | ToKeeper::Listener, _) => FromKeeper::Refused,
        })
    }

    /// Takes the sockets away, so that the next client starts a keeper of its own.
    fn leave(&mut self) {
        for path in [self.places.control(), socket(self.places)] {
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(%error, path = %path.display(), "a socket stays behind");
            }
        }
        self.control = None;
    }
}
