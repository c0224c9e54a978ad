//! One request to one place, with all that may come between: login, redirects, a token that has just expired.
//!
//! `send -> 401? log in, once -> redirect? follow, without credentials if the origin changes -> content or error`.
//! Waiting and asking again is `retry.rs`'s part.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
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
use crate::payload::Payload;
use crate::token::Access;
use crate::transport::{Guard, Patience};
use crate::{RegistryError, Target, retry};

/// Most redirects in a row.
const REDIRECTS_MAX: usize = 5;
/// How long the place a blob was redirected to is asked directly. Clouds sign for 5 to 20 minutes.
const REDIRECT_KEPT: Duration = Duration::from_secs(240);
/// Most places remembered.
const REDIRECTS_KEPT_MAX: usize = 4096;
/// Most of an error's body that is read, in bytes.
const ERROR_BYTES_MAX: u64 = 16 * 1024;

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
            blob: None,
        }
    }

    /// Whether it only reads: redirects of every kind may be followed.
    fn reads(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }

    /// Whether `status` is a success: 200, or 206 if a range was asked for; any 2xx for what changes something.
    fn fits(&self, status: StatusCode) -> bool {
        match self.place {
            Place::Path(_) if self.reads() => {
                status == StatusCode::OK || (status == StatusCode::PARTIAL_CONTENT && self.range.is_some())
            }
            _ => status.is_success(),
        }
    }
}

/// A success, as [`Call::fits`] says.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    /// Host that sent it.
    pub(crate) host: String,
}

impl Core {
    /// Asks what `call` says, until it is answered or patience ends.
    pub(crate) async fn persist(&self, call: &Call<'_>) -> Result<Answer, RegistryError> {
        let mut failures = 0;
        loop {
            let error = match self.ask(call).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            failures += 1;
            let Some(wait) = retry::next_wait(&self.config.retry, &error, failures, true) else {
                return Err(error);
            };
            let (name, host) = (call.target.to_string(), &call.endpoint.authority);
            retry::tell(&self.config, &name, host, &error, wait, failures + 1);
            tokio::time::sleep(wait).await;
        }
    }

    /// Asks what `call` says, once.
    pub(crate) async fn ask(&self, call: &Call<'_>) -> Result<Answer, RegistryError> {
        match self.known_scheme(call.endpoint) {
            Some(scheme) => self.ask_by(call, scheme).await,
            None => self.ask_either(call).await,
        }
    }

    /// How `endpoint` is spoken to; `None` if it is on this machine and has not been asked yet.
    fn known_scheme(&self, endpoint: &Endpoint) -> Option<&'static str> {
        match endpoint.scheme {
            Scheme::Http => Some("http"),
            Scheme::Https => Some("https"),
            Scheme::Either => lock(&self.local_schemes).get(&endpoint.authority).copied(),
        }
    }

    /// How `endpoint` has answered.
    pub(crate) fn scheme_of(&self, endpoint: &Endpoint) -> &'static str {
        self.known_scheme(endpoint).unwrap_or("http")
    }

    /// On this machine http is tried first, and https if that is what answers.
    async fn ask_either(&self, call: &Call<'_>) -> Result<Answer, RegistryError> {
        let remember = |scheme| lock(&self.local_schemes).insert(call.endpoint.authority.clone(), scheme);
        match self.ask_by(call, "http").await {
            Err(mixed) if perhaps_https(call, &mixed) => match self.ask_by(call, "https").await {
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

    async fn ask_by(&self, call: &Call<'_>, scheme: &str) -> Result<Answer, RegistryError> {
        if let Some(answer) = self.get_at_remembered(call).await? {
            return Ok(answer);
        }
        let fault = || RegistryError::NoHost { target: Arc::clone(call.target) };
        let path = if let Place::Path(path) = &call.place { path } else { "" };
        let home = call.endpoint.uri(scheme, &call.target.repository, path).ok_or_else(fault)?;
        let start = if let Place::Named(uri) = &call.place { uri } else { &home };
        let visit = Visit { endpoint: call.endpoint, target: call.target, access: call.access, home: &home };
        let mut shown = self.authorization(visit).await?;
        let mut answered = false;
        loop {
            let (response, uri) = self.follow(call, &home, start, shown.as_ref()).await?;
            let host = uri.authority().map_or_else(String::new, ToString::to_string);
            if response.status() == StatusCode::UNAUTHORIZED && same_origin(&uri, &home) {
                if answered {
                    return Err(self.refusal(visit).await);
                }
                shown = Some(self.answer(visit, response.headers(), shown.as_ref()).await?);
                answered = true;
                continue;
            }
            if !call.fits(response.status()) {
                let asked = call.range.as_ref().map(|(offset, _)| *offset);
                return Err(self.status_error(response, call.target, host, asked).await);
            }
            if !same_origin(&uri, &home) {
                self.remember_redirect(call, uri);
            }
            return Ok(Answer { response, host });
        }
    }

    /// Follows redirects from `start`. `shown` and the endpoint's own headers go along while the origin is `home`'s.
    async fn follow(
        &self,
        call: &Call<'_>,
        home: &Uri,
        start: &Uri,
        shown: Option<&HeaderValue>,
    ) -> Result<(Response<Incoming>, Uri), RegistryError> {
        let mut uri = start.clone();
        let mut at_home = same_origin(home, start);
        for _ in 0..=REDIRECTS_MAX {
            let response = self.hop(call, &uri, at_home, shown).await?;
            let redirected = match response.status().as_u16() {
                307 | 308 => true,
                // These would make a GET of what is to be changed.
                301..=303 => call.reads(),
                _ => false,
            };
            if !redirected {
                return Ok((response, uri));
            }
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let next = admit(call, &uri, location)?;
            at_home = at_home && same_origin(home, &next);
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
        let local = |source| RegistryError::Source { target: Arc::clone(call.target), source };
        let mut request = Request::new(call.payload.body().map_err(local)?);
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = uri.clone();
        let headers = request.headers_mut();
        describe(call, headers);
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
        let mut patience = Patience::of(&self.config.retry);
        patience.answer += call.leeway;
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
            Ok(response) if call.fits(response.status()) => return Ok(Some(Answer { response, host })),
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
            StatusCode::FORBIDDEN => RegistryError::Denied { target, host, message: words(&body).1 },
            StatusCode::TOO_MANY_REQUESTS => RegistryError::TooManyRequests { target, host, retry_after },
            // What Go's and nginx's https servers say to plain http.
            StatusCode::BAD_REQUEST if contains(&body, b"HTTPS server") || contains(&body, b"HTTPS port") => {
                RegistryError::SpeaksHttps { target, host }
            }
            _ => {
                let (code, message) = words(&body);
                RegistryError::Status { target, host, status, message, code, retry_after }
            }
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

/// What a `Location` received from `base` means, if it is an address we go to.
///
/// # Errors
/// [`RegistryError::Redirect`]: none, from https to http, or to an address inside this machine or its link.
pub(crate) fn admit(call: &Call<'_>, base: &Uri, location: Option<&str>) -> Result<Uri, RegistryError> {
    let fail = |fault| RegistryError::Redirect {
        target: Arc::clone(call.target),
        host: base.authority().map_or_else(String::new, ToString::to_string),
        fault,
    };
    let next = location.and_then(|location| resolve(base, location));
    let next = next.ok_or_else(|| fail(RedirectFault::Location))?;
    let named = || next.authority().map_or_else(String::new, ToString::to_string);
    if base.scheme_str() == Some("https") && next.scheme_str() == Some("http") {
        return Err(fail(RedirectFault::Downgrade(named())));
    }
    if !same_origin(base, &next) && !guard_of(call.endpoint).admits(reach(next.host().unwrap_or_default())) {
        return Err(fail(RedirectFault::Internal(named())));
    }
    Ok(next)
}

/// Headers that say what the request carries.
fn describe(call: &Call<'_>, headers: &mut HeaderMap) {
    if !call.reads() {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(call.payload.length()));
    }
    match &call.payload {
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

/// Whether an answer to plain http may come from a server that speaks https. To a HEAD it says so without words.
fn perhaps_https(call: &Call<'_>, error: &RegistryError) -> bool {
    match error {
        RegistryError::SpeaksHttps { .. } => true,
        RegistryError::Status { status, .. } => {
            call.method == Method::HEAD && *status == StatusCode::BAD_REQUEST
        }
        _ => false,
    }
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

/// The registry's own code and words (distribution-spec, "Error Codes"), each made one short printable line.
fn words(body: &[u8]) -> (String, String) {
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
    let first =
        serde_json::from_slice::<Errors>(body).ok().and_then(|errors| errors.errors.into_iter().next());
    let Some(One { code, message }) = first else { return Default::default() };
    let line = |text: &str| {
        let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        printable.take(200).collect::<String>().trim().to_owned()
    };
    (line(&code), line(if message.is_empty() { &code } else { &message }))
}
