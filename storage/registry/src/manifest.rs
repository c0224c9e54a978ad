//! Manifests: a tag read once and proved, a digest fetched and proved.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use serde::Deserialize;
use storage_model::{Descriptor, Digest, Reference, limits, media};

use crate::body::{Body, BodyFault};
use crate::call::Call;
use crate::client::{Core, Resolved};
use crate::endpoint::Endpoint;
use crate::{RegistryError, Target, retry};

/// Header in which registries announce a manifest's digest (distribution-spec).
pub(crate) const CONTENT_DIGEST: &str = "docker-content-digest";

/// A document as it came.
struct Fetched {
    bytes: Bytes,
    headers: HeaderMap,
    host: String,
}

/// What a document must be.
struct Wanted {
    target: Arc<Target>,
    accept: HeaderValue,
    /// Its digest; absent for a tag, where the registry's announcement must hold instead.
    digest: Option<Digest>,
    /// Its size in bytes; absent when nobody said it.
    size: Option<u64>,
}

impl Core {
    /// Resolves `reference` with one request to the first place that can.
    pub(crate) async fn resolve(&self, reference: &Reference) -> Result<Resolved, RegistryError> {
        let wanted = Wanted {
            target: Target::of(reference),
            accept: accept_all(),
            digest: reference.digest().copied(),
            size: None,
        };
        let fetched = self.document(reference, &wanted).await?;
        let media_type = media_type(&fetched, &wanted.target)?;
        let descriptor = Descriptor::of(media_type, &fetched.bytes);
        Ok(Resolved { descriptor, bytes: Some(fetched.bytes) })
    }

    /// Fetches the manifest `descriptor` names, and proves it.
    pub(crate) async fn manifest(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Bytes, RegistryError> {
        let target = Target::at(reference, descriptor.digest.to_string());
        if descriptor.size > limits::MANIFEST_BYTES_MAX {
            return Err(RegistryError::TooLarge { target, max: limits::MANIFEST_BYTES_MAX });
        }
        let wanted = Wanted {
            target,
            accept: HeaderValue::from_str(&descriptor.media_type).unwrap_or_else(|_| accept_all()),
            digest: Some(descriptor.digest),
            size: Some(descriptor.size),
        };
        Ok(self.document(reference, &wanted).await?.bytes)
    }

    /// Asks each place in turn, with retries at each, until one gives what is wanted.
    async fn document(&self, reference: &Reference, wanted: &Wanted) -> Result<Fetched, RegistryError> {
        let by_tag = wanted.digest.is_none();
        let places = self.places(reference.registry(), &wanted.target, by_tag, wanted.digest.as_ref())?;
        let name = wanted.target.to_string();
        let (mut at, mut failures) = (0, 0);
        loop {
            let error = match self.fetch(&places[at], wanted).await {
                Ok(fetched) => return Ok(fetched),
                Err(error) => error,
            };
            failures += 1;
            let (host, last) = (&places[at].authority, at + 1 == places.len());
            match retry::next_wait(&self.config.retry, &error, failures, last) {
                Some(wait) => {
                    retry::tell(&self.config, &name, host, &error, wait, failures + 1);
                    tokio::time::sleep(wait).await;
                }
                None if last => return Err(error),
                None => {
                    retry::tell_skipped(&self.config, &name, host, &error);
                    (at, failures) = (at + 1, 0);
                }
            }
        }
    }

    /// Asks one place, once, and proves what came.
    async fn fetch(&self, endpoint: &Endpoint, wanted: &Wanted) -> Result<Fetched, RegistryError> {
        let path = format!("manifests/{}", wanted.target.object);
        let accept = Some(wanted.accept.clone());
        let call = Call { accept, ..Call::get(endpoint, &wanted.target, path) };
        let answer = self.ask(&call).await?;
        let host = answer.host;
        let (head, body) = answer.response.into_parts();
        let max = wanted.size.unwrap_or(limits::MANIFEST_BYTES_MAX);
        let bytes = match Body::new(body, &self.config.retry).collect(max).await {
            Ok(bytes) => bytes,
            Err(BodyFault::TooLarge) if wanted.size.is_some() => {
                return Err(wrong_size(wanted, host, max + 1));
            }
            Err(fault) => return Err(self.body_error(fault, &wanted.target, &host, 0, max)),
        };
        let fetched = Fetched { bytes, headers: head.headers, host };
        prove(wanted, &fetched)?;
        Ok(fetched)
    }
}

/// Checks the size and digest that were asked for; for a tag, the digest that the registry announced.
fn prove(wanted: &Wanted, fetched: &Fetched) -> Result<(), RegistryError> {
    let length = fetched.bytes.len() as u64;
    if wanted.size.is_some_and(|size| size != length) {
        return Err(wrong_size(wanted, fetched.host.clone(), length));
    }
    let announced = fetched.headers.get(CONTENT_DIGEST).and_then(|value| value.to_str().ok());
    let announced = announced.and_then(|text| text.parse().ok());
    let actual = Digest::of(&fetched.bytes);
    match wanted.digest.or(announced) {
        Some(expected) if expected != actual => Err(RegistryError::DigestMismatch {
            target: Arc::clone(&wanted.target),
            host: fetched.host.clone(),
            expected,
            actual,
        }),
        _ => Ok(()),
    }
}

fn wrong_size(wanted: &Wanted, host: String, actual: u64) -> RegistryError {
    let expected = wanted.size.unwrap_or_default();
    RegistryError::SizeMismatch { target: Arc::clone(&wanted.target), host, expected, actual }
}

pub(crate) fn accept_all() -> HeaderValue {
    HeaderValue::from_str(&media::MANIFEST_TYPES.join(", ")).expect("media types are header values")
}

/// What a document is: its `Content-Type`, or what it says itself if the server only knows that it is JSON or text.
fn media_type(fetched: &Fetched, target: &Arc<Target>) -> Result<String, RegistryError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Inside {
        media_type: Option<String>,
    }
    let header = fetched.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let announced = header.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let general = ["", "application/json", "text/plain", "application/octet-stream", "binary/octet-stream"];
    if !general.contains(&announced) {
        return Ok(announced.chars().take(128).collect());
    }
    let inside = serde_json::from_slice::<Inside>(&fetched.bytes).ok().and_then(|inside| inside.media_type);
    inside.filter(|media_type| media_type.len() <= 128).ok_or_else(|| RegistryError::MediaType {
        target: Arc::clone(target),
        host: fetched.host.clone(),
        content_type: announced.to_owned(),
    })
}
