//! A server's end of the line to its keeper: nothing is served that is not kept, and a keeper that dies is replaced.
//!
//! Each message is answered before the next is sent. When the keeper is gone, the server starts another one
//! (`lazy-keeper --adopt`) and tells it everything that is in the [`Table`], so whoever changes something puts it into the
//! table first and tells the keeper then.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use storage_sys::fuse::Device;
use storage_sys::process::{Watch, poll};
use storage_sys::socket::{Connection, Listener};

use super::table::Table;
use crate::keeper;
use crate::keeper::protocol::{FromKeeper, Held, ToKeeper};
use crate::places::Places;
use crate::{spawn, wire};

/// Longest time a keeper takes to answer; it has one thread and does nothing that blocks.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How often another keeper is tried before the server goes on without one.
const ATTEMPTS: u32 = 5;

/// The line to the keeper.
pub(super) struct Link {
    places: Places,
    table: Arc<Table>,
    control: Listener,
    line: Mutex<Option<Connection>>,
}

/// What a server is given when it starts.
pub(super) struct Inheritance {
    pub(super) link: Link,
    pub(super) mounts: Vec<(Held, Device)>,
}

/// Calls the keeper and takes over what it has.
///
/// # Errors
/// Those of the socket; `InvalidData` when the keeper says something else.
pub(super) fn inherit(places: &Places, table: Arc<Table>) -> io::Result<Inheritance> {
    let line = Connection::connect(&keeper::socket(places))?;
    wire::send(&line, &ToKeeper::Hello { pid: std::process::id() }, &[])?;
    let mut mounts = Vec::new();
    let mut control = None;
    loop {
        let (message, descriptor) = receive(&line)?;
        match (message, descriptor) {
            (FromKeeper::Listener, Some(descriptor)) => control = Some(Listener::from(descriptor)),
            (FromKeeper::Mount(held), Some(descriptor)) => mounts.push((*held, Device::from(descriptor))),
            (FromKeeper::End, _) => break,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
    let control = control.ok_or(io::ErrorKind::InvalidData)?;
    let link = Link { places: places.clone(), table, control, line: Mutex::new(Some(line)) };
    Ok(Inheritance { link, mounts })
}

impl Link {
    /// The socket clients call.
    pub(super) fn control(&self) -> &Listener {
        &self.control
    }

    /// Has a connection kept: returns when it would outlive this process.
    pub(super) fn hold(&self, held: &Held, device: Option<&Device>) {
        let descriptors: Vec<_> = device.iter().map(|device| device.as_fd()).collect();
        self.tell(&ToKeeper::Hold(Box::new(held.clone())), &descriptors);
    }

    /// The connection has ended.
    pub(super) fn forget(&self, instance: u64) {
        self.tell(&ToKeeper::Forget { instance }, &[]);
    }

    /// Clients are answered from now on.
    pub(super) fn ready(&self) {
        self.tell(&ToKeeper::Ready, &[]);
    }

    /// Whether the keeper ends, and this server may.
    pub(super) fn leave(&self) -> bool {
        let mut line = self.line();
        line.as_ref().is_some_and(|open| matches!(call(open, &ToKeeper::Leave, &[]), Ok(FromKeeper::Kept)))
            && {
                *line = None;
                true
            }
    }

    /// What to watch for the keeper's death.
    pub(super) fn watch<T>(&self, act: impl FnOnce(Option<BorrowedFd<'_>>) -> T) -> T {
        // A duplicate, so that the line is free while somebody waits.
        let copy = self.line().as_ref().and_then(|line| line.as_fd().try_clone_to_owned().ok());
        act(copy.as_ref().map(AsFd::as_fd))
    }

    /// Something is to be read of the keeper although nobody asked, or it is gone: then another one is started.
    pub(super) fn check(&self) {
        let mut line = self.line();
        let dead = line.as_ref().is_none_or(|open| {
            let mut watches = [Watch::readable(open.as_fd())];
            poll(&mut watches, Some(Duration::ZERO)).is_ok_and(|count| count > 0)
        });
        if dead {
            *line = None;
            self.revive(&mut line);
        }
    }

    fn line(&self) -> MutexGuard<'_, Option<Connection>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the keeper, or another one, which is told everything anyway.
    fn tell(&self, message: &ToKeeper, descriptors: &[BorrowedFd<'_>]) {
        let mut line = self.line();
        if let Some(open) = &*line {
            match call(open, message, descriptors) {
                Ok(FromKeeper::Kept) => return,
                Ok(answer) => return tracing::error!(?answer, "the keeper refuses what it should keep"),
                Err(error) => tracing::warn!(%error, "the keeper does not answer"),
            }
        }
        *line = None;
        self.revive(&mut line);
    }

    fn revive(&self, line: &mut Option<Connection>) {
        for attempt in 1..=ATTEMPTS {
            match self.adopted() {
                Ok(open) => {
                    tracing::warn!("the keeper of lazy mounts ended; another one has taken over");
                    *line = Some(open);
                    return;
                }
                Err(error) => tracing::warn!(%error, attempt, "no other keeper came up"),
            }
        }
        tracing::error!("lazy mounts are served without a keeper: they will not outlive this server");
    }

    fn adopted(&self) -> io::Result<Connection> {
        spawn::keeper(&self.places, true).map_err(io::Error::other)?;
        let line = Connection::connect(&keeper::socket(&self.places))?;
        let kept =
            |message: &ToKeeper, descriptors: &[BorrowedFd<'_>]| match call(&line, message, descriptors)? {
                FromKeeper::Kept => Ok(()),
                _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
            };
        kept(&ToKeeper::Adopt { pid: std::process::id() }, &[])?;
        for (held, device, _) in self.table.all() {
            kept(&ToKeeper::Hold(Box::new(held)), &[device.as_fd()])?;
        }
        kept(&ToKeeper::Listener, &[self.control.as_fd()])?;
        kept(&ToKeeper::Ready, &[])?;
        Ok(line)
    }
}

fn call(line: &Connection, message: &ToKeeper, descriptors: &[BorrowedFd<'_>]) -> io::Result<FromKeeper> {
    wire::send(line, message, descriptors)?;
    receive(line).map(|(answer, _)| answer)
}

fn receive(line: &Connection) -> io::Result<(FromKeeper, Option<OwnedFd>)> {
    let mut watches = [Watch::readable(line.as_fd())];
    if poll(&mut watches, Some(ANSWER_TIMEOUT))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let (message, descriptors) = wire::receive(line)?.ok_or(io::ErrorKind::ConnectionReset)?;
    Ok((message, descriptors.into_iter().next()))
}
