//! Standard input, output and error of a process: from what a client names to what the OCI runtime is given.
//!
//! A client names each by a fifo's path, or the output by an URI: `fifo:///path`, `file:///path` (appended to),
//! `binary:///path?key=value` (a logger, see [`logger`](super::logger)). The process gets pipes, and a thread a stream
//! copies (in the kernel, by `splice`): the client may go and come back, and its fifo is never the container's own file.
//! A process on a terminal gets its slave; the threads copy from and to the master.
//!
//! A fifo for output is opened for both directions, so that neither opening nor writing depends on a reader's presence.
//! Of one for input this process keeps a writing end, so that a client that goes away does not end the input; `CloseIO`
//! drops it, and the input ends when the client's own end is closed, too.
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use storage_sys::process::{Watch, poll};
use storage_sys::socket::Listener;
use storage_sys::terminal;

use super::logger::{self, Logger};
use super::reaper::Reaper;
use crate::stdio::{Relays, copy_in};

/// What a client wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

/// Whose the streams are: told to loggers, and owner of the pipes.
#[derive(Debug, Clone)]
pub(crate) struct Owner<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) container: &'a str,
    /// User and group that the pipes are given to; 0 leaves them.
    pub(crate) user: (u32, u32),
}

/// Why streams cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StreamError {
    /// What was named is not there, or refuses.
    #[error("cannot open {name:?} as a stream of the container")]
    Open {
        /// What was named.
        name: String,
        #[source]
        source: io::Error,
    },
    /// What was named is no fifo.
    #[error("{name:?} is no fifo: name one, or an URI with file:// or binary://")]
    NotAFifo {
        /// What was named.
        name: String,
    },
    /// Nobody knows what the URI means.
    #[error("{uri:?} is no stream: only fifo://, file:// and binary:// are")]
    Scheme {
        /// What was named.
        uri: String,
    },
    /// The logger did not come up.
    #[error("the logger {program} did not come up")]
    Logger {
        /// Its program.
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Pipes, threads, terminals.
    #[error("cannot set up the container's streams")]
    Set(#[from] io::Error),
}

/// The streams of a process that runs.
#[derive(Default)]
pub(crate) struct Streams {
    relays: Mutex<Relays>,
    keeper: Mutex<Option<OwnedFd>>,
    master: Option<File>,
    logger: Option<Logger>,
}

/// What the OCI runtime is given for a process without a terminal.
pub(crate) struct Given {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// A socket on which a terminal's master will arrive.
pub(crate) struct ConsoleSocket {
    listener: Listener,
    path: PathBuf,
}

impl Streams {
    /// Opens what `wanted` names, for a process without a terminal.
    ///
    /// # Errors
    /// [`StreamError`]; everything opened is closed again.
    pub(crate) fn open(
        wanted: &Wanted,
        owner: &Owner<'_>,
        reaper: &Reaper,
    ) -> Result<(Self, Given), StreamError> {
        let mut streams = Self::default();
        let stdin = match open_input(&wanted.stdin)? {
            Some((source, keeper)) => {
                streams.keeper = Mutex::new(Some(keeper));
                copy_in(source)?
            }
            None => null()?,
        };
        let (stdout, stderr) = streams.open_outputs(wanted, owner, reaper)?;
        let (uid, gid) = owner.user;
        if (uid, gid) != (0, 0) {
            for fd in [&stdin, &stdout, &stderr] {
                fchown(fd, Some(uid), Some(gid))?;
            }
        }
        Ok((streams, Given { stdin, stdout, stderr }))
    }

    fn open_outputs(
        &mut self,
        wanted: &Wanted,
        owner: &Owner<'_>,
        reaper: &Reaper,
    ) -> Result<(OwnedFd, OwnedFd), StreamError> {
        let relays = self.relays.get_mut().expect("nobody else has the streams yet");
        match Target::of(&wanted.stdout)? {
            Target::Logger(program, arguments) => {
                let (logger, stdout, stderr) = logger::start(&program, &arguments, owner, reaper)
                    .map_err(|source| StreamError::Logger { program, source })?;
                self.logger = Some(logger);
                Ok((stdout, stderr))
            }
            target => {
                let stdout = output(target, &wanted.stdout, relays)?;
                let stderr = if wanted.stderr == wanted.stdout && !wanted.stdout.is_empty() {
                    // One file outside is one pipe inside: what the process writes keeps its order.
                    stdout.try_clone()?
                } else {
                    output(Target::of(&wanted.stderr)?, &wanted.stderr, relays)?
                };
                Ok((stdout, stderr))
            }
        }
    }

    /// Connects the terminal whose master is `master` with what `wanted` names.
    ///
    /// # Errors
    /// [`StreamError`].
    pub(crate) fn on_terminal(
        master: OwnedFd,
        wanted: &Wanted,
        owner: &Owner<'_>,
        reaper: &Reaper,
    ) -> Result<Self, StreamError> {
        let mut streams = Self::default();
        let target = match Target::of(&wanted.stdout)? {
            Target::Logger(program, arguments) => {
                let (logger, stdout, _) = logger::start(&program, &arguments, owner, reaper)
                    .map_err(|source| StreamError::Logger { program, source })?;
                streams.logger = Some(logger);
                stdout
            }
            Target::Nowhere => null()?,
            target => target.open(&wanted.stdout)?,
        };
        let relays = streams.relays.get_mut().expect("nobody else has the streams yet");
        relays.copy_between(master.try_clone()?, target)?;
        if let Some((source, keeper)) = open_input(&wanted.stdin)? {
            streams.keeper = Mutex::new(Some(keeper));
            Relays::default().copy_between(source, master.try_clone()?)?;
        }
        streams.master = Some(File::from(master));
        Ok(streams)
    }

    /// Lets the input end when its writers have gone.
    pub(crate) fn close_input(&self) {
        self.keeper.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    }

    /// Sets the terminal's size; without a terminal nothing happens.
    ///
    /// # Errors
    /// Those of the terminal.
    pub(crate) fn resize(&self, size: terminal::Size) -> io::Result<()> {
        self.master.as_ref().map_or(Ok(()), |master| terminal::set_size(master, size))
    }

    /// Waits until what the process wrote has been passed on, or nobody took it for `limit`.
    pub(crate) fn finish(&self, limit: std::time::Duration) {
        self.close_input();
        let relays =
            std::mem::take(&mut *self.relays.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        relays.finish(limit);
    }
}

/// Where output goes.
enum Target {
    Nowhere,
    Fifo(PathBuf),
    File(PathBuf),
    Logger(PathBuf, Vec<String>),
}

impl Target {
    fn of(name: &str) -> Result<Self, StreamError> {
        if name.is_empty() {
            return Ok(Self::Nowhere);
        }
        let Some((scheme, rest)) = name.split_once("://") else { return Ok(Self::Fifo(name.into())) };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = PathBuf::from(logger::unescape(path));
        if !path.is_absolute() {
            return Err(StreamError::Scheme { uri: name.to_owned() });
        }
        match scheme {
            "fifo" => Ok(Self::Fifo(path)),
            "file" => Ok(Self::File(path)),
            "binary" => Ok(Self::Logger(path, logger::arguments(query))),
            _ => Err(StreamError::Scheme { uri: name.to_owned() }),
        }
    }

    fn open(&self, name: &str) -> Result<OwnedFd, StreamError> {
        let failed = |source| StreamError::Open { name: name.to_owned(), source };
        match self {
            Self::Nowhere => Ok(null()?),
            Self::Fifo(path) => {
                let file = File::options().read(true).write(true).open(path).map_err(failed)?;
                if !file.metadata().map_err(failed)?.file_type().is_fifo() {
                    return Err(StreamError::NotAFifo { name: name.to_owned() });
                }
                Ok(file.into())
            }
            Self::File(path) => {
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent).map_err(failed)?;
                }
                let file =
                    File::options().create(true).append(true).mode(0o644).open(path).map_err(failed)?;
                Ok(file.into())
            }
            Self::Logger(..) => Err(StreamError::Scheme { uri: name.to_owned() }),
        }
    }
}

/// The writing end for a process, and a thread that copies to the target.
fn output(target: Target, name: &str, relays: &mut Relays) -> Result<OwnedFd, StreamError> {
    if matches!(target, Target::Nowhere) {
        return Ok(null()?);
    }
    Ok(relays.copy_out(target.open(name)?)?)
}

/// The reading end of the fifo `name`, and a writing end of our own; `None` without a name.
fn open_input(name: &str) -> Result<Option<(OwnedFd, OwnedFd)>, StreamError> {
    if name.is_empty() {
        return Ok(None);
    }
    let failed = |source| StreamError::Open { name: name.to_owned(), source };
    let path = Path::new(name.strip_prefix("fifo://").unwrap_or(name));
    if !fs::metadata(path).map_err(failed)?.file_type().is_fifo() {
        return Err(StreamError::NotAFifo { name: name.to_owned() });
    }
    // For both directions first: it never waits, and with it open neither of the others does.
    let both = File::options().read(true).write(true).open(path).map_err(failed)?;
    let source = File::options().read(true).open(path).map_err(failed)?;
    let keeper = File::options().write(true).open(path).map_err(failed)?;
    drop(both);
    Ok(Some((source.into(), keeper.into())))
}

fn null() -> io::Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open("/dev/null")?.into())
}

impl ConsoleSocket {
    /// Listens as `name` in `bundle`.
    ///
    /// # Errors
    /// Those of binding.
    pub(crate) fn listen(bundle: &Path, name: &str) -> io::Result<Self> {
        Ok(Self { listener: Listener::bind_stream(bundle, name)?, path: bundle.join(name) })
    }

    /// The master, which the runtime has sent before it ended.
    ///
    /// # Errors
    /// `NotConnected` when it has sent none.
    pub(crate) fn receive(&self) -> io::Result<OwnedFd> {
        let mut watches = [Watch::readable(self.listener.as_fd())];
        if poll(&mut watches, Some(std::time::Duration::ZERO))? == 0 {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let received = self.listener.accept()?.receive()?.ok_or(io::ErrorKind::NotConnected)?;
        received.descriptors.into_iter().next().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
