//! The answering side: a thread for each connection that reads, a thread for each call that works.
//!
//! Threads are small ([`THREAD_STACK_BYTES`]) and end with what they do. A call that waits for something far off, as a
//! container's end, moves its [`Reply`] to who will know, and its thread ends. A [`Reply`] that is dropped unanswered
//! answers `Internal`, so no caller waits for ever.
//!
//! Limits: [`CALLS_MAX`] calls at work in a server; one over it is answered `ResourceExhausted` at once.
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prost::Message;

use crate::address;
use crate::code::{Code, Status};
use crate::frame::{self, Frame, Kind};
use crate::wire::{Metadata, Request, Response, RpcStatus};

/// Stack of a thread, in bytes. Only what is touched is memory: some 12 KiB for a call.
pub(crate) const THREAD_STACK_BYTES: usize = 256 * 1024;

/// Most calls at work at a time.
pub const CALLS_MAX: usize = 512;

/// How long a peer that takes no answers may hold up one of them, before its connection is closed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a server does with calls. Called from many threads at once.
pub trait Service: Send + Sync + 'static {
    /// Carries `call` out and answers, at once or later.
    fn call(&self, call: Call, reply: Reply);
}

/// A call as it arrived.
#[derive(Debug, Clone)]
pub struct Call {
    /// Full name of the service, as `containerd.task.v2.Task`.
    pub service: String,
    /// Name of the method.
    pub method: String,
    /// The encoded request.
    pub payload: Vec<u8>,
    /// How long the caller will wait, if it said so.
    pub timeout: Option<Duration>,
    /// What it said beside.
    pub metadata: Metadata,
}

impl Call {
    /// The request.
    ///
    /// # Errors
    /// `InvalidArgument` when the bytes are no `M`.
    pub fn request<M: Message + Default>(&self) -> Result<M, Status> {
        M::decode(self.payload.as_slice()).map_err(|error| {
            Status::new(
                Code::InvalidArgument,
                format!("the request of {}/{} cannot be read: {error}", self.service, self.method),
            )
        })
    }

    /// The first value of a key of the metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value.as_str())
    }

    /// The refusal of a method that the service does not have.
    pub fn unimplemented(&self) -> Status {
        Status::new(Code::Unimplemented, format!("there is no method {}/{} here", self.service, self.method))
    }
}

/// The right to answer one call, once.
#[derive(Debug)]
pub struct Reply {
    peer: Option<Peer>,
    stream: u32,
}

/// The way back to a caller.
#[derive(Debug, Clone)]
struct Peer {
    stream: Arc<Mutex<UnixStream>>,
    /// Calls at work in the server, this one among them.
    at_work: Arc<AtomicUsize>,
}

impl Reply {
    /// Answers. A caller that is gone is no error: there is nobody to tell.
    pub fn send<M: Message>(mut self, answer: Result<M, Status>) {
        self.answer(answer.map(|message| message.encode_to_vec()));
    }

    fn answer(&mut self, answer: Result<Vec<u8>, Status>) {
        let Some(peer) = self.peer.take() else { return };
        peer.at_work.fetch_sub(1, Ordering::Relaxed);
        respond(&peer.stream, self.stream, answer);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let words = "the server dropped the call without an answer";
        self.answer(Err(Status::new(Code::Internal, words)));
    }
}

fn respond(stream: &Mutex<UnixStream>, number: u32, answer: Result<Vec<u8>, Status>) {
    let response = match answer {
        Ok(payload) => Response { status: None, payload },
        Err(status) => refusal(status),
    };
    let mut target = stream.lock().unwrap_or_else(PoisonError::into_inner);
    let mut result = frame::write(&mut *target, number, Kind::Response, &response.encode_to_vec());
    if matches!(&result, Err(error) if error.kind() == io::ErrorKind::InvalidInput) {
        let status = Status::new(Code::ResourceExhausted, "the answer is over ttrpc's limit of 4 MiB");
        result = frame::write(&mut *target, number, Kind::Response, &refusal(status).encode_to_vec());
    }
    if result.is_err() {
        // The peer is gone or takes nothing; part of a frame may be out, so the connection is of no more use.
        let _ = target.shutdown(std::net::Shutdown::Both);
    }
}

fn refusal(status: Status) -> Response {
    let status = RpcStatus { code: status.code.number(), message: status.message };
    Response { status: Some(status), payload: Vec::new() }
}

/// A listening socket and what answers there.
pub struct Server {
    listener: UnixListener,
    service: Arc<dyn Service>,
    at_work: Arc<AtomicUsize>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Server").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Server {
    /// Binds the socket `path`, for its owner only, and listens. `path` must not exist.
    ///
    /// Nothing is answered before [`Server::run`]; who connects meanwhile waits.
    ///
    /// # Errors
    /// `AddrInUse` when `path` exists; those of `bind`.
    pub fn bind(path: &Path, service: Arc<dyn Service>) -> io::Result<Self> {
        let listener = address::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self::on(listener, service))
    }

    /// Answers on a socket that listens already.
    pub fn on(listener: UnixListener, service: Arc<dyn Service>) -> Self {
        Self { listener, service, at_work: Arc::default() }
    }

    /// Accepts connections, for ever.
    ///
    /// # Errors
    /// Those of `accept` that will not pass. Want of descriptors is waited out.
    pub fn run(&self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.serve(stream),
                Err(error) if passes(&error) => {}
                Err(error) if is_shortage(&error) => std::thread::sleep(Duration::from_millis(100)),
                Err(error) => return Err(error),
            }
        }
    }

    /// Answers on `stream` until its peer closes it, in a thread of its own.
    pub fn serve(&self, stream: UnixStream) {
        let (service, at_work) = (Arc::clone(&self.service), Arc::clone(&self.at_work));
        // Without a thread, the stream is dropped: the peer sees it closed, and may come again.
        let _ = spawn("ttrpc-calls", move || {
            let _ = read_calls(stream, &service, &at_work);
        });
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

fn passes(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted)
}

/// `ENFILE`, `EMFILE`, `ENOBUFS`, `ENOMEM`: they pass when something is closed.
fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24 | 105 | 12))
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(THREAD_STACK_BYTES).spawn(work).map(drop)
}

fn read_calls(
    mut source: UnixStream,
    service: &Arc<dyn Service>,
    at_work: &Arc<AtomicUsize>,
) -> io::Result<()> {
    source.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let target = Arc::new(Mutex::new(source.try_clone()?));
    while let Some(Frame { stream, kind, body }) = frame::read(&mut source)? {
        if kind != Kind::Request {
            continue;
        }
        match accept(stream, body, &target, at_work) {
            Ok((call, reply)) => {
                let service = Arc::clone(service);
                // Without a thread the reply is dropped, which answers.
                let _ = spawn("ttrpc-call", move || service.call(call, reply));
            }
            Err(status) => respond(&target, stream, Err(status)),
        }
    }
    Ok(())
}

fn accept(
    stream: u32,
    body: Option<Vec<u8>>,
    target: &Arc<Mutex<UnixStream>>,
    at_work: &Arc<AtomicUsize>,
) -> Result<(Call, Reply), Status> {
    if stream.is_multiple_of(2) {
        let words = format!("stream {stream}: a client's streams have odd numbers");
        return Err(Status::new(Code::InvalidArgument, words));
    }
    let Some(body) = body else {
        let words = format!("the request is over ttrpc's limit of {} bytes", frame::BODY_BYTES_MAX);
        return Err(Status::new(Code::ResourceExhausted, words));
    };
    let request = Request::decode(body.as_slice()).map_err(|error| {
        Status::new(Code::InvalidArgument, format!("the request cannot be read: {error}"))
    })?;
    if at_work.fetch_add(1, Ordering::Relaxed) >= CALLS_MAX {
        at_work.fetch_sub(1, Ordering::Relaxed);
        let words = format!("{CALLS_MAX} calls are open already; try again when some have ended");
        return Err(Status::new(Code::ResourceExhausted, words));
    }
    let timeout = request.timeout();
    let Request { service, method, payload, metadata, .. } = request;
    let metadata = metadata.into_iter().map(|pair| (pair.key, pair.value)).collect();
    let peer = Peer { stream: Arc::clone(target), at_work: Arc::clone(at_work) };
    Ok((Call { service, method, payload, timeout, metadata }, Reply { peer: Some(peer), stream }))
}
