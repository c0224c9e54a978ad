//! The terminal of a container: its master arrives from the OCI runtime, is lent to clients, and is drained while no
//! client holds it, so that the process never stops for want of a reader.
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use storage_sys::process::{Watch, poll};
use storage_sys::socket::Listener;
use storage_sys::terminal::{self, Size};

use crate::task::Log;

/// Name of the socket in the bundle to which the runtime sends the master.
pub(crate) const CONSOLE_NAME: &str = "console.sock";

/// Most bytes read from a terminal at once: what the kernel holds for one.
const CHUNK_BYTES: usize = 16 * 1024;

/// A container's terminal.
#[derive(Debug)]
pub(crate) struct Console {
    listener: Listener,
    master: Option<File>,
    size: Option<Size>,
}

impl Console {
    /// Listens for the master in `bundle`.
    ///
    /// # Errors
    /// Those of binding the socket.
    pub(crate) fn listen(bundle: &Path, size: Option<Size>) -> io::Result<Self> {
        // A socket of a start that failed half-way may lie there.
        let _ = std::fs::remove_file(bundle.join(CONSOLE_NAME));
        Ok(Self { listener: Listener::bind_stream(bundle, CONSOLE_NAME)?, master: None, size })
    }

    /// Takes the master from the runtime, which has sent it before it ended.
    ///
    /// # Errors
    /// `NotConnected` when the runtime has sent none.
    pub(crate) fn receive(&mut self, bundle: &Path) -> io::Result<()> {
        let mut watches = [Watch::readable(self.listener.as_fd())];
        if poll(&mut watches, Some(Duration::ZERO))? == 0 {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let received = self.listener.accept()?.receive()?.ok_or(io::ErrorKind::NotConnected)?;
        let master = received.descriptors.into_iter().next().ok_or(io::ErrorKind::NotConnected)?;
        if let Some(size) = self.size {
            terminal::set_size(&master, size)?;
        }
        self.master = Some(File::from(master));
        let _ = std::fs::remove_file(bundle.join(CONSOLE_NAME));
        Ok(())
    }

    /// A second descriptor of the master, for a client.
    ///
    /// # Errors
    /// `NotConnected` before the start and after the end.
    pub(crate) fn lend(&self) -> io::Result<OwnedFd> {
        let master = self.master.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        Ok(master.try_clone()?.into())
    }

    /// What to watch while nobody else reads.
    pub(crate) fn readable(&self) -> Option<BorrowedFd<'_>> {
        self.master.as_ref().map(AsFd::as_fd)
    }

    /// Reads once what is there and appends it to `log`.
    pub(crate) fn drain(&mut self, log: Option<&mut Log>) {
        let Some(master) = &mut self.master else { return };
        let mut chunk = vec![0; CHUNK_BYTES];
        match master.read(&mut chunk) {
            Ok(count) if count > 0 => {
                if let Some(log) = log {
                    // A full disk must not stop the container.
                    let _ = log.write_all(&chunk[..count]);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // EIO: no process has the terminal open any more.
            Ok(_) | Err(_) => self.master = None,
        }
    }

    /// Reads all that is left after the process has ended.
    pub(crate) fn drain_rest(&mut self, mut log: Option<&mut Log>) {
        while let Some(fd) = self.readable() {
            let mut watches = [Watch::readable(fd)];
            if !matches!(poll(&mut watches, Some(Duration::ZERO)), Ok(1)) {
                break;
            }
            self.drain(log.as_deref_mut());
        }
        if let Some(log) = log {
            // As above.
            let _ = log.flush();
        }
    }
}
