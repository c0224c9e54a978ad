//! A connection to a shim: the calls of containerd's Task service, typed.
//!
//! Version 2 and 3 of the protocol are the same messages under two service names; which one a shim speaks it says when it
//! is started. Calls block; each may be made from any thread.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use runtime_api::containerd::task::v2 as wire;
use runtime_ttrpc::{Client, NAMESPACE_KEY, TtrpcError, socket_of};
use serde::Deserialize;

use super::TaskError;
use super::live::{Exit, THREAD_STACK_BYTES, Waiter};

/// Longest that a shim may take to say how a process is doing (containerd's `timeout.task.state`).
const STATE_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest that it may take to show that it is there.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest that a call may take whose work is an OCI runtime's. It waits for disks, cgroups and a freezer; past it the
/// caller is told, and the shim may still finish.
const WORK_TIMEOUT: Duration = Duration::from_secs(120);

/// Longest that a shim may take to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection to one shim, for one task.
#[derive(Debug)]
pub(crate) struct Link {
    id: String,
    service: &'static str,
    client: Client,
}

/// Nothing: the answer of most calls.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Nothing {}

/// Where a shim listens, and what it speaks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Address {
    #[serde(rename = "version")]
    pub(super) version: u32,
    pub(super) address: String,
    #[serde(default)]
    pub(super) protocol: String,
}

impl Address {
    /// Reads what a shim's `start` printed: the address alone (version 2), or a JSON object that names a version.
    ///
    /// `None` if it is neither, or a protocol that is not spoken here.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?.trim();
        let parsed = if text.starts_with('{') {
            serde_json::from_str(text).ok()?
        } else {
            Self { version: 2, address: text.to_owned(), protocol: "ttrpc".to_owned() }
        };
        let spoken = matches!(parsed.version, 2 | 3) && matches!(parsed.protocol.as_str(), "" | "ttrpc");
        let local = parsed.address.starts_with("unix://") || parsed.address.starts_with('/');
        (spoken && local && !parsed.address.contains(['\n', '\0'])).then_some(parsed)
    }
}

impl Link {
    /// Connects to the shim at `address`.
    ///
    /// # Errors
    /// [`TaskError::Shim`] if nobody listens.
    pub(super) fn connect(namespace: &str, id: &str, address: &str, version: u32) -> Result<Self, TaskError> {
        let service = if version >= 3 { "containerd.task.v3.Task" } else { "containerd.task.v2.Task" };
        let client = Client::connect(socket_of(address))
            .map_err(|source| TaskError::Shim { id: id.to_owned(), source })?
            .with_metadata(vec![(NAMESPACE_KEY.to_owned(), namespace.to_owned())]);
        Ok(Self { id: id.to_owned(), service, client })
    }

    /// Whether the shim is known to be gone.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    fn call<A: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
        limit: Option<Duration>,
    ) -> Result<A, TaskError> {
        let answer: Result<A, TtrpcError> = self.client.call(self.service, method, request, limit);
        answer.map_err(|source| TaskError::Shim { id: self.id.clone(), source })
    }

    /// A call whose work is the OCI runtime's.
    pub(super) fn work<A: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
    ) -> Result<A, TaskError> {
        self.call(method, request, Some(WORK_TIMEOUT))
    }

    /// A call of that kind that answers nothing.
    pub(super) fn order(&self, method: &str, request: &impl Message) -> Result<(), TaskError> {
        self.work::<Nothing>(method, request).map(drop)
    }

    /// Whether the shim is there and has the task; its process id and the task's.
    pub(super) fn greet(&self) -> Result<wire::ConnectResponse, TaskError> {
        let request = wire::ConnectRequest { id: self.id.clone() };
        self.call("Connect", &request, Some(CONNECT_TIMEOUT))
    }

    /// How a process is doing; `exec` is empty for the first one.
    pub(super) fn state(&self, exec: &str) -> Result<wire::StateResponse, TaskError> {
        let request = wire::StateRequest { id: self.id.clone(), exec_id: exec.to_owned() };
        self.call("State", &request, Some(STATE_TIMEOUT))
    }

    /// Waits until a process has ended, however long that takes.
    pub(super) fn wait(&self, exec: &str) -> Result<wire::WaitResponse, TaskError> {
        let request = wire::WaitRequest { id: self.id.clone(), exec_id: exec.to_owned() };
        self.call("Wait", &request, None)
    }

    /// Has `waiter` called when an exec has ended; a thread of its own waits.
    ///
    /// # Errors
    /// [`TaskError::Io`] if there can be no thread.
    pub(super) fn when_ended(self: &Arc<Self>, exec: &str, waiter: Waiter) -> Result<(), TaskError> {
        let (link, exec) = (self.clone(), exec.to_owned());
        let thread = std::thread::Builder::new().name("exec-wait".to_owned()).stack_size(THREAD_STACK_BYTES);
        let wait = move || waiter(exec_exit(&link.id, &exec, &link.wait(&exec)));
        thread
            .spawn(wait)
            .map(drop)
            .map_err(TaskError::io("start a thread that waits at", self.client.path().to_owned()))
    }

    /// Has an ended process forgotten.
    pub(super) fn delete(&self, exec: &str) -> Result<wire::DeleteResponse, TaskError> {
        self.work("Delete", &wire::DeleteRequest { id: self.id.clone(), exec_id: exec.to_owned() })
    }

    /// Asks the shim to end, which it does if it has no other task, or with `now` in any case.
    pub(super) fn shutdown(&self, now: bool) {
        let request = wire::ShutdownRequest { id: self.id.clone(), now };
        // Most shims end before they answer.
        let _ = self.call::<Nothing>("Shutdown", &request, Some(SHUTDOWN_TIMEOUT));
    }
}

/// The end of an exec, as the shim told it, or did not.
pub(super) fn exec_exit(
    id: &str,
    exec: &str,
    answer: &Result<wire::WaitResponse, TaskError>,
) -> Result<Exit, TaskError> {
    match answer {
        Ok(answer) => Ok(Exit { pid: 0, status: answer.exit_status, at: answer.exited_at }),
        // What its shim ran is ended with it.
        Err(error) if error.is_gone() => Ok(Exit::killed_now(0)),
        Err(_) => Err(TaskError::NoExec { id: id.to_owned(), exec: exec.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shim_prints_is_an_address_or_json() {
        let plain = Address::parse(b"unix:///run/containerd/s/abc\n").unwrap();
        assert_eq!((plain.version, plain.address.as_str()), (2, "unix:///run/containerd/s/abc"));
        let json = br#"{"version":3,"address":"unix:///run/s/1","protocol":"ttrpc"}"#;
        assert_eq!(Address::parse(json).unwrap().version, 3);
        for bad in [
            &b""[..],
            b"hello",
            b"unix:///a\nunix:///b",
            br#"{"version":3,"address":"unix:///run/s/1","protocol":"grpc"}"#,
            br#"{"version":9,"address":"unix:///run/s/1"}"#,
            b"{",
            b"\xff",
        ] {
            assert_eq!(Address::parse(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }
}
