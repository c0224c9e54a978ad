//! The client's end of a shim's socket.
//!
//! Calls block until the shim answers; one connection serves one call at a time. When the shim is gone because the
//! container has ended, its last word is read from `exit.json`, so [`Client::wait`] loses no status to a race.
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use storage_sys::socket::{Connection, Received};
use storage_sys::terminal::Size;

use crate::exit::{ExitStatus, read_exit};
use crate::protocol::{Failure, Phase, Request, Response, StateReport};

/// A connection to a shim.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
    bundle: PathBuf,
}

/// Why a shim did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens: the container has ended, or its shim was killed.
    #[error("the shim of this container is gone ({path})")]
    Gone {
        /// Its socket.
        path: PathBuf,
    },
    /// The shim refused.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The connection failed.
    #[error("cannot talk to the shim at {path}")]
    Io {
        /// Its socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The shim answered something else: a shim of another version.
    #[error("the shim at {path} gave an answer that does not belong to the question")]
    Answer {
        /// Its socket.
        path: PathBuf,
    },
}

impl Client {
    /// Connects to the shim that listens at `socket`.
    ///
    /// # Errors
    /// [`ClientError::Gone`] when nobody does.
    pub fn connect(socket: &Path) -> Result<Self, ClientError> {
        let bundle = socket.parent().unwrap_or(Path::new(".")).to_path_buf();
        match Connection::connect(socket) {
            Ok(connection) => Ok(Self { connection, bundle }),
            Err(error) if is_gone(&error) => Err(ClientError::Gone { path: socket.to_path_buf() }),
            Err(source) => Err(ClientError::Io { path: socket.to_path_buf(), source }),
        }
    }

    /// Starts the container with the given descriptors as its own; returns its process id.
    ///
    /// # Errors
    /// [`ClientError::Failed`] with exit code and words when it does not start.
    pub fn start_attached(
        &self,
        stdin: BorrowedFd<'_>,
        stdout: BorrowedFd<'_>,
        stderr: BorrowedFd<'_>,
    ) -> Result<u32, ClientError> {
        let (response, _) = self.call(&Request::StartAttached, &[stdin, stdout, stderr])?;
        self.started(response)
    }

    /// Starts the container on a terminal; returns its process id and the terminal's master, to be read, written and
    /// resized directly. While this connection is open, the shim does not read from the master.
    ///
    /// # Errors
    /// [`ClientError::Failed`].
    pub fn start_terminal(&self, size: Size) -> Result<(u32, OwnedFd), ClientError> {
        let request = Request::StartTerminal { rows: size.rows, columns: size.columns };
        let (response, descriptors) = self.call(&request, &[])?;
        let pid = self.started(response)?;
        let master = descriptors.into_iter().next().ok_or_else(|| self.unfitting())?;
        Ok((pid, master))
    }

    /// Starts the container with nobody attached; its output goes to the log.
    ///
    /// # Errors
    /// [`ClientError::Failed`].
    pub fn start_detached(&self) -> Result<u32, ClientError> {
        let (response, _) = self.call(&Request::StartDetached, &[])?;
        self.started(response)
    }

    /// The master of a running container's terminal, as [`Client::start_terminal`] gives it.
    ///
    /// # Errors
    /// [`ClientError::Failed`] without a terminal.
    pub fn attach(&self) -> Result<OwnedFd, ClientError> {
        match self.call(&Request::Attach, &[])? {
            (Response::Done, descriptors) => descriptors.into_iter().next().ok_or_else(|| self.unfitting()),
            _ => Err(self.unfitting()),
        }
    }

    /// How the container is doing.
    ///
    /// # Errors
    /// [`ClientError::Gone`] when the shim was killed.
    pub fn state(&self) -> Result<StateReport, ClientError> {
        match self.call(&Request::State, &[]) {
            Ok((Response::State(report), _)) => Ok(report),
            Ok(_) => Err(self.unfitting()),
            Err(ClientError::Gone { path }) => match self.exit_from_disk()? {
                Some(exit) => Ok(StateReport { phase: Phase::Ended, pid: None, exit: Some(exit) }),
                None => Err(ClientError::Gone { path }),
            },
            Err(error) => Err(error),
        }
    }

    /// Sends signal number `signal` to the container's process, or to all of them.
    ///
    /// # Errors
    /// [`ClientError::Failed`] before the start, after the end, or for a number that is no signal.
    pub fn kill(&self, signal: i32, all: bool) -> Result<(), ClientError> {
        match self.call(&Request::Kill { signal, all }, &[])? {
            (Response::Done, _) => Ok(()),
            _ => Err(self.unfitting()),
        }
    }

    /// Waits until the container has ended.
    ///
    /// # Errors
    /// [`ClientError::Gone`] when the shim was killed before it could tell.
    pub fn wait(&self) -> Result<ExitStatus, ClientError> {
        match self.call(&Request::Wait, &[]) {
            Ok((Response::Exited(status), _)) => Ok(status),
            Ok(_) => Err(self.unfitting()),
            Err(ClientError::Gone { path }) => self.exit_from_disk()?.ok_or(ClientError::Gone { path }),
            Err(error) => Err(error),
        }
    }

    /// Waits until the shim has taken the container's mount and runtime state away and is about to exit.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn wait_gone(self) -> Result<(), ClientError> {
        loop {
            match self.connection.receive() {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(error) if is_gone(&error) => return Ok(()),
                Err(source) => return Err(self.io(source)),
            }
        }
    }

    fn call(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(Response, Vec<OwnedFd>), ClientError> {
        let failed = |error: io::Error| if is_gone(&error) { self.gone() } else { self.io(error) };
        let text = serde_json::to_vec(request).map_err(|error| self.io(error.into()))?;
        self.connection.send(&text, descriptors, true).map_err(failed)?;
        let Received { bytes, descriptors } =
            self.connection.receive().map_err(failed)?.ok_or_else(|| self.gone())?;
        match serde_json::from_slice(&bytes).map_err(|_| self.unfitting())? {
            Response::Failed(failure) => Err(ClientError::Failed(failure)),
            response => Ok((response, descriptors)),
        }
    }

    fn started(&self, response: Response) -> Result<u32, ClientError> {
        match response {
            Response::Started { pid } => Ok(pid),
            _ => Err(self.unfitting()),
        }
    }

    fn exit_from_disk(&self) -> Result<Option<ExitStatus>, ClientError> {
        read_exit(&self.bundle).map_err(|source| self.io(source))
    }

    fn path(&self) -> PathBuf {
        crate::config::socket_path(&self.bundle)
    }

    fn gone(&self) -> ClientError {
        ClientError::Gone { path: self.path() }
    }

    fn unfitting(&self) -> ClientError {
        ClientError::Answer { path: self.path() }
    }

    fn io(&self, source: io::Error) -> ClientError {
        ClientError::Io { path: self.path(), source }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
    )
}
