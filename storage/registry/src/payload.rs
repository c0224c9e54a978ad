//! What a request carries: nothing, a few bytes, or a section of a local file that is read while it is sent.
//!
//! A section is read by one blocking thread, a few buffers ahead of the connection. Each attempt reads the file anew,
//! so a request can be repeated. [`Outgoing::sent`] counts what the connection has taken, which is how a stalled
//! upload is told from a slow registry.

use std::io::{self, Read, Seek, SeekFrom};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// Bytes one read of the file asks for. With [`BUFFERS_AHEAD`] it bounds the memory of one upload to 1 MiB.
const READ_BYTES: usize = 256 * 1024;
/// Buffers read ahead of the connection.
const BUFFERS_AHEAD: usize = 3;

/// A local file, as an upload reads it.
pub(crate) trait ReadSeek: Read + Seek + Send {}
impl<T: Read + Seek + Send> ReadSeek for T {}

/// Opens the local file; called once an attempt.
pub(crate) type Opener<'a> = &'a (dyn Fn() -> io::Result<Box<dyn ReadSeek>> + Send + Sync);

/// Told how many bytes of the blob the registry's connection has taken. The count falls back when an upload is
/// continued from an earlier byte.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// What a request carries.
#[derive(Clone)]
pub(crate) enum Payload<'a> {
    Nothing,
    /// A document and its media type.
    Document(HeaderValue, Bytes),
    /// `length` bytes of a file from `offset` on.
    Section {
        open: Opener<'a>,
        offset: u64,
        length: u64,
        /// The request says which bytes of the whole these are (`Content-Range`).
        ranged: bool,
        progress: Progress,
    },
}

impl Payload<'_> {
    /// Bytes it has.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Document(_, bytes) => bytes.len() as u64,
            Self::Section { length, .. } => *length,
        }
    }

    /// A body for one attempt.
    ///
    /// # Errors
    /// The local file cannot be opened or positioned.
    pub(crate) fn body(&self) -> io::Result<Outgoing> {
        let mut body = Outgoing { left: self.length(), ..Outgoing::default() };
        match self {
            Self::Nothing => {}
            Self::Document(_, bytes) => body.rest = Rest::Whole(bytes.clone()),
            Self::Section { open, offset, length, progress, .. } => {
                let mut file = open()?;
                file.seek(SeekFrom::Start(*offset))?;
                let (sender, buffers) = mpsc::channel(BUFFERS_AHEAD);
                let length = *length;
                tokio::task::spawn_blocking(move || read(file, length, &sender));
                body.rest = Rest::Buffers { buffers, position: *offset, progress: Arc::clone(progress) };
            }
        }
        Ok(body)
    }
}

/// Reads `left` bytes into `sender`, until nobody takes them any more.
fn read(mut file: Box<dyn ReadSeek>, mut left: u64, sender: &mpsc::Sender<io::Result<Bytes>>) {
    while left > 0 {
        let mut buffer = BytesMut::zeroed(READ_BYTES.min(usize::try_from(left).unwrap_or(READ_BYTES)));
        let part = match file.read(&mut buffer) {
            Ok(0) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the local file is shorter than its descriptor",
            )),
            Ok(count) => {
                buffer.truncate(count);
                left -= count as u64;
                Ok(buffer.freeze())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = part.is_err();
        if sender.blocking_send(part).is_err() || failed {
            return;
        }
    }
}

/// A body on its way out.
#[derive(Default)]
pub(crate) struct Outgoing {
    rest: Rest,
    /// Bytes still to go.
    left: u64,
    sent: Arc<AtomicU64>,
}

#[derive(Default)]
enum Rest {
    #[default]
    Nothing,
    Whole(Bytes),
    Buffers {
        buffers: mpsc::Receiver<io::Result<Bytes>>,
        /// First byte of the blob not handed to the connection.
        position: u64,
        progress: Progress,
    },
}

impl Outgoing {
    /// The count of bytes that the connection has taken, which goes on while the body is sent.
    pub(crate) fn sent(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.sent)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = LocalFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LocalFault>>> {
        let data = match &mut self.rest {
            Rest::Nothing => return Poll::Ready(None),
            Rest::Whole(bytes) => std::mem::take(bytes),
            Rest::Buffers { buffers, position, progress } => {
                match std::task::ready!(buffers.poll_recv(context)) {
                    None => return Poll::Ready(None),
                    Some(Err(error)) => return Poll::Ready(Some(Err(LocalFault(error)))),
                    Some(Ok(data)) => {
                        *position += data.len() as u64;
                        progress(*position);
                        data
                    }
                }
            }
        };
        self.left -= data.len() as u64;
        self.sent.fetch_add(data.len() as u64, Ordering::Relaxed);
        if self.left == 0 {
            self.rest = Rest::Nothing;
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The local file could not be read: no fault of the registry, and nothing that trying again mends.
#[derive(Debug, thiserror::Error)]
#[error("the local copy cannot be read")]
pub(crate) struct LocalFault(#[source] pub(crate) io::Error);

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    fn section(bytes: &'static [u8], offset: u64, length: u64) -> (Vec<u64>, Result<Bytes, String>) {
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let open = move || Ok(Box::new(io::Cursor::new(bytes)) as Box<dyn ReadSeek>);
        let progress: Progress = Arc::new(move |at| kept.lock().unwrap().push(at));
        let payload = Payload::Section { open: &open, offset, length, ranged: false, progress };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let got = runtime.block_on(async {
            let body = payload.body().unwrap();
            let sent = body.sent();
            assert_eq!(body.size_hint().exact(), Some(length));
            let got = body.collect().await.map(|all| all.to_bytes()).map_err(|fault| fault.0.to_string());
            assert!(got.is_err() || sent.load(Ordering::Relaxed) == length);
            got
        });
        (seen.lock().unwrap().clone(), got)
    }

    #[test]
    fn a_section_is_the_bytes_it_names_and_its_progress_counts_from_the_start_of_the_blob() {
        let (seen, got) = section(b"0123456789", 3, 5);
        assert_eq!((got.unwrap().as_ref(), seen.last()), (&b"34567"[..], Some(&8)));
    }

    #[test]
    fn a_file_that_ends_early_is_the_fault_of_the_file() {
        let (_, got) = section(b"0123", 0, 5);
        assert!(got.unwrap_err().contains("shorter"));
    }
}
