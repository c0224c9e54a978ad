//! One request to one place, with all that may come between: login, redirects, a token that has just expired.
//!
//! `send -> 401? log in, once -> redirect? follow, without credentials if the origin changes -> content or error`.
//! Waiting and asking again is `retry.rs`'s part.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Deserialize;
use storage_model::Digest;
use tokio::time::Instant;

use crate::auth::Visit;
use crate::body::{Body, BodyFault};
use crate::client::{Core, RedirectKey, lock};
use crate::endpoint::{Endpoint, Scheme};
use crate::error::RedirectFault;
use crate::location::{reach, resolve, same_origin};
use crate::transport::Guard;
use crate::{RegistryError, Target, retry};

/// Most redirects in a row.
const REDIRECTS_MAX: usize = 5;
/// How long the place a blob was redirected to is asked directly. Clouds sign for 5 to 20 minutes.
const REDIRECT_KEPT: Duration = Duration::from_secs(240);
/// Most places remembered.
const REDIRECTS_KEPT_MAX: usize = 4096;
/// Most of an error's body that is read, in bytes.
const ERROR_BYTES_MAX: u64 = 16 * 1024;

/// What to get.
pub(crate) struct Call<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) target: &'a Arc<Target>,
    /// Path below the repository: `manifests/latest`.
    pub(crate) path: String,
    pub(crate) accept: Option<HeaderValue>,
    /// First byte wanted, and the `ETag` of the bytes before it.
    pub(crate) range: Option<(u64, Option<HeaderValue>)>,
    /// Set for blobs: where it was redirected to is remembered.
    pub(crate) blob: Option<Digest>,
}

/// A success: 200, or 206 if a range was asked for.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    /// Host that sent it.
    pub(crate) host: String,
}

impl Core {
    /// Gets what `call` says, once.
    pub(crate) async fn get(&self, call: &Call<'_>) -> Result<Answer, RegistryError> {
        let known = lock(&self.local_schemes).get(&call.endpoint.authority).copied();
        let scheme = match (call.endpoint.scheme, known) {
            (Scheme::Http, _) => "http",
            (Scheme::Https, _) => "https",
            (Scheme::Either, Some(scheme)) => scheme,
            (Scheme::Either, None) => return self.get_either(call).await,
        };
        self.get_by(call, scheme).await
    }

    /// On this machine http is tried first, and https if that is what answers.
    async fn get_either(&self, call: &Call<'_>) -> Result<Answer, RegistryError> {
        let remember = |scheme| lock(&self.local_schemes).insert(call.endpoint.authority.clone(), scheme);
        match self.get_by(call, "http").await {
            Err(mixed @ RegistryError::SpeaksHttps { .. }) => match self.get_by(call, "https").await {
                Err(RegistryError::SpeaksHttp { .. }) => Err(mixed),
                answer => {
                    remember("https");
                    answer
                }
            },
            Ok(answer) => {
                remember("http");
                Ok(answer)
            }
            Err(error) => Err(error),
        }
    }

    async fn get_by(&self, call: &Call<'_>, scheme: &str) -> Result<Answer, RegistryError> {
        if let Some(answer) = self.get_at_remembered(call).await? {
            return Ok(answer);
        }
        let fault = || RegistryError::NoHost { target: Arc::clone(call.target) };
        let home = call.endpoint.uri(scheme, &call.target.repository, &call.path).ok_or_else(fault)?;
        let visit = Visit { endpoint: call.endpoint, target: call.target, home: &home };
        let mut shown = self.authorization(visit).await?;
        let mut answered = false;
        loop {
            let (response, uri) = self.follow(call, &home, shown.as_ref()).await?;
            let host = uri.authority().map_or_else(String::new, ToString::to_string);
            if response.status() == StatusCode::UNAUTHORIZED && same_origin(&uri, &home) {
                if answered {
                    return Err(self.refusal(visit).await);
                }
                shown = Some(self.answer(visit, response.headers(), shown.as_ref()).await?);
                answered = true;
                continue;
            }
            if !fits(call, response.status()) {
                let asked = call.range.as_ref().map(|(offset, _)| *offset);
                return Err(self.status_error(response, call.target, host, asked).await);
            }
            if !same_origin(&uri, &home) {
                self.remember_redirect(call, uri);
            }
            return Ok(Answer { response, host });
        }
    }

    /// Follows redirects from `home`. `shown` and the endpoint's own headers go along while the origin stays.
    async fn follow(
        &self,
        call: &Call<'_>,
        home: &Uri,
        shown: Option<&HeaderValue>,
    ) -> Result<(Response<Incoming>, Uri), RegistryError> {
        let mut uri = home.clone();
        let mut at_home = true;
        for _ in 0..=REDIRECTS_MAX {
            let response = self.hop(call, &uri, at_home, shown).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok((response, uri));
            }
            let fail = |fault| RegistryError::Redirect {
                target: Arc::clone(call.target),
                host: uri.authority().map_or_else(String::new, ToString::to_string),
                fault,
            };
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| resolve(&uri, location));
            let next = next.ok_or_else(|| fail(RedirectFault::Location))?;
            let named = || next.authority().map_or_else(String::new, ToString::to_string);
            if uri.scheme_str() == Some("https") && next.scheme_str() == Some("http") {
                return Err(fail(RedirectFault::Downgrade(named())));
            }
            at_home = at_home && same_origin(home, &next);
            if !at_home && !guard_of(call.endpoint).admits(reach(next.host().unwrap_or_default())) {
                return Err(fail(RedirectFault::Internal(named())));
            }
            uri = next;
        }
        Err(RegistryError::Redirect {
            target: Arc::clone(call.target),
            host: call.endpoint.authority.clone(),
            fault: RedirectFault::TooMany(REDIRECTS_MAX),
        })
    }

    /// One request. Away from home it carries nothing that belongs to the endpoint.
    async fn hop(
        &self,
        call: &Call<'_>,
        uri: &Uri,
        at_home: bool,
        shown: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, RegistryError> {
        let mut request = Request::new(Full::<Bytes>::default());
        *request.uri_mut() = uri.clone();
        let headers = request.headers_mut();
        if at_home {
            headers.extend(call.endpoint.headers.clone());
            if let Some(shown) = shown {
                headers.insert(header::AUTHORIZATION, shown.clone());
            }
        }
        if let Ok(agent) = HeaderValue::from_str(&self.config.user_agent) {
            headers.insert(header::USER_AGENT, agent);
        }
        // A coding would be undone before hashing, and costs the range: the bytes are wanted as they are named.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(accept) = &call.accept {
            headers.insert(header::ACCEPT, accept.clone());
        }
        if let Some((offset, etag)) = &call.range {
            headers.insert(header::RANGE, range_header(*offset));
            if let Some(etag) = etag {
                headers.insert(header::IF_RANGE, etag.clone());
            }
        }
        let patience = self.config.retry.answer_max;
        if at_home {
            let profile = &call.endpoint.profile;
            self.transport.send(request, profile, Guard::Open, patience, call.target).await
        } else {
            let profile = call.endpoint.profile.without_identity();
            let guard = guard_of(call.endpoint);
            self.transport.send(request, &profile, guard, patience, call.target).await
        }
    }

    /// Asks the place a blob was last redirected to, if that is known. Any failure forgets the place; only one that
    /// the registry itself could not mend is returned.
    async fn get_at_remembered(&self, call: &Call<'_>) -> Result<Option<Answer>, RegistryError> {
        let Some(key) = redirect_key(call) else { return Ok(None) };
        let kept = lock(&self.redirects).get(&key).cloned();
        let Some((uri, at)) = kept.filter(|(_, at)| at.elapsed() < REDIRECT_KEPT) else { return Ok(None) };
        let host = uri.authority().map_or_else(String::new, ToString::to_string);
        match self.hop(call, &uri, false, None).await {
            Ok(response) if fits(call, response.status()) => return Ok(Some(Answer { response, host })),
            Ok(response) => {
                tracing::debug!(host, status = %response.status(), age = ?at.elapsed(), "stale redirect")
            }
            Err(error) => tracing::debug!(host, %error, "stale redirect"),
        }
        lock(&self.redirects).remove(&key);
        Ok(None)
    }

    fn remember_redirect(&self, call: &Call<'_>, uri: Uri) {
        let Some(key) = redirect_key(call) else { return };
        let mut redirects = lock(&self.redirects);
        if redirects.len() >= REDIRECTS_KEPT_MAX {
            redirects.clear();
        }
        redirects.insert(key, (uri, Instant::now()));
    }

    /// The error for an answer that is not the content.
    pub(crate) async fn status_error(
        &self,
        response: Response<Incoming>,
        target: &Arc<Target>,
        host: String,
        asked: Option<u64>,
    ) -> RegistryError {
        let target = Arc::clone(target);
        let status = response.status();
        let retry_after = retry::retry_after(&self.config.retry, response.headers());
        if let (StatusCode::RANGE_NOT_SATISFIABLE, Some(asked)) = (status, asked) {
            return RegistryError::WrongRange { target, host, asked, got: "none (416)".to_owned() };
        }
        let body = Body::new(response.into_body(), &self.config.retry).collect(ERROR_BYTES_MAX);
        let body = tokio::time::timeout(Duration::from_secs(5), body).await;
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        match status {
            StatusCode::NOT_FOUND => RegistryError::NotFound { target, host },
            StatusCode::UNAUTHORIZED => {
                RegistryError::Unauthorized { target, host, login: crate::Login::Anonymous }
            }
            StatusCode::FORBIDDEN => RegistryError::Denied { target, host, message: message(&body) },
            StatusCode::TOO_MANY_REQUESTS => RegistryError::TooManyRequests { target, host, retry_after },
            // What Go's and nginx's https servers say to plain http.
            StatusCode::BAD_REQUEST if contains(&body, b"HTTPS server") || contains(&body, b"HTTPS port") => {
                RegistryError::SpeaksHttps { target, host }
            }
            _ => RegistryError::Status { target, host, status, message: message(&body), retry_after },
        }
    }

    /// The error for a body that failed `at` bytes into the content.
    pub(crate) fn body_error(
        &self,
        fault: BodyFault,
        target: &Arc<Target>,
        host: &str,
        at: u64,
        max: u64,
    ) -> RegistryError {
        let (target, host) = (Arc::clone(target), host.to_owned());
        match fault {
            BodyFault::Broken(error) => {
                RegistryError::Interrupted { target, host, at, source: Some(Box::new(error)) }
            }
            BodyFault::Stalled(after) => {
                RegistryError::Timeout { target, host, what: "too few bytes", after }
            }
            BodyFault::TooLarge => RegistryError::TooLarge { target, max },
        }
    }
}

fn fits(call: &Call<'_>, status: StatusCode) -> bool {
    status == StatusCode::OK || (status == StatusCode::PARTIAL_CONTENT && call.range.is_some())
}

fn guard_of(endpoint: &Endpoint) -> Guard {
    if endpoint.is_local() { Guard::Link } else { Guard::Internal }
}

fn range_header(offset: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("bytes={offset}-")).expect("digits are a header value")
}

fn redirect_key(call: &Call<'_>) -> Option<RedirectKey> {
    let place = format!("{}{}", call.endpoint.authority, call.endpoint.prefix);
    Some((place, call.target.repository.clone(), call.blob?))
}

fn contains(body: &[u8], words: &[u8]) -> bool {
    body.windows(words.len()).any(|window| window == words)
}

/// The registry's own words (distribution-spec, "Error Codes"), made one short printable line.
fn message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let text = match serde_json::from_slice::<Errors>(body).map(|errors| errors.errors.into_iter().next()) {
        Ok(Some(One { code, message })) if message.is_empty() => code,
        Ok(Some(One { message, .. })) => message,
        _ => String::new(),
    };
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    line.take(200).collect::<String>().trim().to_owned()
}
