//! A blob as a stream that survives what networks do.
//!
//! `open -> chunk* -> (broken: wait, open again at the next byte)* -> end`. The bytes go out as the connection read
//! them, without a copy, in order, each once, and never more than the descriptor says. A place that fails too often
//! without progress gives way to the next one.
//!
//! Not here: hashing. The caller does it, in the thread it likes.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use storage_model::{Descriptor, Digest, Reference};

use crate::body::Body;
use crate::call::Call;
use crate::client::Core;
use crate::endpoint::Endpoint;
use crate::{RegistryError, Target, retry};

/// Fewest new bytes after which earlier failures are forgotten: a place that breaks each time after a few bytes
/// would else keep us for ever.
const PROGRESS_BYTES_MIN: u64 = 4 * 1024;

/// The bytes of one blob.
pub struct BlobStream {
    core: Arc<Core>,
    target: Arc<Target>,
    digest: Digest,
    size: u64,
    /// First byte not handed out yet; position <= size.
    position: u64,
    /// Places to ask; `at` is the one being asked.
    places: Vec<Endpoint>,
    at: usize,
    body: Option<Body>,
    /// Bytes of the body that come before `position`: a range was asked for and the whole was sent.
    skip: u64,
    /// Host that sends the present body.
    host: String,
    etag: Option<HeaderValue>,
    /// The place does not do ranges, or does them wrongly: ask for the whole and skip.
    whole: bool,
    failures: u32,
    /// `position` at the last failure.
    failed_at: u64,
    ended: bool,
}

impl BlobStream {
    pub(crate) async fn open(
        core: Arc<Core>,
        reference: &Reference,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<Self, RegistryError> {
        let target = Target::at(reference, descriptor.digest.to_string());
        if offset > descriptor.size {
            return Err(RegistryError::Offset { target, offset, size: descriptor.size });
        }
        let places = core.places(reference.registry(), &target, false, Some(&descriptor.digest))?;
        let mut stream = Self {
            core,
            target,
            digest: descriptor.digest,
            size: descriptor.size,
            position: offset,
            places,
            at: 0,
            body: None,
            skip: 0,
            host: String::new(),
            etag: None,
            whole: false,
            failures: 0,
            failed_at: offset,
            ended: offset == descriptor.size,
        };
        if !stream.ended {
            stream.ensure_open().await?;
        }
        Ok(stream)
    }

    /// The next bytes, in order; `None` once `descriptor.size` was reached. After an error there is nothing more.
    ///
    /// # Errors
    /// The failure that ended our patience at the last place.
    ///
    /// Cancel safety: a dropped future loses no bytes; the next call goes on.
    pub async fn next(&mut self) -> Option<Result<Bytes, RegistryError>> {
        if self.ended {
            return None;
        }
        match self.advance().await {
            Ok(bytes) => Some(Ok(bytes)),
            Err(error) => {
                self.ended = true;
                self.body = None;
                Some(Err(error))
            }
        }
    }

    /// First byte not handed out yet, counted from the start of the blob.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Host that sends the bytes; after a redirect, not the registry.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Place of the configuration the bytes come from, for [`Client::avoid`](crate::Client::avoid).
    pub fn source(&self) -> &str {
        &self.places[self.at].authority
    }

    async fn advance(&mut self) -> Result<Bytes, RegistryError> {
        loop {
            self.ensure_open().await?;
            let Some(body) = &mut self.body else { continue };
            let fault = match body.next().await {
                Some(Ok(bytes)) => match self.accept(bytes)? {
                    Some(bytes) => return Ok(bytes),
                    None => continue,
                },
                Some(Err(fault)) => {
                    self.core.body_error(fault, &self.target, &self.host, self.position, self.size)
                }
                None => self.interrupted(),
            };
            self.body = None;
            self.after(fault).await?;
        }
    }

    /// Takes a chunk: drops what was handed out before, refuses what is too much.
    fn accept(&mut self, mut bytes: Bytes) -> Result<Option<Bytes>, RegistryError> {
        let dropped = self.skip.min(bytes.len() as u64);
        bytes = bytes.split_off(dropped as usize);
        self.skip -= dropped;
        let count = bytes.len() as u64;
        if count == 0 {
            return Ok(None);
        }
        if count > self.size - self.position {
            return Err(self.size_mismatch(self.position + count));
        }
        self.position += count;
        if self.position - self.failed_at >= PROGRESS_BYTES_MIN {
            self.failures = 0;
        }
        if self.position == self.size {
            self.ended = true;
            // Read to its end, the connection goes back to the pool; a chunked one has its last mark still to come.
            if let Some(body) = self.body.take().filter(|body| !body.is_end()) {
                tokio::spawn(drain(body));
            }
        }
        Ok(Some(bytes))
    }

    /// Opens a body at `position` if there is none, trying again and elsewhere as far as patience goes.
    async fn ensure_open(&mut self) -> Result<(), RegistryError> {
        while self.body.is_none() {
            if let Err(error) = self.ask().await {
                self.after(error).await?;
            }
        }
        Ok(())
    }

    /// Waits for the next attempt after `error`, or goes to the next place, or gives the error back.
    async fn after(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        if matches!(error, RegistryError::WrongRange { .. }) {
            self.whole = true;
        }
        self.failures += 1;
        self.failed_at = self.position;
        let last = self.at + 1 == self.places.len();
        let (target, host) = (self.target.to_string(), self.places[self.at].authority.clone());
        match retry::next_wait(&self.core.config.retry, &error, self.failures, last) {
            Some(wait) => {
                retry::tell(&self.core.config, &target, &host, &error, wait, self.failures + 1);
                tokio::time::sleep(wait).await;
                Ok(())
            }
            None if last => Err(error),
            None => {
                retry::tell_skipped(&self.core.config, &target, &host, &error);
                self.at += 1;
                self.failures = 0;
                self.etag = None;
                self.whole = false;
                Ok(())
            }
        }
    }

    /// Asks the present place for the bytes from `position` on, once.
    async fn ask(&mut self) -> Result<(), RegistryError> {
        let range = (self.position > 0 && !self.whole).then(|| (self.position, self.etag.clone()));
        let path = format!("blobs/{}", self.digest);
        let call =
            Call { range, blob: Some(self.digest), ..Call::get(&self.places[self.at], &self.target, path) };
        let answer = self.core.ask(&call).await?;
        self.host = answer.host;
        let (head, body) = answer.response.into_parts();
        self.skip = match head.status {
            StatusCode::PARTIAL_CONTENT => {
                self.check_range(&head.headers)?;
                0
            }
            _ => self.position,
        };
        let length = head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let length: Option<u64> = length.and_then(|text| text.parse().ok());
        if let Some(length) = length {
            let (whole, partial) = (self.size, head.status == StatusCode::PARTIAL_CONTENT);
            let fits = if partial { length <= self.size - self.position } else { length == whole };
            if !fits {
                return Err(self.size_mismatch(if partial { self.position + length } else { length }));
            }
        }
        let strong = |value: &&HeaderValue| value.as_bytes().starts_with(b"\"");
        self.etag = head.headers.get(header::ETAG).filter(strong).cloned();
        self.body = Some(Body::new(body, &self.core.config.retry));
        Ok(())
    }

    /// A 206 must begin where we asked, inside a content of our size (RFC 9110, section 14.4).
    fn check_range(&self, headers: &HeaderMap) -> Result<(), RegistryError> {
        let text = headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or("none");
        let wrong = || RegistryError::WrongRange {
            target: Arc::clone(&self.target),
            host: self.host.clone(),
            asked: self.position,
            got: text.chars().take(80).collect(),
        };
        let (first, last, total) = content_range(text).ok_or_else(wrong)?;
        if let Some(total) = total
            && total != self.size
        {
            return Err(self.size_mismatch(total));
        }
        if first != self.position || last < first || last >= self.size { Err(wrong()) } else { Ok(()) }
    }

    fn size_mismatch(&self, actual: u64) -> RegistryError {
        RegistryError::SizeMismatch {
            target: Arc::clone(&self.target),
            host: self.host.clone(),
            expected: self.size,
            actual,
        }
    }

    fn interrupted(&self) -> RegistryError {
        RegistryError::Interrupted {
            target: Arc::clone(&self.target),
            host: self.host.clone(),
            at: self.position,
            source: None,
        }
    }
}

impl std::fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobStream")
            .field("target", &self.target)
            .field("position", &self.position)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// `bytes FIRST-LAST/TOTAL`, where the total may be `*`.
pub(crate) fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (span, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = span.split_once('-')?;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let total = if total.trim() == "*" { None } else { Some(number(total)?) };
    Some((number(first)?, number(last)?, total))
}

/// Waits a moment for the end of a body whose bytes are all there. More bytes close the connection.
pub(crate) async fn drain(mut body: Body) {
    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), body.next()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_exactly() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, 9, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, 9, None)));
        for wrong in [
            "",
            "none",
            "bytes */10",
            "bytes 5-/10",
            "bytes -9/10",
            "items 5-9/10",
            "bytes 5-9",
            "bytes a-b/c",
        ] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }
}
