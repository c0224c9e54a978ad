//! One request to one place, with all that may come between: login, redirects, a token that has just expired.
//!
//! `send -> 401? log in, once -> redirect? follow, without credentials if the origin changes -> content or error`.
//! Waiting and asking again is `retry.rs`'s part.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::auth::Visit;
use crate::call::{Call, Place};
use crate::client::{Core, RedirectKey, lock};
use crate::endpoint::{Endpoint, Scheme};
use crate::fault::RedirectFault;
use crate::location::{reach, resolve, same_origin};
use crate::transport::{Guard, Patience};
use crate::{RegistryError, retry};

/// Most redirects in a row.
pub(crate) const REDIRECTS_MAX: usize = 5;
/// How long the place a blob was redirected to is asked directly. Clouds sign for 5 to 20 minutes.
const REDIRECT_KEPT: Duration = Duration::from_secs(240);
/// Most places remembered.
const REDIRECTS_KEPT_MAX: usize = 4096;
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
        call.describe(headers);
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

pub(crate) fn guard_of(endpoint: &Endpoint) -> Guard {
    if endpoint.is_local() { Guard::Link } else { Guard::Internal }
}

fn redirect_key(call: &Call<'_>) -> Option<RedirectKey> {
    let place = format!("{}{}", call.endpoint.authority, call.endpoint.prefix);
    Some((place, call.target.repository.clone(), call.blob?))
}
