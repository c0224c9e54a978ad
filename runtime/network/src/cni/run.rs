//! Calling plug-ins: one program after the other, with a deadline each.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use storage_sys::process::{self, Pidfd, Watch};

use super::config::ConfigList;

/// How long one plug-in may take. Real ones take 10 to 100 ms; DHCP may take ten seconds.
const PLUGIN_WAIT: Duration = Duration::from_secs(60);

/// Longest answer that is read, in bytes; real ones have a few hundred.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// What a plug-in is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Delete,
    Check,
}

impl Verb {
    fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Delete => "DEL",
            Self::Check => "CHECK",
        }
    }
}

/// For whom plug-ins are called.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Directories with plug-ins, in order.
    pub(crate) directories: Vec<PathBuf>,
    /// `CNI_CONTAINERID`.
    pub(crate) container: String,
    /// `CNI_NETNS`.
    pub(crate) namespace: PathBuf,
    /// `CNI_IFNAME`.
    pub(crate) interface: String,
    /// `CNI_ARGS`; empty: none.
    pub(crate) arguments: String,
    /// What plug-ins with that capability get as `runtimeConfig`.
    pub(crate) capabilities: Value,
}

/// Why a plug-in did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// Its program is in none of the directories.
    #[error(
        "the CNI plug-in {name} is not in {directories}: install it (Debian: containernetworking-plugins)"
    )]
    Missing {
        /// Its type.
        name: String,
        /// Where it was looked for.
        directories: String,
    },
    /// It said why it refuses.
    #[error("the CNI plug-in {name} failed to {verb}: {message}")]
    Refused {
        /// Its type.
        name: String,
        /// ADD, DEL or CHECK.
        verb: &'static str,
        /// Its code (CNI specification, "Error").
        code: i64,
        /// Its words.
        message: String,
    },
    /// It ended otherwise than the protocol has it.
    #[error("the CNI plug-in {name} failed to {verb}, with {status}: {output}")]
    Broken {
        /// Its type.
        name: String,
        /// ADD, DEL or CHECK.
        verb: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The beginning of what it wrote.
        output: String,
    },
    /// It did not end; it was killed.
    #[error("the CNI plug-in {name} did not {verb} within {seconds} s")]
    Stuck {
        /// Its type.
        name: String,
        /// ADD, DEL or CHECK.
        verb: &'static str,
        /// How long it was waited for, in seconds.
        seconds: u64,
    },
    /// It could not be called.
    #[error("cannot call the CNI plug-in {name}")]
    Call {
        /// Its type.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// ADD through the list; the result of the last plug-in.
///
/// # Errors
/// [`PluginError`] of the first that fails; those before it have acted and want [`call_all_back`].
pub(crate) fn add(list: &ConfigList, call: &Call) -> Result<Value, PluginError> {
    let mut result: Option<Value> = None;
    for plugin in &list.plugins {
        let answer = one(list, plugin, call, Verb::Add, result.as_ref())?;
        // A plug-in that says nothing passes on what it was told (the specification has it print that itself).
        result = if answer.is_null() { result } else { Some(answer) };
    }
    Ok(result.unwrap_or(Value::Null))
}

/// CHECK through the list, against what ADD said.
///
/// # Errors
/// [`PluginError`] of the first that finds something amiss.
pub(crate) fn check(list: &ConfigList, call: &Call, result: &Value) -> Result<(), PluginError> {
    list.plugins.iter().try_for_each(|plugin| one(list, plugin, call, Verb::Check, Some(result)).map(drop))
}

/// DEL through the list, backwards. All plug-ins are called whatever the others say.
///
/// # Errors
/// [`PluginError`] of the first that failed.
pub(crate) fn call_all_back(
    list: &ConfigList,
    call: &Call,
    result: Option<&Value>,
) -> Result<(), PluginError> {
    let mut outcome = Ok(());
    for plugin in list.plugins.iter().rev() {
        match one(list, plugin, call, Verb::Delete, result) {
            // Uninstalled, or never there: nobody else can undo what it did.
            Err(error @ PluginError::Missing { .. }) => {
                tracing::warn!(%error, "a plug-in was not asked to undo")
            }
            one => outcome = outcome.and(one.map(drop)),
        }
    }
    outcome
}

fn one(
    list: &ConfigList,
    plugin: &Value,
    call: &Call,
    verb: Verb,
    before: Option<&Value>,
) -> Result<Value, PluginError> {
    let name = plugin["type"].as_str().unwrap_or_default();
    let program = call.directories.iter().map(|directory| directory.join(name)).find(|path| path.is_file());
    let program = program.ok_or_else(|| PluginError::Missing {
        name: name.to_owned(),
        directories: joined(&call.directories, ", "),
    })?;
    let input = list.input(plugin, &call.capabilities, before);
    let mut command = Command::new(program);
    command
        .env("CNI_COMMAND", verb.as_str())
        .env("CNI_CONTAINERID", &call.container)
        .env("CNI_NETNS", &call.namespace)
        .env("CNI_IFNAME", &call.interface)
        .env("CNI_PATH", joined(&call.directories, ":"))
        .env_remove("CNI_ARGS")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if !call.arguments.is_empty() {
        command.env("CNI_ARGS", &call.arguments);
    }
    let failed = |source| PluginError::Call { name: name.to_owned(), source };
    let finished = finish(command, input.to_string().into_bytes()).map_err(failed)?;
    tracing::debug!(plugin = name, verb = verb.as_str(), container = call.container, "called a plug-in");
    match finished {
        Some(finished) => finished.answer(name, verb.as_str()),
        None => {
            let seconds = PLUGIN_WAIT.as_secs();
            Err(PluginError::Stuck { name: name.to_owned(), verb: verb.as_str(), seconds })
        }
    }
}

fn joined(directories: &[PathBuf], by: &str) -> String {
    directories.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>().join(by)
}

/// A plug-in that has ended.
struct Finished {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Finished {
    fn answer(self, name: &str, verb: &'static str) -> Result<Value, PluginError> {
        let name = name.to_owned();
        let blank = self.stdout.iter().all(u8::is_ascii_whitespace);
        let said = if blank { Some(Value::Null) } else { serde_json::from_slice(&self.stdout).ok() };
        match said {
            Some(value) if self.status.success() => Ok(value),
            Some(value) if value["msg"].is_string() => {
                let part = |key: &str| value[key].as_str().filter(|text| !text.is_empty());
                let message =
                    [part("msg"), part("details")].into_iter().flatten().collect::<Vec<_>>().join(": ");
                Err(PluginError::Refused { name, verb, code: value["code"].as_i64().unwrap_or(0), message })
            }
            _ => {
                let output = if blank { &self.stderr } else { &self.stdout };
                let output = String::from_utf8_lossy(output).trim().chars().take(500).collect();
                Err(PluginError::Broken { name, verb, status: self.status, output })
            }
        }
    }
}

/// Runs `command` to its end; `None` when it had to be killed.
fn finish(mut command: Command, input: Vec<u8>) -> io::Result<Option<Finished>> {
    let mut child = command.spawn()?;
    let handle = Pidfd::open(child.id())?;
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(io::Error::other("a pipe to the plug-in is missing"));
    };
    // Small enough for any pipe, but a program may be slow to read, or not read at all: the error is its own affair.
    thread::spawn(move || stdin.write_all(&input));
    let (stdout, stderr) = (collect(stdout), collect(stderr));
    let status = wait(&mut child, &handle)?;
    let Some(status) = status else { return Ok(None) };
    // What it left running may hold the pipes: what has arrived by then is all there is.
    let take =
        |bytes: mpsc::Receiver<Vec<u8>>| bytes.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
    Ok(Some(Finished { status, stdout: take(stdout), stderr: take(stderr) }))
}

fn collect(from: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that fails ends the answer, which is then not JSON.
        let _ = from.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

/// How `child` ended; `None` when it did not within [`PLUGIN_WAIT`], after which it is dead.
fn wait(child: &mut Child, handle: &Pidfd) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + PLUGIN_WAIT;
    let mut watches = [Watch::readable(handle.as_fd())];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        process::poll(&mut watches, Some(left))?;
        if watches[0].is_ready() {
            return child.wait().map(Some);
        }
        // A signal may have ended the wait early.
        if left.is_zero() {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
    }
}
