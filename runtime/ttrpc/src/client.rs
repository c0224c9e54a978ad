//! The calling side: many threads, one connection.
//!
//! A thread of the client's own reads answers and hands each to the caller that waits for its stream number. When the
//! connection ends, every call that is open and every later one fails with [`TtrpcError::Closed`]; there is no second
//! attempt here, since only the caller knows whether a call may be repeated.
use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use prost::Message;

use crate::address;
use crate::code::{Code, Status};
use crate::frame::{self, Kind};
use crate::wire::{KeyValue, Metadata, Request, Response};

/// A connection to a server.
///
/// All methods take `&self` and may be called from any thread at the same time. Dropping it closes the connection.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: UnixStream,
    shared: Arc<Shared>,
    metadata: Metadata,
}

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TtrpcError {
    /// The server refused.
    #[error("{message}")]
    Refused {
        /// For programs.
        code: Code,
        /// The server's words.
        message: String,
    },
    /// Nobody listens at the socket.
    #[error("cannot connect to {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The connection ended before the answer came: whether the call was carried out is not known.
    #[error("the server at {path} closed the connection before it answered {method}")]
    Closed {
        /// The socket.
        path: PathBuf,
        /// What was called.
        method: String,
    },
    /// The answer did not come in time. The server may still carry the call out.
    #[error("the server at {path} did not answer {method} within {limit:?}")]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// What was called.
        method: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The request could not be sent: it is too large, or the connection failed.
    #[error("cannot send the call of {method} to {path}")]
    Send {
        /// The socket.
        path: PathBuf,
        /// What was called.
        method: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The answer is not the message that belongs to the method.
    #[error("the server at {path} answered {method} with something that is not its answer")]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What was called.
        method: String,
        /// The cause.
        #[source]
        source: prost::DecodeError,
    },
}

impl TtrpcError {
    /// The gRPC code that fits: the server's own, or one for what happened on the way.
    pub fn code(&self) -> Code {
        match self {
            Self::Refused { code, .. } => *code,
            Self::Connect { .. } | Self::Closed { .. } | Self::Send { .. } => Code::Unavailable,
            Self::Timeout { .. } => Code::DeadlineExceeded,
            Self::Answer { .. } => Code::Internal,
        }
    }

    /// Whether the server is not there (any more).
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Closed { .. } | Self::Send { .. })
    }
}

/// What callers and the reading thread share.
#[derive(Debug)]
struct Shared {
    writer: Mutex<Writer>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug)]
struct Writer {
    stream: UnixStream,
    /// Number of the next stream: odd, as a client's are.
    next: u32,
}

#[derive(Debug, Default)]
struct Waiting {
    calls: HashMap<u32, mpsc::SyncSender<Result<Response, Fault>>>,
    /// No answer will come any more.
    closed: bool,
}

/// Why the reading thread has no answer for a call.
#[derive(Debug)]
enum Fault {
    Oversized,
    Bytes(prost::DecodeError),
}

impl Client {
    /// Connects to the server that listens at the socket `path`.
    ///
    /// # Errors
    /// [`TtrpcError::Connect`].
    pub fn connect(path: &Path) -> Result<Self, TtrpcError> {
        let failed = |source| TtrpcError::Connect { path: path.to_owned(), source };
        let stream = address::connect(path).map_err(failed)?;
        let shared = Arc::new(Shared {
            writer: Mutex::new(Writer { stream: stream.try_clone().map_err(failed)?, next: 1 }),
            waiting: Mutex::default(),
        });
        let (source, target) = (stream.try_clone().map_err(failed)?, Arc::clone(&shared));
        std::thread::Builder::new()
            .name("ttrpc-answers".to_owned())
            .stack_size(crate::server::THREAD_STACK_BYTES)
            .spawn(move || read_answers(source, &target))
            .map_err(failed)?;
        Ok(Self { path: path.to_owned(), stream, shared, metadata: Metadata::new() })
    }

    /// The same client, with `metadata` beside every call, as [`NAMESPACE_KEY`](crate::NAMESPACE_KEY).
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// The socket it is connected to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the connection has ended: every call will fail.
    pub fn is_closed(&self) -> bool {
        lock(&self.shared.waiting).closed
    }

    /// Calls `method` of `service` and waits for its answer; for ever without a `timeout`.
    ///
    /// # Errors
    /// [`TtrpcError`]. After [`TtrpcError::Timeout`] a late answer is thrown away.
    pub fn call<Req: Message, Resp: Message + Default>(
        &self,
        service: &str,
        method: &str,
        request: &Req,
        timeout: Option<Duration>,
    ) -> Result<Resp, TtrpcError> {
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: request.encode_to_vec(),
            timeout_nanos: timeout.map_or(0, |limit| i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX)),
            metadata: self
                .metadata
                .iter()
                .map(|(key, value)| KeyValue { key: key.clone(), value: value.clone() })
                .collect(),
        };
        let (stream, answer) = self.send(&request)?;
        let outcome = match timeout {
            Some(limit) => answer.recv_timeout(limit),
            None => answer.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
        };
        let response = match outcome {
            Ok(Ok(response)) => response,
            Ok(Err(Fault::Bytes(source))) => return Err(self.unfitting(method, source)),
            Ok(Err(Fault::Oversized)) => {
                let message = format!("the answer to {method} is over {} bytes", frame::BODY_BYTES_MAX);
                return Err(TtrpcError::Refused { code: Code::ResourceExhausted, message });
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(self.closed(method)),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                lock(&self.shared.waiting).calls.remove(&stream);
                let limit = timeout.unwrap_or_default();
                return Err(TtrpcError::Timeout {
                    path: self.path.clone(),
                    method: method.to_owned(),
                    limit,
                });
            }
        };
        match response.status.filter(|status| status.code != Code::Ok.number()) {
            Some(status) => {
                Err(TtrpcError::Refused { code: Code::from_number(status.code), message: status.message })
            }
            None => {
                Resp::decode(response.payload.as_slice()).map_err(|source| self.unfitting(method, source))
            }
        }
    }

    /// Sends a request; its answer arrives at the receiver, which is disconnected when none will come.
    #[allow(clippy::type_complexity, reason = "the pair is taken apart at the one place that calls")]
    fn send(&self, request: &Request) -> Result<(u32, mpsc::Receiver<Result<Response, Fault>>), TtrpcError> {
        let body = request.encode_to_vec();
        let (sender, receiver) = mpsc::sync_channel(1);
        let mut writer = lock(&self.shared.writer);
        let stream = writer.next;
        // Odd numbers go round after two billion calls; the calls of the first round are long over.
        writer.next = writer.next.wrapping_add(2);
        {
            let mut waiting = lock(&self.shared.waiting);
            if waiting.closed {
                return Err(self.closed(&request.method));
            }
            waiting.calls.insert(stream, sender);
        }
        if let Err(source) = frame::write(&mut writer.stream, stream, Kind::Request, &body) {
            if source.kind() != io::ErrorKind::InvalidInput {
                // Part of a frame may have gone out: nothing after it would be understood.
                let _ = writer.stream.shutdown(Shutdown::Both);
            }
            drop(writer);
            lock(&self.shared.waiting).calls.remove(&stream);
            return Err(TtrpcError::Send { path: self.path.clone(), method: request.method.clone(), source });
        }
        Ok((stream, receiver))
    }

    fn closed(&self, method: &str) -> TtrpcError {
        TtrpcError::Closed { path: self.path.clone(), method: method.to_owned() }
    }

    fn unfitting(&self, method: &str, source: prost::DecodeError) -> TtrpcError {
        TtrpcError::Answer { path: self.path.clone(), method: method.to_owned(), source }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Ends the reading thread; fails only if the connection has ended already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl From<TtrpcError> for Status {
    /// For a service that passes on what another server said.
    fn from(error: TtrpcError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// Hands each answer to its caller until the connection ends.
fn read_answers(mut source: UnixStream, shared: &Shared) {
    while let Ok(Some(frame)) = frame::read(&mut source) {
        if frame.kind != Kind::Response {
            continue;
        }
        let answer = match frame.body {
            Some(body) => Response::decode(body.as_slice()).map_err(Fault::Bytes),
            None => Err(Fault::Oversized),
        };
        if let Some(caller) = lock(&shared.waiting).calls.remove(&frame.stream) {
            // A caller that has given up does not listen.
            let _ = caller.try_send(answer);
        }
    }
    let mut waiting = lock(&shared.waiting);
    waiting.closed = true;
    // Dropping the senders tells those who wait.
    waiting.calls.clear();
}

/// The state behind every lock here stays whole whatever a holder does: each change is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
