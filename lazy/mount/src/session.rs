//! One connection to the kernel: the handshake, the threads that answer, and reads.
//!
//! ```text
//! establish: first request --INIT--> answered --start--> serving --last mount gone--> ended
//! adopt:     descriptor of a dead server  --resend-----> serving
//! ```
//! Everything a request needs is in the request and in the index, so a connection may change servers between any two
//! instructions: what the dead one had read and not answered comes again ([`Device::resend`]).
//!
//! Opens and reads are answered here, from a buffer the bytes are read into directly; all else by `fuse-backend-rs` over
//! [`tree`]. A request that makes us panic is answered with `EIO`; the others go on.

mod broken;
mod crew;
mod opening;
#[cfg(test)]
mod tests;
mod tree;

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fuse_backend_rs::api::server::Server;
use fuse_backend_rs::transport::{FuseBuf, FuseDevWriter, Reader, Writer};
use lazy_index::{ImageIndex, NodeId};
use serde::{Deserialize, Serialize};
use storage_sys::fuse::{
    ANSWER_HEADER_BYTES, BackingId, Device, InitAnswer, InitRequest, READ_BYTES_MAX, REQUEST_BYTES_MAX,
    ReadRequest, RequestHeader, answer_header, errno, flags, open_answer,
};
use storage_sys::process::{Watch, poll};

use crate::bytes::FileBytes;
use crate::status::Opening;
pub(crate) use broken::refuse_all;
use crew::{Crew, Read, Turn};
use opening::{OpenFiles, Shape};
use tree::Tree;

/// Longest time until the kernel says its first word; it does so while it mounts.
const INIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Room for an answer: the longest read, or a directory as long, with headers.
const ANSWER_BYTES_MAX: usize = READ_BYTES_MAX as usize + 4096;

/// Bytes of a thread's stack.
const STACK_BYTES: usize = 512 * 1024;

/// What was agreed with the kernel. It is said once per connection, so successors have to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Negotiated {
    /// Minor version of the protocol.
    pub(crate) minor: u32,
    /// Abilities both sides have ([`flags`]).
    pub(crate) flags: u64,
    /// How files are opened.
    pub(crate) opening: Opening,
}

impl Negotiated {
    /// Whether requests a dead server has read can be had again. Without it they are lost, and so is the connection.
    pub(crate) fn has_resend(&self) -> bool {
        self.flags & flags::HAS_RESEND != 0
    }
}

/// What a session tells those who keep it.
pub(crate) trait Observer: Send + Sync {
    /// The kernel now reads these files by itself: a successor has to know before anybody opens them.
    fn backings(&self, backings: Vec<(u32, BackingId)>);

    /// The last mount of the connection is gone, and all threads have ended.
    fn ended(&self);
}

/// The image of a session.
pub(crate) struct Shown {
    /// Its tree.
    pub(crate) index: Arc<ImageIndex>,
    /// Its bytes.
    pub(crate) bytes: Arc<dyn FileBytes>,
}

/// A connection that is served.
pub(crate) struct Session {
    device: Device,
    server: Server<Tree>,
    bytes: Arc<dyn FileBytes>,
    negotiated: Negotiated,
    open: OpenFiles,
    crew: Crew,
    observer: Box<dyn Observer>,
    requests: AtomicU64,
    reads: AtomicU64,
    read_bytes: AtomicU64,
    failed_reads: AtomicU64,
}

/// What a session has done, since this server serves it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    pub(crate) in_flight: u64,
    pub(crate) reads: u64,
    pub(crate) read_bytes: u64,
    pub(crate) failed_reads: u64,
}

/// Shakes hands with the kernel on a connection that has just been mounted.
///
/// # Errors
/// `TimedOut` if it says nothing, `InvalidData` if it says something else, `Unsupported` for another major version.
pub(crate) fn shake_hands(device: &Device, index: &ImageIndex) -> io::Result<Negotiated> {
    let mut watches = [Watch::readable(device.as_fd())];
    if poll(&mut watches, Some(INIT_TIMEOUT))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut request = vec![0; REQUEST_BYTES_MAX];
    let length = device.read(&mut request)?.ok_or(io::ErrorKind::NotConnected)?;
    let init = InitRequest::parse(&request[..length]).ok_or(io::ErrorKind::InvalidData)?;
    if init.major != 7 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let shape = Shape::of(index);
    let answer = InitAnswer::new(&init, abilities(shape));
    device.answer(init.unique, &answer.encode())?;
    let passthrough = answer.flags & flags::PASSTHROUGH != 0;
    let opening = if passthrough { Opening::Passthrough } else { Opening::Silent };
    Ok(Negotiated { minor: answer.minor, flags: answer.flags, opening })
}

fn abilities(shape: Shape) -> u64 {
    let all = flags::ASYNC_READ
        | flags::EXPORT_SUPPORT
        | flags::DO_READDIRPLUS
        | flags::READDIRPLUS_AUTO
        | flags::NO_OPEN_SUPPORT
        | flags::PARALLEL_DIROPS
        | flags::MAX_PAGES
        | flags::CACHE_SYMLINKS
        | flags::NO_OPENDIR_SUPPORT
        | flags::EXPLICIT_INVAL_DATA
        | flags::HAS_RESEND
        | flags::ALLOW_IDMAP;
    let lists = if shape.lists { flags::POSIX_ACL } else { 0 };
    let passthrough = if shape.opening == Opening::Passthrough { flags::PASSTHROUGH } else { 0 };
    all | lists | passthrough
}

impl Session {
    /// Serves a connection: one whose hands were just shaken, or with `inherited` one that another server has served, with
    /// the files the kernel reads by itself. Returns when the first thread runs.
    ///
    /// # Errors
    /// Those of starting a thread and, of an inherited one, those of [`Device::resend`].
    pub(crate) fn start(
        device: Device,
        shown: Shown,
        negotiated: Negotiated,
        inherited: Option<&[(u32, BackingId)]>,
        observer: Box<dyn Observer>,
    ) -> io::Result<Arc<Self>> {
        let session = Arc::new(Self {
            device,
            server: Server::new(Tree::new(shown.index)),
            bytes: shown.bytes,
            negotiated,
            open: inherited.map_or_else(OpenFiles::new, OpenFiles::inherited),
            crew: Crew::default(),
            observer,
            requests: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
            failed_reads: AtomicU64::new(0),
        });
        if inherited.is_some() {
            session.device.resend()?;
        }
        session.crew.join();
        session.spawn()?;
        Ok(session)
    }

    /// What was agreed with the kernel.
    #[cfg(test)]
    pub(crate) fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// What has been done.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            requests: self.requests.load(Ordering::Relaxed),
            in_flight: self.crew.in_flight(),
            reads: self.reads.load(Ordering::Relaxed),
            read_bytes: self.read_bytes.load(Ordering::Relaxed),
            failed_reads: self.failed_reads.load(Ordering::Relaxed),
        }
    }

    /// Starts a thread that has been counted. If it cannot be, the others go on.
    fn spawn(self: &Arc<Self>) -> io::Result<()> {
        let session = Arc::clone(self);
        let thread = std::thread::Builder::new().name("fuse".into()).stack_size(STACK_BYTES);
        thread.spawn(move || session.work()).map(|_| ()).inspect_err(|_| {
            self.crew.leave();
        })
    }

    fn work(self: Arc<Self>) {
        let mut request = vec![0; REQUEST_BYTES_MAX];
        // Its pages are taken when they are first written to.
        let mut answer = vec![0; ANSWER_BYTES_MAX];
        while !self.crew.is_superfluous() {
            self.crew.idle();
            let outcome = self.device.read(&mut request);
            // Only for a request another thread is needed: at the end of a connection all of them get here.
            if self.crew.busy(matches!(outcome, Ok(Some(_))))
                && let Err(error) = self.spawn()
            {
                tracing::warn!(%error, "no further thread for a mount");
            }
            match outcome {
                Ok(Some(length)) => self.serve_safely(&mut request[..length], &mut answer),
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the kernel broke");
                    break;
                }
            }
        }
        if self.crew.leave() {
            self.observer.ended();
        }
    }

    fn serve_safely(&self, request: &mut [u8], answer: &mut [u8]) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let Some(header) = RequestHeader::parse(request) else { return };
        let served = catch_unwind(AssertUnwindSafe(|| self.serve(header, request, answer)));
        if served.is_err() {
            tracing::error!(opcode = header.opcode, node = header.node, "a request made the server panic");
            self.sent(self.device.refuse(header.unique, errno::IO));
        }
    }

    fn serve(&self, header: RequestHeader, request: &mut [u8], answer: &mut [u8]) {
        match header.opcode {
            OPEN => self.open(header),
            RELEASE => {
                self.open.release(node(header.node));
                self.sent(self.device.answer(header.unique, &[]));
            }
            READ => match ReadRequest::parse(request) {
                Some(ReadRequest { offset, size }) => {
                    let read = Read { unique: header.unique, node: header.node, offset, size };
                    self.read(read, answer);
                }
                None => self.sent(self.device.refuse(header.unique, errno::INVAL)),
            },
            opcode if DELEGATED.contains(&opcode) => self.delegate(request, answer),
            _ => self.sent(self.device.refuse(header.unique, errno::NOSYS)),
        }
    }

    fn delegate(&self, request: &mut [u8], answer: &mut [u8]) {
        let fd = self.device.as_fd().as_raw_fd();
        let parts = Reader::<()>::from_fuse_buffer(FuseBuf::new(request))
            .and_then(|reader| Ok((reader, FuseDevWriter::new(fd, answer)?)));
        match parts {
            Ok((reader, writer)) => {
                if let Err(error) = self.server.handle_message(reader, Writer::FuseDev(writer), None, None) {
                    tracing::debug!(%error, "an answer did not arrive");
                }
            }
            Err(error) => tracing::error!(%error, "a request could not be handed on"),
        }
    }

    fn open(&self, header: RequestHeader) {
        if self.negotiated.opening == Opening::Silent {
            // The kernel takes this as leave never to ask again.
            return self.sent(self.device.refuse(header.unique, errno::NOSYS));
        }
        let (backing, is_new) = self.open.open(node(header.node), &self.device, &*self.bytes);
        if is_new {
            self.observer.backings(self.open.backings());
        }
        self.sent(self.device.answer(header.unique, &open_answer(backing)));
    }

    fn read(&self, read: Read, answer: &mut [u8]) {
        let turn = self.crew.turn(read, || self.bytes.is_local(node(read.node)));
        match turn {
            Turn::InLine => {}
            Turn::Free => self.read_now(read, answer),
            Turn::Now => {
                let mut next = Some(read);
                while let Some(read) = next {
                    // A panic must not take the place along.
                    let done = catch_unwind(AssertUnwindSafe(|| self.read_now(read, answer)));
                    if done.is_err() {
                        self.sent(self.device.refuse(read.unique, errno::IO));
                    }
                    next = self.crew.next();
                }
            }
        }
    }

    fn read_now(&self, read: Read, answer: &mut [u8]) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let size = (read.size as usize).min(READ_BYTES_MAX as usize);
        let room = &mut answer[ANSWER_HEADER_BYTES..ANSWER_HEADER_BYTES + size];
        match self.bytes.read(node(read.node), read.offset, room) {
            Ok(count) => {
                let end = ANSWER_HEADER_BYTES + count.min(size);
                answer[..ANSWER_HEADER_BYTES].copy_from_slice(&answer_header(end, 0, read.unique));
                self.read_bytes.fetch_add(count as u64, Ordering::Relaxed);
                self.sent(self.device.write(&answer[..end]));
            }
            Err(error) => {
                self.failed_reads.fetch_add(1, Ordering::Relaxed);
                let (node, offset) = (read.node, read.offset);
                tracing::warn!(node, offset, error = %Words(&error), "a read failed");
                self.sent(self.device.refuse(read.unique, errno::IO));
            }
        }
    }

    /// An answer that does not arrive: whoever asked is gone, or the whole connection is, which the next read tells.
    fn sent(&self, outcome: io::Result<()>) {
        if let Err(error) = outcome {
            tracing::debug!(%error, "an answer did not arrive");
        }
    }
}

/// The index's number of a node; one it cannot have becomes one it has not.
fn node(number: u64) -> NodeId {
    NodeId(u32::try_from(number).unwrap_or(0))
}

/// An error and its causes in one line.
struct Words<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;

/// What `fuse-backend-rs` may see: lookup, forget, getattr, readlink, statfs, getxattr, listxattr, opendir, readdir,
/// interrupt, destroy, batch-forget, readdirplus. It must not see opcodes it does not know (`crates.md` 1.1: undefined
/// behaviour when its log is on), nor those that write.
const DELEGATED: [u32; 13] = [1, 2, 3, 5, 17, 22, 23, 27, 28, 36, 38, 42, 44];
