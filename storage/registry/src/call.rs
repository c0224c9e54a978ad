//! What one request asks, before anything is known of how it will be answered.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use storage_model::Digest;

use crate::Target;
use crate::endpoint::Endpoint;
use crate::payload::Payload;
use crate::token::Access;

/// Where a request goes.
#[derive(Clone)]
pub(crate) enum Place {
    /// Path below the repository: `manifests/latest`. May end with a query.
    Path(String),
    /// An address that the registry named before: that of an upload.
    Named(Uri),
}

/// What to ask.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) target: &'a Arc<Target>,
    pub(crate) access: &'a Access,
    pub(crate) place: Place,
    pub(crate) payload: Payload<'a>,
    /// Added to how long an answer may take: registries hash what they were given before they answer.
    pub(crate) leeway: Duration,
    pub(crate) accept: Option<HeaderValue>,
    /// First byte wanted, and the `ETag` of the bytes before it.
    pub(crate) range: Option<(u64, Option<HeaderValue>)>,
    /// Last byte wanted, if not all from there on. Means something only with `range`.
    pub(crate) last: Option<u64>,
    /// Set for blobs: where it was redirected to is remembered.
    pub(crate) blob: Option<Digest>,
}

impl<'a> Call<'a> {
    /// The call that reads `path`; the fields say what else is wanted.
    pub(crate) fn get(endpoint: &'a Endpoint, target: &'a Arc<Target>, path: String) -> Self {
        Self {
            method: Method::GET,
            endpoint,
            target,
            access: &Access::Pull,
            place: Place::Path(path),
            payload: Payload::Nothing,
            leeway: Duration::ZERO,
            accept: None,
            range: None,
            last: None,
            blob: None,
        }
    }

    /// Whether it only reads: redirects of every kind may be followed.
    pub(crate) fn reads(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }

    /// Whether `status` is a success: 200, or 206 if a range was asked for; any 2xx for what changes something.
    pub(crate) fn fits(&self, status: StatusCode) -> bool {
        match self.place {
            Place::Path(_) if self.reads() => {
                status == StatusCode::OK || (status == StatusCode::PARTIAL_CONTENT && self.range.is_some())
            }
            _ => status.is_success(),
        }
    }

    /// Writes the headers that say what is wanted and what is carried.
    pub(crate) fn describe(&self, headers: &mut HeaderMap) {
        if let Some(accept) = &self.accept {
            headers.insert(header::ACCEPT, accept.clone());
        }
        if let Some((offset, etag)) = &self.range {
            headers.insert(header::RANGE, range_header(*offset, self.last));
            if let Some(etag) = etag {
                headers.insert(header::IF_RANGE, etag.clone());
            }
        }
        if !self.reads() {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.payload.length()));
        }
        match &self.payload {
            Payload::Nothing => {}
            Payload::Document(media_type, _) => {
                headers.insert(header::CONTENT_TYPE, media_type.clone());
            }
            Payload::Section { offset, length, ranged, .. } => {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
                // The distribution-spec's own form, without a unit or a total. No section is empty.
                let range = format!("{offset}-{}", offset + length.saturating_sub(1));
                if let (true, Ok(range)) = (*ranged, HeaderValue::from_str(&range)) {
                    headers.insert(header::CONTENT_RANGE, range);
                }
            }
        }
    }
}

fn range_header(offset: u64, last: Option<u64>) -> HeaderValue {
    let last = last.map_or_else(String::new, |last| last.to_string());
    HeaderValue::from_str(&format!("bytes={offset}-{last}")).expect("digits are a header value")
}
