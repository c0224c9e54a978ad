//! The container's process, from the call of the OCI runtime to its end.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Stdio as Standard};
use std::time::Duration;

use runtime_container::runtime::{OciRuntime, RuntimeError};
use runtime_container::spec;
use storage_sys::process::{ChildExit, Pidfd, reap_any};
use storage_sys::terminal::Size;

use crate::config::{ShimConfig, spec_path};
use crate::console::{CONSOLE_NAME, Console};
use crate::prepare::Prepared;
use crate::protocol::{Failure, FailureKind};
use crate::stdio::{Relays, Stdio, shield};

/// How the process is to be connected.
pub(crate) enum Connect {
    /// To the client's descriptors.
    Client([OwnedFd; 3]),
    /// To a terminal of this size, `None` when nobody looks at it yet.
    Terminal(Option<Size>),
    /// To nothing, and to the log.
    Log,
}

/// The OCI runtime at work.
#[derive(Debug)]
pub(crate) struct Starting {
    child: Child,
    handle: Pidfd,
    console: Option<Console>,
    relays: Relays,
}

/// The process at work.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) pid: u32,
    pub(crate) handle: Pidfd,
    pub(crate) console: Option<Console>,
    pub(crate) relays: Relays,
}

fn internal(error: &dyn std::error::Error) -> Failure {
    Failure::of(FailureKind::Internal, error)
}

/// Calls the runtime; it is at work when this returns.
///
/// # Errors
/// A [`Failure`] when it cannot even be called, or when it is known that the program will not start.
pub(crate) fn start(
    config: &ShimConfig,
    runtime: &OciRuntime,
    prepared: &mut Prepared,
    connect: Connect,
) -> Result<Starting, Failure> {
    prepared.program.clone()?;
    let io_failed = |error: io::Error| internal(&error);
    let size = match &connect {
        Connect::Terminal(size) => *size,
        _ => None,
    };
    if let Some(size) = size {
        spec::set_console_size(&mut prepared.spec, size.rows, size.columns);
    }
    let text = serde_json::to_vec(&prepared.spec).map_err(|error| internal(&error))?;
    fs::write(spec_path(&config.bundle), text).map_err(io_failed)?;

    let console = match connect {
        Connect::Terminal(_) => Some(Console::listen(&config.bundle, size).map_err(io_failed)?),
        _ => None,
    };
    let mut command = runtime.run_command(&config.target(), console.as_ref().map(|_| CONSOLE_NAME));
    let mut relays = Relays::default();
    match connect {
        Connect::Client(descriptors) => {
            let uid = prepared.spec.process().as_ref().map_or(0, |process| process.user().uid());
            let (Stdio { stdin, stdout, stderr }, made) = shield(descriptors, uid).map_err(io_failed)?;
            relays = made;
            command.stdin(stdin).stdout(stdout).stderr(stderr);
        }
        // The runtime's own standard descriptors: the container's are the terminal.
        Connect::Terminal(_) => {
            command.stdout(Standard::null()).stderr(own_words(config).map_err(io_failed)?);
        }
        Connect::Log => {
            let (stdout, stderr) = log_ends(config, &mut relays).map_err(io_failed)?;
            command.stdin(Standard::null()).stdout(stdout).stderr(stderr);
        }
    }
    let path = runtime.path().to_path_buf();
    let child = command.spawn().map_err(|source| internal(&RuntimeError::Start { path, source }))?;
    let handle = Pidfd::open(child.id()).map_err(io_failed)?;
    Ok(Starting { child, handle, console, relays })
}

/// A file for what the runtime prints when its standard error is not the container's.
fn own_words(config: &ShimConfig) -> io::Result<File> {
    File::options().create(true).append(true).open(crate::config::log_path(&config.bundle))
}

/// Standard output and error of a container whose output is kept.
fn log_ends(config: &ShimConfig, relays: &mut Relays) -> io::Result<(Standard, Standard)> {
    match (&config.log, config.log_settings) {
        (Some(path), Some(settings)) => {
            let (stdout, stderr) = relays.keep(runtime_logs::Writer::open(path, settings)?)?;
            Ok((stdout.into(), stderr.into()))
        }
        (Some(path), None) => {
            let log = open_plain(path)?;
            Ok((log.try_clone()?.into(), log.into()))
        }
        (None, _) => Ok((Standard::null(), Standard::null())),
    }
}

/// Where a terminal's output goes that nobody looks at.
#[derive(Debug)]
pub(crate) enum Log {
    /// As it is, into one file.
    Plain(File),
    /// As entries, turned over.
    Kept(runtime_logs::Writer),
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(bytes),
            Self::Kept(writer) => writer.write(runtime_logs::Stream::Stdout, bytes).map(|()| bytes.len()),
        }
    }

    /// Nothing more comes: the last line may lack its end.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Kept(writer) => writer.end(runtime_logs::Stream::Stdout),
        }
    }
}

/// The container's log, if it has one.
pub(crate) fn open_log(config: &ShimConfig) -> io::Result<Option<Log>> {
    let Some(path) = &config.log else { return Ok(None) };
    Ok(Some(match config.log_settings {
        Some(settings) => Log::Kept(runtime_logs::Writer::open(path, settings)?),
        None => Log::Plain(open_plain(path)?),
    }))
}

fn open_plain(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

impl Starting {
    /// Readable when the runtime has ended.
    pub(crate) fn ended(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// Ends the runtime; [`Starting::finish`] then reports a failure.
    ///
    /// # Errors
    /// Those of sending a signal.
    pub(crate) fn abort(&self) -> io::Result<()> {
        self.handle.signal(9)
    }

    /// The process, now that the runtime has ended.
    ///
    /// # Errors
    /// A [`Failure`] in the runtime's words when the process did not start.
    pub(crate) fn finish(mut self, config: &ShimConfig, runtime: &OciRuntime) -> Result<Running, Failure> {
        let status = self.child.wait().map_err(|error| internal(&error))?;
        if !status.success() {
            let error = runtime.failure(&config.target(), status, "");
            let kind = match error {
                RuntimeError::ProgramNotFound { .. } => FailureKind::ProgramNotFound,
                RuntimeError::ProgramNotExecutable { .. } => FailureKind::ProgramNotExecutable,
                RuntimeError::WorkingDirectory { .. } | RuntimeError::Mount { .. } => {
                    FailureKind::InvalidArgument
                }
                _ => FailureKind::Internal,
            };
            self.relays.finish(Duration::from_secs(1));
            return Err(Failure::of(kind, &error));
        }
        let pid_file = config.target().pid_file();
        let pid = fs::read_to_string(&pid_file)
            .and_then(|text| text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into()))
            .map_err(|error: io::Error| {
                let path = pid_file.display();
                Failure::new(
                    FailureKind::Internal,
                    format!("the OCI runtime left no process id in {path}: {error}"),
                )
            })?;
        let handle = Pidfd::open(pid).map_err(|error| internal(&error))?;
        if let Some(console) = &mut self.console {
            console.receive(&config.bundle).map_err(|error| {
                Failure::new(FailureKind::Internal, format!("the OCI runtime sent no terminal: {error}"))
            })?;
        }
        Ok(Running { pid, handle, console: self.console, relays: self.relays })
    }
}

impl Running {
    /// Takes the status of every child that has ended, and returns the container's if it is among them.
    ///
    /// # Errors
    /// Those of `waitpid`.
    pub(crate) fn reap(&self) -> io::Result<Option<ChildExit>> {
        let mut found = None;
        while let Some((pid, exit)) = reap_any()? {
            // Others are what the runtime left behind: reaping them is all they need.
            if pid == self.pid {
                found = Some(exit);
            }
        }
        Ok(found)
    }
}
