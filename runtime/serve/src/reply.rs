//! Answers: the headers that all have, conditions, and errors in the specification's JSON.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{Either, Full};
use serde_json::json;
use storage_model::Digest;
use tonic::Code;

use crate::backend::BackendError;
use crate::digester::Digester;
use crate::request::AskFault;

/// A body: a few bytes, or content.
pub(crate) type Body = Either<Full<Bytes>, Digester>;
/// An answer.
pub(crate) type Reply = Response<Body>;

/// The digest of what an answer holds.
pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Why a question is not answered with what it asks for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// It is no question of this API.
    #[error(transparent)]
    Ask(AskFault),
    /// No such repository.
    #[error("there is no repository {0} here")]
    NoRepository(String),
    /// Several registries have such a repository.
    #[error("{name} is in several registries ({found}): name the registry in the path, or by ns=")]
    Ambiguous {
        /// The name.
        name: String,
        /// Two of those that have it.
        found: String,
    },
    /// No such manifest.
    #[error("there is no manifest {0} here")]
    NoManifest(String),
    /// No such blob.
    #[error("there is no blob {0} here")]
    NoBlob(Digest),
    /// The manifest is of a type the client does not take.
    #[error("the manifest is a {0}, which the client does not accept")]
    NotAccepted(String),
    /// More pulls wait already than anybody waits for.
    #[error("too many pulls are waiting: try again later")]
    Busy,
    /// The pull failed.
    #[error("{0}")]
    Pull(Arc<BackendError>),
    /// The engine failed.
    #[error("{0}")]
    Backend(#[from] BackendError),
}

impl Refusal {
    /// Status and code (distribution-spec, "Error Codes").
    fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Ask(AskFault::Unsupported) => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            Self::Ask(AskFault::Unknown) => (StatusCode::NOT_FOUND, "UNSUPPORTED"),
            Self::Ask(AskFault::Name) => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
            // A tag that cannot be names nothing: the specification knows no code for it.
            Self::Ask(AskFault::Tag) => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            Self::Ask(AskFault::Digest) => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            Self::Ask(AskFault::Number) => (StatusCode::BAD_REQUEST, "PAGINATION_NUMBER_INVALID"),
            Self::NoRepository(_) | Self::Ambiguous { .. } => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
            Self::NoManifest(_) | Self::NotAccepted(_) => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            Self::NoBlob(_) => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            Self::Busy => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
            Self::Pull(error) => match error.code() {
                Some(Code::NotFound) => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
                Some(Code::Unauthenticated | Code::PermissionDenied) => (StatusCode::FORBIDDEN, "DENIED"),
                Some(Code::ResourceExhausted) => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
                _ => (StatusCode::BAD_GATEWAY, "UNAVAILABLE"),
            },
            Self::Backend(BackendError::Unreachable(_)) => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
            Self::Backend(_) => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
        }
    }

    /// The answer that says so.
    pub(crate) fn reply(&self) -> Reply {
        let (status, code) = self.kind();
        let message = match self {
            // What the engine says of itself may name its files.
            Self::Backend(error) => {
                tracing::warn!(error = error as &dyn std::error::Error, "a request failed");
                "the engine behind this mirror failed: its log says more".to_owned()
            }
            other => other.to_string(),
        };
        let body = json!({"errors": [{"code": code, "message": message}]}).to_string();
        let mut reply = with_body(status, "application/json", body.into());
        if status == StatusCode::METHOD_NOT_ALLOWED {
            reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        reply
    }
}

/// An answer with a body in memory.
pub(crate) fn with_body(status: StatusCode, media_type: &str, body: Bytes) -> Reply {
    let length = body.len() as u64;
    let mut reply = Response::new(Either::Left(Full::new(body)));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if let Ok(value) = HeaderValue::from_str(media_type) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    reply
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(Either::Left(Full::default()));
    *reply.status_mut() = status;
    reply
}

/// Names the content of an answer: its digest, which is its `ETag` too, and how long it stays so.
pub(crate) fn name_content(headers: &mut HeaderMap, digest: &Digest, for_ever: bool) {
    let value = |text: String| HeaderValue::from_str(&text).expect("a digest is visible ASCII");
    headers.insert(CONTENT_DIGEST, value(digest.to_string()));
    headers.insert(header::ETAG, value(format!("\"{digest}\"")));
    let kept = if for_ever { "public, max-age=31536000, immutable" } else { "no-cache" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(kept));
}

/// Whether `If-None-Match` says that the client has this content (RFC 9110, section 13.1.2).
pub(crate) fn is_known(headers: &HeaderMap, digest: &Digest) -> bool {
    let tag = format!("\"{digest}\"");
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|text| {
        text.split(',').map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == tag)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_has_the_content_is_told_so_by_any_form_of_its_etag() {
        let digest = Digest::of(b"x");
        let known = |text: String| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, text.parse().unwrap());
            is_known(&headers, &digest)
        };
        assert!(known(format!("\"{digest}\"")));
        assert!(known(format!("\"a\", W/\"{digest}\"")));
        assert!(known("*".to_owned()));
        assert!(!known(digest.to_string()) && !known("\"a\"".to_owned()) && !known(String::new()));
    }
}
