//! Loggers: programs that take a container's output (`binary://` URIs).
//!
//! As containerd starts them: descriptor 3 is the container's standard output, 4 its standard error, 5 is closed by the
//! logger when it is ready; `CONTAINER_ID` and `CONTAINER_NAMESPACE` say whose output it is; the keys and values of the
//! URI's query are its arguments. It ends when both outputs have ended.
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use storage_sys::child::with_descriptors;
use storage_sys::process::{Watch, poll};

use super::reaper::Reaper;
use super::streams::Owner;

/// Longest time a logger may take to be ready: containerd's own limit.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// A logger at work. It ends by itself.
#[derive(Debug)]
pub(crate) struct Logger {
    _pid: u32,
}

/// Starts a logger; returns the ends to which the process's output and error go.
///
/// # Errors
/// Those of starting; `TimedOut` when it is not ready in time (it is killed then), `UnexpectedEof` when it ended.
pub(crate) fn start(
    program: &Path,
    arguments: &[String],
    owner: &Owner<'_>,
    reaper: &Reaper,
) -> io::Result<(Logger, OwnedFd, OwnedFd)> {
    let (stdout, stdout_writer) = io::pipe()?;
    let (stderr, stderr_writer) = io::pipe()?;
    let (mut ready, ready_writer) = io::pipe()?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.env("CONTAINER_ID", owner.container).env("CONTAINER_NAMESPACE", owner.namespace);
    with_descriptors(&mut command, vec![stdout.into(), stderr.into(), ready_writer.into()])?;
    let mut child = reaper.spawn(&mut command, |_| {})?;
    // Our copies of its descriptors go with the command: the logger's own end alone counts from here.
    drop(command);
    let mut watches = [Watch::readable(ready.as_fd())];
    if poll(&mut watches, Some(READY_TIMEOUT))? == 0 {
        let _ = child.kill();
        return Err(io::ErrorKind::TimedOut.into());
    }
    // A byte or the end: either says ready.
    let _ = ready.read(&mut [0])?;
    Ok((Logger { _pid: child.id() }, stdout_writer.into(), stderr_writer.into()))
}

/// Arguments of a query: keys and values in turn.
pub(crate) fn arguments(query: &str) -> Vec<String> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .flat_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            [unescape(&key.replace('+', " ")), unescape(&value.replace('+', " "))]
        })
        .filter(|word| !word.is_empty())
        .collect()
}

/// Text with its `%xx` replaced; what is no escape stays.
pub(crate) fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = text.get(at + 1..at + 3).filter(|_| byte == b'%');
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                out.push(value);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_becomes_arguments() {
        assert_eq!(arguments("log=%2Fa%20b&verbose&n=1+2"), ["log", "/a b", "verbose", "n", "1 2"]);
        assert!(arguments("").is_empty());
    }

    #[test]
    fn what_is_no_escape_stays() {
        for text in ["100%", "%zz", "%", "a%2", "é%e9x"] {
            assert!(!unescape(text).is_empty(), "{text}");
        }
        assert_eq!(unescape("100%"), "100%");
    }
}
