//! Pushing: what is there already, what can be borrowed from another repository, what must be sent.
//!
//! `HEAD -> there? done -> mount from another repository of this registry? done -> upload` (`upload.rs`). Manifests go
//! last, by the caller's order: a registry refuses one whose blobs it does not have.
//!
//! One place is pushed to: the first of `hosts.toml` that may take content, else the registry itself. A push to a
//! second place after the first failed would leave two halves.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use storage_model::{Descriptor, Digest, Reference};

use crate::call::Call;
use crate::client::Core;
use crate::endpoint::{self, Endpoint};
use crate::manifest::{CONTENT_DIGEST, accept_all};
use crate::payload::{Payload, Progress, ReadSeek};
use crate::token::Access;
use crate::upload::Upload;
use crate::{Client, RegistryError, Target};

/// Repositories that are tried as the source of a mount: each costs a round trip.
pub(crate) const MOUNTS_MAX: usize = 3;

/// The access of every request of a push but a mount: one token serves them all.
pub(crate) const PUSH: Access = Access::Push { mount: None };

/// How a blob came to be in the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Existed,
    /// The registry took it from this repository of its own.
    Mounted(String),
    /// Its bytes were sent.
    Sent,
}

impl Client {
    /// Brings a blob into the repository of `reference`, sending bytes only if the registry has them nowhere we know.
    ///
    /// `source` opens the local copy, once an attempt; `mount_from` names repositories of the same registry that may
    /// have the blob (labels `containerd.io/distribution.source.*`); `progress` is told how much is there.
    /// A transfer that breaks is continued at the byte the registry says it has.
    ///
    /// # Errors
    /// [`RegistryError::Unauthorized`], [`RegistryError::Denied`] and [`RegistryError::NoRepository`] are the
    /// registry's word; [`RegistryError::Source`] if the local copy cannot be read, [`RegistryError::Refused`] if what
    /// arrived is not what the digest says; any other if the place could not be reached. Nothing is visible in the
    /// repository then; an unfinished upload is given up to the registry's own cleaning.
    ///
    /// Cancel safety: as after an error.
    pub async fn push_blob<R, S>(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        source: S,
        mount_from: &[String],
        progress: Progress,
    ) -> Result<Pushed, RegistryError>
    where
        R: io::Read + io::Seek + Send + 'static,
        S: Fn() -> io::Result<R> + Send + Sync,
    {
        let open = || source().map(|file| Box::new(file) as Box<dyn ReadSeek>);
        let target = Target::at(reference, descriptor.digest.to_string());
        let place = self.core().push_place(&target)?;
        if self.core().holds(&place, &target, Object::Blob(descriptor)).await? {
            return Ok(Pushed::Existed);
        }
        let mut upload = Upload::new(self.core(), &place, &target, descriptor, &open, progress);
        let others = mount_from.iter().filter(|from| *from != reference.repository());
        for from in others.take(MOUNTS_MAX) {
            if upload.mount(from).await? {
                return Ok(Pushed::Mounted(from.clone()));
            }
        }
        upload.send().await?;
        Ok(Pushed::Sent)
    }

    /// Puts a manifest or index under the tag of `reference`, or under its digest if it has one. All it refers to must
    /// be there.
    ///
    /// If it has a `subject` and the registry has no referrers API, the list that stands for it (distribution-spec,
    /// "Referrers Tag Schema") is brought up to date too.
    ///
    /// # Errors
    /// As [`Client::push_blob`]; [`RegistryError::Status`] holds the registry's words if something that the manifest
    /// refers to is missing; [`RegistryError::DigestMismatch`] if `reference` has another digest than `bytes`.
    ///
    /// Cancel safety: the manifest is there or not.
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Digest, RegistryError> {
        let subject_known = self.core().put_manifest(reference, media_type, bytes.clone()).await?;
        if !subject_known {
            self.core().list_referrer(reference, media_type, &bytes).await?;
        }
        Ok(Digest::of(&bytes))
    }

    /// Whether the repository of `reference` has this blob, asked where a push would go and with the right to push.
    ///
    /// # Errors
    /// As [`Client::push_blob`].
    pub async fn has_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<bool, RegistryError> {
        let target = Target::at(reference, descriptor.digest.to_string());
        let place = self.core().push_place(&target)?;
        self.core().holds(&place, &target, Object::Blob(descriptor)).await
    }

    /// Whether the tag or digest of `reference` is the manifest `digest` in the registry now, asked where a push
    /// would go and with the right to push.
    ///
    /// # Errors
    /// As [`Client::push_blob`].
    pub async fn has_manifest(&self, reference: &Reference, digest: &Digest) -> Result<bool, RegistryError> {
        let target = Target::of(reference);
        let place = self.core().push_place(&target)?;
        self.core().holds(&place, &target, Object::Manifest(digest)).await
    }
}

/// What a repository is asked for.
pub(crate) enum Object<'a> {
    Blob(&'a Descriptor),
    Manifest(&'a Digest),
}

impl Core {
    /// The place that takes content for the registry of `target`.
    pub(crate) fn push_place(&self, target: &Arc<Target>) -> Result<Endpoint, RegistryError> {
        let places = endpoint::endpoints(&self.config, &target.registry)?;
        let takes = places.into_iter().find(|place| place.may.push);
        takes.ok_or_else(|| RegistryError::NoHost { target: Arc::clone(target) })
    }

    /// Whether the repository has `object`. An answer that says neither counts as no: what is sent next tells more.
    pub(crate) async fn holds(
        &self,
        place: &Endpoint,
        target: &Arc<Target>,
        object: Object<'_>,
    ) -> Result<bool, RegistryError> {
        let (path, accept) = match object {
            Object::Blob(_) => (format!("blobs/{}", target.object), None),
            Object::Manifest(_) => (format!("manifests/{}", target.object), Some(accept_all())),
        };
        let get = Call::get(place, target, path);
        let answer = match self.persist(&Call { method: Method::HEAD, access: &PUSH, accept, ..get }).await {
            Ok(answer) => answer,
            Err(RegistryError::NotFound { .. } | RegistryError::Status { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let headers = answer.response.headers();
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        Ok(match object {
            Object::Blob(descriptor) => text(header::CONTENT_LENGTH.as_str())
                .is_none_or(|length| length.parse() == Ok(descriptor.size)),
            Object::Manifest(digest) => {
                let announced = text(CONTENT_DIGEST).and_then(|text| text.parse().ok());
                announced.or_else(|| target.object.parse().ok()) == Some(*digest)
            }
        })
    }

    /// Puts a manifest; gives whether its subject, if it has one, is the registry's business.
    pub(crate) async fn put_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<bool, RegistryError> {
        let target = Target::of(reference);
        let place = self.push_place(&target)?;
        let expected = Digest::of(&bytes);
        let mismatch = |actual| RegistryError::DigestMismatch {
            target: Arc::clone(&target),
            host: place.authority.clone(),
            expected,
            actual,
        };
        if let Some(pinned) = reference.digest().filter(|pinned| **pinned != expected) {
            return Err(mismatch(*pinned));
        }
        let media_type = HeaderValue::from_str(media_type).map_err(|_| RegistryError::MediaType {
            target: Arc::clone(&target),
            host: place.authority.clone(),
            content_type: media_type.chars().take(128).collect(),
        })?;
        let call = Call {
            method: Method::PUT,
            access: &PUSH,
            payload: Payload::Document(media_type, bytes),
            ..Call::get(&place, &target, format!("manifests/{}", target.object))
        };
        let answer = self.persist(&call).await.map_err(pushed_nowhere)?;
        let headers = answer.response.headers();
        let stored = headers.get(CONTENT_DIGEST).and_then(|value| value.to_str().ok());
        match stored.and_then(|text| text.parse().ok()) {
            Some(actual) if actual != expected => Err(mismatch(actual)),
            _ => Ok(headers.contains_key("oci-subject")),
        }
    }
}

/// Says of a push's error what a pull's words would not.
pub(crate) fn pushed_nowhere(error: RegistryError) -> RegistryError {
    match error {
        RegistryError::NotFound { target, host } => {
            RegistryError::NoRepository { target, host, message: String::new() }
        }
        RegistryError::Status { target, host, status: StatusCode::BAD_REQUEST, code, message, .. }
            if code == "DIGEST_INVALID" || code == "SIZE_INVALID" =>
        {
            RegistryError::Refused { target, host, message }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes run in tasks of a runtime with several threads.
    #[test]
    fn every_future_may_move_between_threads() {
        fn moves<T: Send>(_: T) {}
        let client = Client::new(crate::Config::default()).unwrap();
        let reference: Reference = "localhost:1/a".parse().unwrap();
        let descriptor = Descriptor::of("text/plain", b"x");
        let source = || Ok(io::Cursor::new(b"x"));
        moves(client.push_blob(&reference, &descriptor, source, &[], Arc::new(|_| ())));
        moves(client.push_manifest(&reference, "text/plain", Bytes::new()));
        moves(client.has_blob(&reference, &descriptor));
        moves(client.has_manifest(&reference, &descriptor.digest));
        moves(client.referrers(&reference, &descriptor.digest, None));
    }
}
