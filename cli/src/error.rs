//! Why a command failed, and the exit code that says so.
//!
//! Not here: the words around an error and the advice below it (`words`).

use std::io;
use std::path::PathBuf;

use tonic::Status;

/// Exit codes, as `--help` promises them.
pub(crate) mod exit {
    /// Done.
    pub(crate) const OK: u8 = 0;
    /// Failed.
    pub(crate) const FAILURE: u8 = 1;
    /// Wrong usage.
    pub(crate) const USAGE: u8 = 2;
    /// `check` repaired all the damage it found.
    pub(crate) const REPAIRED: u8 = 1;
    /// `check` leaves damage behind.
    pub(crate) const DAMAGED: u8 = 2;
    /// `check` could not be done.
    pub(crate) const NOT_CHECKED: u8 = 3;
    /// `run` failed before there was a process.
    pub(crate) const NOT_STARTED: u8 = 125;
    /// Ended by signal n: this and n, as shells say it.
    pub(crate) const SIGNAL: u8 = 128;
}

/// Why a command failed. The message says what was tried on which thing; the source says why it did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CliError {
    /// The engine refused or failed.
    #[error("{what}")]
    Engine {
        /// What was asked of it: `pull docker.io/library/alpine:latest`.
        what: String,
        /// Its answer.
        source: Box<Status>,
    },
    /// The engine's socket does not answer.
    #[error("connect to the engine at {socket}")]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The engine that answers works on another root.
    #[error("the engine at {socket} works on {serves}, not on {wanted}")]
    WrongRoot {
        /// The socket.
        socket: PathBuf,
        /// Its root.
        serves: PathBuf,
        /// What the user said.
        wanted: PathBuf,
    },
    /// The socket's path is longer than the kernel takes (`unix(7)`: 107 bytes and a zero).
    #[error("the socket path {0} is longer than 107 bytes, which is all the kernel takes")]
    SocketPath(PathBuf),
    /// No engine answers and none could be started.
    #[error("start the engine")]
    Start(#[source] StartError),
    /// The engine in the foreground failed.
    #[error("run the engine")]
    Daemon(#[source] runtime_daemon::DaemonError),
    /// The container was made but its monitor does not do as asked.
    #[error("start the process of container {id}")]
    Shim {
        /// The container.
        id: String,
        /// Why.
        source: runtime_shim::ClientError,
    },
    /// A container could not be brought to run: exit code 125 instead of 1.
    #[error(transparent)]
    NotStarted(Box<CliError>),
    /// Nothing of that name.
    #[error("no {kind} is called {name:?} in namespace {namespace}")]
    NotFound {
        /// `image`, `container`.
        kind: &'static str,
        /// What was typed.
        name: String,
        /// Where it was looked for.
        namespace: String,
    },
    /// The beginning of several names.
    #[error("{given:?} is the beginning of more than one {kind}: {names}")]
    Ambiguous {
        /// `image`, `container`.
        kind: &'static str,
        /// What was typed.
        given: String,
        /// What it could be.
        names: String,
    },
    /// The image is here for several platforms, and the engine would run another than was asked for.
    #[error("{name} is here for {here} too, which would run instead of {wanted}")]
    OtherPlatform {
        /// The image.
        name: String,
        /// What would run.
        here: String,
        /// What was asked for.
        wanted: String,
    },
    /// An image that has no snapshots there.
    #[error("{name} is not unpacked for {snapshotter}")]
    NotUnpacked {
        /// The image.
        name: String,
        /// The snapshotter.
        snapshotter: String,
    },
    /// What was typed is no image name.
    #[error("{given:?} is not an image name")]
    Reference {
        /// What was typed.
        given: String,
        /// Why.
        source: storage_model::ReferenceError,
    },
    /// Content of an image is not what it should be.
    #[error("read image {name}")]
    Document {
        /// The image.
        name: String,
        /// Why.
        source: DocumentError,
    },
    /// A file or directory of the user.
    #[error("{what} {path}")]
    File {
        /// What was tried: `read`.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of an environment file.
    #[error("{path}, line {line}: {text:?} is not NAME=VALUE")]
    EnvironmentLine {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What it says.
        text: String,
    },
    /// `-e` without a name.
    #[error("-e {0:?} has no name before =")]
    Environment(String),
    /// `--entrypoint` begins like a JSON array of words and is none.
    #[error("--entrypoint {given} is not a JSON array of words")]
    Entrypoint {
        /// What was typed.
        given: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A template that cannot be filled in.
    #[error("--format")]
    Template(#[from] crate::output::template::TemplateError),
    /// Bytes for a terminal.
    #[error("{0} is not for a terminal")]
    Terminal(&'static str),
    /// A person where bytes were expected.
    #[error("standard input is a terminal, not {0}")]
    TerminalInput(&'static str),
    /// The editor did not do its work.
    #[error("edit with {editor}: it ended with {status}")]
    Editor {
        /// The command.
        editor: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// What was edited is no JSON.
    #[error("what was edited is no JSON document; it is in {path}")]
    Edited {
        /// Where it lies.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A registry that is asked without an engine.
    #[error("{what}")]
    Registry {
        /// What was asked: `fetch docker.io/library/alpine:latest`.
        what: String,
        /// Why not.
        source: storage_registry::RegistryError,
    },
    /// The address for others cannot be had.
    #[error("listen at {address}")]
    Listen {
        /// What was asked for.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// Serving others failed.
    #[error("serve images")]
    Serve(#[source] runtime_serve::ServeError),
    /// A registry sent other bytes than were asked for; they are on standard output.
    #[error("what was written is wrong: content of {expected} has digest {actual}")]
    WrongContent {
        /// What was asked for.
        expected: storage_model::Digest,
        /// What came.
        actual: storage_model::Digest,
    },
    /// Standard input is not what was expected of it.
    #[error("standard input has digest {actual}, not {expected}")]
    OtherContent {
        /// What was to be stored.
        expected: String,
        /// What came.
        actual: storage_model::Digest,
    },
    /// `check` could not be done: exit code 3, so that it is not taken for a result.
    #[error(transparent)]
    NotChecked(Box<CliError>),
    /// A password is needed and there is nobody to ask.
    #[error("ask for the password of {user}")]
    Password {
        /// User name.
        user: String,
        /// Why.
        source: io::Error,
    },
    /// A command without anything to do.
    #[error("there is nothing to do: {0}")]
    NothingToDo(&'static str),
    /// Output that is kept nowhere.
    #[error("what container {id} prints is kept nowhere: {why}", why = not_kept(.driver))]
    NoLog {
        /// The container.
        id: String,
        /// Where it goes instead.
        driver: String,
    },
    /// Both sides of a copy are here, or both are containers'.
    #[error("one side of cp is a container's, ID:PATH, and the other one is not")]
    CopySides,
    /// Signals, threads or the terminal of this process.
    #[error("set up {0}")]
    Process(&'static str, #[source] io::Error),
    /// Standard output.
    #[error("write to standard output")]
    Output(#[source] io::Error),
    /// A result that is no JSON.
    #[error("write the result as JSON")]
    Json(#[source] serde_json::Error),
    /// A signal asked us to end: Ctrl-C, or SIGTERM.
    #[error("interrupted by signal {0}")]
    Interrupted(u8),
    /// Each failure has been told already.
    #[error("{failed} of {all} failed")]
    Some {
        /// How many failed.
        failed: usize,
        /// Of how many.
        all: usize,
    },
}

/// Why no engine could be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StartError {
    /// A directory or file that the start needs.
    #[error("cannot {what} {path}")]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// This program cannot be started again.
    #[error("cannot start {program}")]
    Spawn {
        /// Its path.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended before it was ready.
    #[error("it ended at once{said}", said = last_words(.words, .log))]
    Ended {
        /// The last lines of its log.
        words: Vec<String>,
        /// The log.
        log: PathBuf,
    },
    /// It neither became ready nor ended.
    #[error("it was not ready after {seconds} s{said}", said = last_words(.words, .log))]
    Late {
        /// How long was waited.
        seconds: u64,
        /// The last lines of its log.
        words: Vec<String>,
        /// The log.
        log: PathBuf,
    },
}

fn not_kept(driver: &str) -> String {
    match driver {
        "" => "a client is attached to it".to_owned(),
        driver => format!("it goes to {}", crate::output::printable(driver)),
    }
}

fn last_words(words: &[String], log: &std::path::Path) -> String {
    if words.is_empty() {
        return format!(" and left nothing in {}", log.display());
    }
    let lines: Vec<String> =
        words.iter().map(|line| format!("\n  {}", crate::output::printable(line))).collect();
    format!("; the end of {}:{}", log.display(), lines.concat())
}

/// Why an image cannot be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DocumentError {
    /// A digest the engine gave is none.
    #[error(transparent)]
    Digest(#[from] storage_model::DigestError),
    /// The manifest or index.
    #[error(transparent)]
    Document(#[from] storage_model::DocumentError),
    /// The config.
    #[error(transparent)]
    Config(#[from] storage_model::ConfigError),
    /// An index inside an index, or a manifest where none may be.
    #[error("none of its manifests is here")]
    NoManifest,
    /// More bytes came than the document may have.
    #[error("content {0} is larger than a document may be")]
    TooLarge(String),
}

impl CliError {
    /// The exit code for this failure.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            // Whoever read our output has what they wanted.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => exit::OK,
            Self::Reference { .. }
            | Self::EnvironmentLine { .. }
            | Self::Environment(_)
            | Self::Entrypoint { .. }
            | Self::Template(_)
            | Self::Terminal(_)
            | Self::NothingToDo(_)
            | Self::CopySides
            | Self::TerminalInput(_) => exit::USAGE,
            Self::NotChecked(error) => match error.exit_code() {
                exit::FAILURE | exit::USAGE => exit::NOT_CHECKED,
                other => other,
            },
            Self::NotStarted(error) => match error.exit_code() {
                exit::FAILURE => exit::NOT_STARTED,
                other => other,
            },
            Self::Interrupted(signal) => exit::SIGNAL.saturating_add(*signal),
            _ => exit::FAILURE,
        }
    }

    /// Whether there is nothing to say: the reader went away, or it has been said.
    pub(crate) fn is_silent(&self) -> bool {
        match self {
            Self::Output(error) => error.kind() == io::ErrorKind::BrokenPipe,
            Self::NotStarted(error) | Self::NotChecked(error) => error.is_silent(),
            Self::Interrupted(_) => true,
            _ => false,
        }
    }

    /// The same failure, of a container that did not come to run.
    pub(crate) fn before_start(self) -> Self {
        Self::NotStarted(Box::new(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_usage_failure_interruption_and_not_started_apart() {
        let engine = || CliError::Engine { what: "x".to_owned(), source: Box::new(Status::not_found("y")) };
        let usage = || CliError::Environment("=x".to_owned());
        let pipe = CliError::Output(io::Error::from(io::ErrorKind::BrokenPipe));
        for (error, code) in [
            (engine(), 1),
            (engine().before_start(), 125),
            (usage(), 2),
            (usage().before_start(), 2),
            (CliError::Interrupted(2), 130),
            (CliError::Interrupted(15).before_start(), 143),
            (pipe, 0),
        ] {
            assert_eq!(error.exit_code(), code, "{error}");
        }
    }
}
