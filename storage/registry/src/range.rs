//! A part of a blob, asked for once: what reads on demand are made of.
//!
//! `place? cooling -> later | asked -> 206: the range | 200: another place? try it : the whole blob | failed -> next place`.
//! [`crate::BlobStream`] is for who wants all of a blob and is patient. Here each place is asked once, within a time, and
//! whoever reads decides whether to repeat. What was learned of a place is remembered: that it sends whole blobs only, or
//! that it wants to be left alone for a while.
//!
//! Not here: hashing (the caller knows digests of parts, this crate does not), repeating, priorities.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{StatusCode, header};
use storage_model::{Descriptor, Digest, Reference};
use tokio::time::Instant;

use crate::blob::{content_range, drain};
use crate::body::Body;
use crate::call::Call;
use crate::client::{Core, lock};
use crate::endpoint::Endpoint;
use crate::session::Answer;
use crate::{Client, RegistryError, Target};

/// How long it is remembered that a place sends whole blobs only. Somebody may mend it.
const WHOLE_KEPT: Duration = Duration::from_secs(3600);
/// Most places of which something is remembered.
const PLACES_MAX: usize = 4096;

/// What [`Client::blob_range`] keeps to.
#[derive(Debug, Clone, Copy)]
pub struct RangeRules<'a> {
    /// Places that are not asked, by [`RangeStream::source`]: they sent wrong bytes before.
    pub avoid: &'a [String],
    /// Longest one place may take to begin its answer, connecting and logging in included.
    pub answer_max: Duration,
}

/// Bytes of a blob on their way.
pub struct RangeStream {
    core: Arc<Core>,
    target: Arc<Target>,
    /// Size of the blob.
    size: u64,
    /// First byte that was, or will be, handed out.
    start: u64,
    /// First byte not handed out yet; start <= position <= end.
    position: u64,
    /// First byte that is not wanted any more.
    end: u64,
    body: Option<Body>,
    host: String,
    source: String,
}

impl Client {
    /// Asks for `range` of a blob, each place at most once: the mirrors in their order, then the registry itself. Places
    /// that asked to be left alone (`Retry-After`) come last, and are waited for.
    ///
    /// The bytes are **not** verified, as those of [`Client::blob`] are not.
    ///
    /// # Errors
    /// That of the last place. [`RegistryError::NoHost`] if all are to be avoided, [`RegistryError::Offset`] if the range is
    /// empty or not inside the blob.
    ///
    /// Cancel safety: nothing is left behind.
    pub async fn blob_range(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        range: Range<u64>,
        rules: RangeRules<'_>,
    ) -> Result<RangeStream, RegistryError> {
        let target = Target::at(reference, descriptor.digest.to_string());
        if range.start >= range.end || range.end > descriptor.size {
            let offset = if range.start < range.end { range.end } else { range.start };
            return Err(RegistryError::Offset { target, offset, size: descriptor.size });
        }
        let core = self.shared();
        let mut places = core.places(reference.registry(), &target, false, Some(&descriptor.digest))?;
        places.retain(|place| !rules.avoid.contains(&place.authority));
        places.sort_by_key(|place| (core.cooling(place).is_some(), core.is_whole(place)));
        let mut error = RegistryError::NoHost { target: Arc::clone(&target) };
        for (number, place) in places.iter().enumerate() {
            if let Some(until) = core.cooling(place) {
                tokio::time::sleep_until(until).await;
            }
            let asked = Asked { core: &core, target: &target, descriptor, range: range.clone() };
            let last = number + 1 == places.len();
            match tokio::time::timeout(rules.answer_max, asked.at(place, last)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(failed)) => error = failed,
                Err(_) => error = asked.too_late(place, rules.answer_max),
            }
            if let Some(wait) = error.retry_after() {
                core.cool(place, wait);
            }
            tracing::debug!(host = place.authority, %error, "a range was not served");
        }
        Err(error)
    }
}

impl Core {
    fn is_whole(&self, place: &Endpoint) -> bool {
        lock(&self.whole).get(&place.authority).is_some_and(|at| at.elapsed() < WHOLE_KEPT)
    }

    fn remember_whole(&self, place: &Endpoint) {
        let mut whole = lock(&self.whole);
        if whole.len() >= PLACES_MAX {
            whole.clear();
        }
        whole.insert(place.authority.clone(), Instant::now());
    }

    /// Until when a place wants to be left alone.
    fn cooling(&self, place: &Endpoint) -> Option<Instant> {
        lock(&self.cooling).get(&place.authority).copied().filter(|until| *until > Instant::now())
    }

    fn cool(&self, place: &Endpoint, wait: Duration) {
        let mut cooling = lock(&self.cooling);
        if cooling.len() >= PLACES_MAX {
            cooling.clear();
        }
        cooling.insert(place.authority.clone(), Instant::now() + wait);
    }
}

/// One question, put to one place after the other.
struct Asked<'a> {
    core: &'a Arc<Core>,
    target: &'a Arc<Target>,
    descriptor: &'a Descriptor,
    range: Range<u64>,
}

impl Asked<'_> {
    /// Asks one place. One that sends the whole blob is used only if it is the last.
    async fn at(&self, place: &Endpoint, last: bool) -> Result<RangeStream, RegistryError> {
        let digest: Digest = self.descriptor.digest;
        let ranged = !self.core.is_whole(place);
        let path = format!("blobs/{digest}");
        let call = Call {
            range: ranged.then_some((self.range.start, None)),
            last: Some(self.range.end - 1),
            blob: Some(digest),
            ..Call::get(place, self.target, path)
        };
        let answer = self.core.ask(&call).await?;
        if answer.response.status() == StatusCode::PARTIAL_CONTENT {
            return match self.check(&answer) {
                Err(wrong @ RegistryError::WrongRange { .. }) => {
                    self.core.remember_whole(place);
                    Err(wrong)
                }
                Err(other) => Err(other),
                Ok(end) => Ok(self.stream(place, answer, self.range.start, end)),
            };
        }
        self.core.remember_whole(place);
        if !last && ranged {
            let host = answer.host;
            return Err(self.wrong_range(host, "the whole blob"));
        }
        if let Some(length) = header_number(&answer)
            && length != self.descriptor.size
        {
            return Err(self.size_mismatch(&answer.host, length));
        }
        Ok(self.stream(place, answer, 0, self.descriptor.size))
    }

    fn stream(&self, place: &Endpoint, answer: Answer, start: u64, end: u64) -> RangeStream {
        RangeStream {
            core: Arc::clone(self.core),
            target: Arc::clone(self.target),
            size: self.descriptor.size,
            start,
            position: start,
            end,
            body: Some(Body::new(answer.response.into_body(), &self.core.config.retry)),
            host: answer.host,
            source: place.authority.clone(),
        }
    }

    /// A 206 must begin where we asked, inside a content of our size; it may end earlier (RFC 9110, section 15.3.7).
    /// Returns the end of what comes.
    fn check(&self, answer: &Answer) -> Result<u64, RegistryError> {
        let headers = answer.response.headers();
        let text = headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or("none");
        let wrong = || self.wrong_range(answer.host.clone(), text);
        let (first, last, total) = content_range(text).ok_or_else(wrong)?;
        if let Some(total) = total
            && total != self.descriptor.size
        {
            return Err(self.size_mismatch(&answer.host, total));
        }
        let end = last.checked_add(1).ok_or_else(wrong)?;
        if first != self.range.start || end <= first || end > self.range.end {
            return Err(wrong());
        }
        match header_number(answer) {
            Some(length) if length != end - first => Err(wrong()),
            _ => Ok(end),
        }
    }

    fn wrong_range(&self, host: String, got: &str) -> RegistryError {
        RegistryError::WrongRange {
            target: Arc::clone(self.target),
            host,
            asked: self.range.start,
            got: got.chars().take(80).collect(),
        }
    }

    fn size_mismatch(&self, host: &str, actual: u64) -> RegistryError {
        RegistryError::SizeMismatch {
            target: Arc::clone(self.target),
            host: host.to_owned(),
            expected: self.descriptor.size,
            actual,
        }
    }

    fn too_late(&self, place: &Endpoint, after: Duration) -> RegistryError {
        RegistryError::Timeout {
            target: Arc::clone(self.target),
            host: place.authority.clone(),
            what: "no answer",
            after,
        }
    }
}

/// The `Content-Length`, if there is one.
fn header_number(answer: &Answer) -> Option<u64> {
    answer.response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl RangeStream {
    /// Offset in the blob of the first byte: that of the range, or 0 if the place sends the whole blob.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// First byte not handed out yet, counted from the start of the blob.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Host that sends the bytes; after a redirect, not the registry.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Place of the configuration the bytes come from, for [`RangeRules::avoid`].
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The next bytes, in order; `None` at the end of the range, or of what the place gave of it.
    ///
    /// # Errors
    /// [`RegistryError::Interrupted`] and [`RegistryError::Timeout`] if the transfer broke or crawled;
    /// [`RegistryError::SizeMismatch`] if more came than was announced. After an error there is nothing more.
    ///
    /// Cancel safety: a dropped future loses no bytes.
    pub async fn next(&mut self) -> Option<Result<Bytes, RegistryError>> {
        let body = self.body.as_mut()?;
        let fault = match body.next().await {
            Some(Ok(bytes)) if bytes.len() as u64 <= self.end - self.position => {
                self.position += bytes.len() as u64;
                if self.position == self.end
                    && let Some(body) = self.body.take().filter(|body| !body.is_end())
                {
                    // Read to its end, the connection goes back to the pool.
                    tokio::spawn(drain(body));
                }
                return Some(Ok(bytes));
            }
            Some(Ok(bytes)) => RegistryError::SizeMismatch {
                target: Arc::clone(&self.target),
                host: self.host.clone(),
                expected: self.end - self.start,
                actual: self.position - self.start + bytes.len() as u64,
            },
            Some(Err(fault)) => {
                self.core.body_error(fault, &self.target, &self.host, self.position, self.size)
            }
            None => RegistryError::Interrupted {
                target: Arc::clone(&self.target),
                host: self.host.clone(),
                at: self.position,
                source: None,
            },
        };
        self.body = None;
        Some(Err(fault))
    }
}

impl std::fmt::Debug for RangeStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RangeStream")
            .field("target", &self.target)
            .field("position", &self.position)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}
