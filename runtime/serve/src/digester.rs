//! The bytes of a reply, counted, and hashed where they are a whole blob.
//!
//! The last bytes go out only when the digest holds: a client of a damaged blob sees the connection break and never a
//! complete answer. A part of a blob cannot be proved here; whoever asks for parts hashes the whole.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use storage_model::{Digest, Hasher};

use crate::backend::{BackendError, Content};

/// Content on its way out.
pub(crate) struct Digester {
    content: Content,
    /// Bytes still to come.
    left: u64,
    /// The blob's name, and the hash so far, if all of it goes out.
    proof: Option<(Digest, Hasher)>,
}

impl Digester {
    /// `length` bytes of `content`; with `whole`, those are all of the blob `whole`.
    pub(crate) fn new(content: Content, length: u64, whole: Option<Digest>) -> Self {
        Self { content, left: length, proof: whole.map(|digest| (digest, Hasher::new())) }
    }

    fn accept(&mut self, bytes: &Bytes) -> Result<(), BackendError> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or(BackendError::Nonsense("more bytes than were asked for"))?;
        let Some((_, hasher)) = &mut self.proof else { return Ok(()) };
        hasher.update(bytes);
        if self.left > 0 {
            return Ok(());
        }
        let Some((expected, hasher)) = self.proof.take() else { return Ok(()) };
        let actual = hasher.finish();
        if actual == expected { Ok(()) } else { Err(BackendError::Damaged { expected, actual }) }
    }
}

impl Body for Digester {
    type Data = Bytes;
    type Error = BackendError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BackendError>>> {
        let failed = |error: BackendError| {
            tracing::warn!(%error, "a reply was broken off");
            Poll::Ready(Some(Err(error)))
        };
        loop {
            return match ready!(self.content.as_mut().poll_next(context)) {
                None if self.left == 0 => Poll::Ready(None),
                None => failed(BackendError::Nonsense("fewer bytes than were asked for")),
                Some(Err(error)) => failed(error),
                Some(Ok(bytes)) if bytes.is_empty() => continue,
                Some(Ok(bytes)) => match self.accept(&bytes) {
                    Ok(()) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                    Err(error) => failed(error),
                },
            };
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    fn send(parts: &[&'static [u8]], length: u64, whole: Option<Digest>) -> Result<Bytes, String> {
        let parts: Vec<_> = parts.iter().map(|part| Ok(Bytes::from_static(part))).collect();
        let body = Digester::new(Box::pin(tokio_stream::iter(parts)), length, whole);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let collected = runtime.block_on(body.collect());
        collected.map(|all| all.to_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_blob_that_is_not_its_digest_never_ends() {
        let right = Some(Digest::of(b"abcdef"));
        assert_eq!(send(&[b"abc", b"", b"def"], 6, right).unwrap(), "abcdef");
        assert!(send(&[b"abc", b"deX"], 6, right).unwrap_err().contains("damaged"));
        assert_eq!(send(&[b"bcd"], 3, None).unwrap(), "bcd");
    }

    #[test]
    fn a_reply_has_exactly_the_length_it_announced() {
        assert!(send(&[b"abc"], 4, None).unwrap_err().contains("fewer"));
        assert!(send(&[b"abcde"], 4, None).unwrap_err().contains("more"));
        assert_eq!(send(&[], 0, None).unwrap(), "");
    }
}
