//! One blob on its way up: a session at the registry that remembers how far it got.
//!
//! `open -> part* -> close`. Small blobs go whole with the closing request. Large ones go in parts, and after a failure
//! the registry is asked how much it has (`GET` on the session), so that at most what was on the wire is sent again. A
//! registry that knows no parts gets the blob whole; one that lost the session gets a new one.
//!
//! The session's address is the registry's word: it is held to the rules of redirects, and credentials go with it only
//! while it stays on the registry's own origin.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use storage_model::Descriptor;

use crate::call::{Call, Place};
use crate::client::Core;
use crate::endpoint::{Endpoint, escape};
use crate::location::same_host;
use crate::payload::{Opener, Payload, Progress};
use crate::push::{Object, PUSH, pushed_nowhere};
use crate::session::{Answer, admit};
use crate::token::Access;
use crate::{RegistryError, Target, retry};

/// The largest blob that goes whole, as a fraction of a part: after a break it is sent again from its start.
const WHOLE_PARTS: u64 = 4;
/// Smallest part that is tried when a proxy finds larger ones too large, in bytes.
const PART_BYTES_MIN: u64 = 1024 * 1024;
/// Rate at which a registry is expected to digest what it got before it answers the closing request, in bytes/s.
const DIGEST_BYTES_PER_SECOND: u64 = 16 * 1024 * 1024;
/// Fewest new bytes after which earlier failures are forgotten.
const PROGRESS_BYTES_MIN: u64 = 64 * 1024;

/// The upload of one blob to one place.
pub(crate) struct Upload<'a> {
    core: &'a Core,
    place: &'a Endpoint,
    target: &'a Arc<Target>,
    descriptor: &'a Descriptor,
    open: Opener<'a>,
    progress: Progress,
    /// Address of the session; absent until one is opened, and after it was lost.
    session: Option<Uri>,
    /// First byte that the registry does not have; position <= descriptor.size.
    position: u64,
    /// The registry must be asked for `position` first.
    unsure: bool,
    /// The blob turned out to be there.
    there: bool,
    /// The blob goes with the closing request.
    whole: bool,
    /// part >= part_min
    part: u64,
    /// Smallest part the registry takes.
    part_min: u64,
}

impl<'a> Upload<'a> {
    pub(crate) fn new(
        core: &'a Core,
        place: &'a Endpoint,
        target: &'a Arc<Target>,
        descriptor: &'a Descriptor,
        open: Opener<'a>,
        progress: Progress,
    ) -> Self {
        let part = core.config.upload_part_bytes.max(1);
        Self {
            core,
            place,
            target,
            descriptor,
            open,
            progress,
            session: None,
            position: 0,
            unsure: false,
            there: false,
            whole: descriptor.size <= part / WHOLE_PARTS,
            part,
            part_min: 0,
        }
    }

    /// Asks the registry to take the blob from its repository `from`; gives whether it did. If it opened a session
    /// instead, that is kept for [`Upload::send`].
    pub(crate) async fn mount(&mut self, from: &str) -> Result<bool, RegistryError> {
        if let Some(unused) = self.session.take() {
            self.cancel(unused).await;
        }
        let access = Access::Push { mount: Some(from.to_owned()) };
        let path = format!("blobs/uploads/?mount={}&from={}", self.target.object, escape(from));
        let call = Call { access: &access, ..self.call(Method::POST, Place::Path(path)) };
        match self.core.persist(&call).await {
            Ok(answer) if answer.response.status() == StatusCode::CREATED => Ok(true),
            Ok(answer) => {
                self.keep_session(&call, &answer)?;
                Ok(false)
            }
            // We may not read there, or this registry does not know mounts: the upload will tell what matters.
            Err(error) if !error.is_transient() => {
                tracing::debug!(target: "storage_registry::push", %error, from, "no mount");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends the blob, with all the patience of the policy.
    pub(crate) async fn send(mut self) -> Result<(), RegistryError> {
        let (mut failures, mut failed_at) = (0, 0);
        loop {
            let error = match self.step().await {
                Ok(true) => return Ok(()),
                Ok(false) => continue,
                Err(error) => error,
            };
            if self.position.saturating_sub(failed_at) >= PROGRESS_BYTES_MIN {
                failures = 0;
            }
            failures += 1;
            failed_at = self.position;
            let Some(wait) = self.after(&error, failures).await? else {
                if let Some(session) = self.session.take() {
                    self.cancel(session).await;
                }
                return Err(pushed_nowhere(error));
            };
            let name = self.target.to_string();
            retry::tell(&self.core.config, &name, &self.place.authority, &error, wait, failures + 1);
            tokio::time::sleep(wait).await;
        }
    }

    /// One request; gives whether the blob is there.
    async fn step(&mut self) -> Result<bool, RegistryError> {
        if self.there {
            return Ok(true);
        }
        let Some(session) = self.session.clone() else {
            self.begin().await?;
            return Ok(false);
        };
        if self.unsure {
            self.ask_position(session).await?;
        } else if self.whole || self.position == self.descriptor.size {
            self.close(session).await?;
            return Ok(true);
        } else {
            self.send_part(session).await?;
        }
        Ok(false)
    }

    /// What to do about `error`: how long to wait before the next step, or `None` to give up.
    async fn after(
        &mut self,
        error: &RegistryError,
        failures: u32,
    ) -> Result<Option<Duration>, RegistryError> {
        let policy = &self.core.config.retry;
        let soon = (failures < policy.attempts).then(|| retry::backoff(policy, failures));
        match error {
            RegistryError::NotFound { .. } if self.session.is_some() => {
                // The session is gone: perhaps because it was closed and the answer got lost.
                self.session = None;
                let blob = Object::Blob(self.descriptor);
                self.there = self.core.holds(self.place, self.target, blob).await?;
                Ok(if self.there { Some(Duration::ZERO) } else { soon })
            }
            RegistryError::Status { status, .. } => match status.as_u16() {
                416 => {
                    self.unsure = true;
                    Ok(soon)
                }
                413 if !self.whole && self.part > PART_BYTES_MIN.max(self.part_min) => {
                    self.part = (self.part / 2).max(self.part_min);
                    self.unsure = true;
                    Ok(Some(Duration::ZERO))
                }
                400 | 405 | 415 | 501 if !self.whole && self.position == 0 && self.session.is_some() => {
                    tracing::debug!(target: "storage_registry::push", %error, "no parts: sending the blob whole");
                    (self.whole, self.session) = (true, None);
                    Ok(Some(Duration::ZERO))
                }
                _ => Ok(self.wait_out(error, failures)),
            },
            _ => Ok(self.wait_out(error, failures)),
        }
    }

    /// The policy's wait for an error that may pass.
    fn wait_out(&mut self, error: &RegistryError, failures: u32) -> Option<Duration> {
        if self.whole {
            self.session = None;
        }
        self.unsure = self.session.is_some();
        retry::next_wait(&self.core.config.retry, error, failures, true)
    }

    async fn begin(&mut self) -> Result<(), RegistryError> {
        let call = self.call(Method::POST, Place::Path("blobs/uploads/".to_owned()));
        let answer = self.core.ask(&call).await?;
        self.keep_session(&call, &answer)
    }

    /// Notes the session that an answer opened or moved.
    fn keep_session(&mut self, call: &Call<'_>, answer: &Answer) -> Result<(), RegistryError> {
        let headers = answer.response.headers();
        if !headers.contains_key(header::LOCATION) {
            return Err(self.fault("its answer names no upload"));
        }
        self.session = Some(self.location(call, headers)?);
        (self.position, self.unsure) = (0, false);
        let least = headers.get("oci-chunk-min-length").and_then(|value| value.to_str().ok());
        self.part_min = least.and_then(|text| text.parse().ok()).unwrap_or(0);
        self.part = self.part.max(self.part_min);
        Ok(())
    }

    async fn send_part(&mut self, session: Uri) -> Result<(), RegistryError> {
        let length = self.part.min(self.descriptor.size - self.position);
        let payload = self.section(self.position, length, true);
        let call = Call { payload, ..self.call(Method::PATCH, Place::Named(session)) };
        let answer = self.core.ask(&call).await?;
        let headers = answer.response.headers();
        if headers.contains_key(header::LOCATION) {
            self.session = Some(self.location(&call, headers)?);
        }
        let end = self.position + length;
        match range_end(headers) {
            Some(kept) if kept > end => return Err(self.fault("it says it has more bytes than were sent")),
            // It may keep less than it was given; to make no progress at all is a failure.
            Some(kept) if kept <= self.position && kept < end => {
                self.position = kept;
                return Err(self.fault("it kept nothing of what was sent"));
            }
            Some(kept) => self.position = kept,
            None => self.position = end,
        }
        Ok(())
    }

    async fn ask_position(&mut self, session: Uri) -> Result<(), RegistryError> {
        let call = self.call(Method::GET, Place::Named(session));
        let answer = self.core.ask(&call).await?;
        let headers = answer.response.headers();
        if headers.contains_key(header::LOCATION) {
            self.session = Some(self.location(&call, headers)?);
        }
        match range_end(headers).unwrap_or(0) {
            kept if kept > self.descriptor.size => {
                self.session = None;
                return Err(self.fault("it says it has more bytes than were sent"));
            }
            kept => self.position = kept,
        }
        self.unsure = false;
        (self.progress)(self.position);
        Ok(())
    }

    /// Names the digest, which makes the blob of the session.
    async fn close(&mut self, session: Uri) -> Result<(), RegistryError> {
        let mark = if session.query().is_some() { '&' } else { '?' };
        let text = format!("{session}{mark}digest={}", escape(&self.target.object));
        let closing: Uri = text.parse().map_err(|_| self.fault("its upload's address is too long"))?;
        let payload = match self.descriptor.size {
            size if self.whole && size > 0 => self.section(0, size, false),
            _ => Payload::Nothing,
        };
        let leeway = Duration::from_secs(self.descriptor.size / DIGEST_BYTES_PER_SECOND);
        let call = Call { payload, leeway, ..self.call(Method::PUT, Place::Named(closing)) };
        let answer = self.core.ask(&call).await?;
        let stored = answer.response.headers().get(crate::manifest::CONTENT_DIGEST);
        match stored.and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok()) {
            Some(actual) if actual != self.descriptor.digest => Err(RegistryError::DigestMismatch {
                target: Arc::clone(self.target),
                host: answer.host,
                expected: self.descriptor.digest,
                actual,
            }),
            _ => Ok(()),
        }
    }

    /// Tells the registry that nothing more comes. It would find out by itself, in a week.
    async fn cancel(&self, session: Uri) {
        let call = self.call(Method::DELETE, Place::Named(session));
        let asked = tokio::time::timeout(Duration::from_secs(5), self.core.ask(&call)).await;
        if let Ok(Err(error)) = asked {
            tracing::debug!(target: "storage_registry::push", %error, "an upload was not cancelled");
        }
    }

    fn call(&self, method: Method, place: Place) -> Call<'a> {
        Call { method, place, access: &PUSH, ..Call::get(self.place, self.target, String::new()) }
    }

    fn section(&self, offset: u64, length: u64, ranged: bool) -> Payload<'a> {
        let progress = Arc::clone(&self.progress);
        Payload::Section { open: self.open, offset, length, ranged, progress }
    }

    fn fault(&self, fault: &'static str) -> RegistryError {
        let (target, host) = (Arc::clone(self.target), self.place.authority.clone());
        RegistryError::Upload { target, host, fault }
    }

    /// The `Location` of an answer to `call`. A registry behind a proxy that ends TLS writes `http` for its own name:
    /// that is read as the https it is.
    fn location(&self, call: &Call<'_>, headers: &HeaderMap) -> Result<Uri, RegistryError> {
        let text = headers.get(header::LOCATION).and_then(|value: &HeaderValue| value.to_str().ok());
        let base = match &call.place {
            Place::Named(uri) => uri.clone(),
            Place::Path(path) => {
                let scheme = self.core.scheme_of(self.place);
                let home = self.place.uri(scheme, &self.target.repository, path);
                home.ok_or_else(|| self.fault("its address is too long"))?
            }
        };
        let upgraded = text.and_then(|text| same_host(&base, text));
        admit(call, &base, upgraded.as_deref().or(text))
    }
}

/// Bytes that a `Range: 0-LAST` says are there. `0-0` is what registries say of none.
fn range_end(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(header::RANGE)?.to_str().ok()?.trim();
    let (first, last) = text.strip_prefix("bytes=").unwrap_or(text).split_once('-')?;
    let last: u64 = last.parse().ok()?;
    (first == "0").then_some(if last == 0 { 0 } else { last.saturating_add(1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_an_upload_is_read_in_both_forms() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, text.parse().unwrap());
            range_end(&headers)
        };
        assert_eq!(read("0-9"), Some(10));
        assert_eq!(read("bytes=0-9"), Some(10));
        assert_eq!(read("0-0"), Some(0));
        assert_eq!(read("0-18446744073709551615"), Some(u64::MAX));
        for wrong in ["", "5-9", "0-", "0-x", "0", "-5", "bytes 0-9"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
