//! Logging in: what each place wants was learned from its challenges, and is shown to that place alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use storage_model::Digest;
use tokio::time::Instant;

use crate::body::Body;
use crate::call::Call;
use crate::challenge;
use crate::client::Core;
use crate::credentials;
use crate::endpoint::Endpoint;
use crate::fault::{ChallengeFault, RedirectFault};
use crate::location::same_origin;
use crate::payload::{Outgoing, Payload};
use crate::session::{REDIRECTS_MAX, admit, guard_of};
use crate::token::{ANSWER_BYTES_MAX, Access, BearerAsk, Token};
use crate::transport::Patience;
use crate::{Credentials, Login, RegistryError, Target};

/// How long a login found in Docker's configuration is used before it is looked up again: helpers are slow, and
/// their answers expire.
const LOGIN_KEPT: Duration = Duration::from_secs(60);
/// Most entries of each table here; a full table is emptied, which costs a round trip each.
const ENTRIES_MAX: usize = 4096;

/// What a place wants for a repository.
#[derive(Debug, Clone)]
enum Wants {
    Basic,
    Bearer(BearerAsk),
}

/// A token belongs to a host, a service and scope, and a login: no part may differ.
type TokenKey = (String, BearerAsk, Access, Option<Digest>);
/// What Docker's configuration had for a place and repository, and when it was asked.
type Found = (Instant, Option<Credentials>);
type Slot = Arc<tokio::sync::Mutex<Option<Token>>>;

/// What was learned about logging in. Holds secrets, so it has no `Debug`.
#[derive(Default)]
pub(crate) struct Logins {
    wants: Mutex<HashMap<(String, String), Wants>>,
    tokens: Mutex<HashMap<TokenKey, Slot>>,
    found: Mutex<HashMap<(String, String), Found>>,
}

/// Locks, emptying a table that has grown past its limit.
fn bounded<K, V>(table: &Mutex<HashMap<K, V>>) -> std::sync::MutexGuard<'_, HashMap<K, V>> {
    let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
    if table.len() >= ENTRIES_MAX {
        table.clear();
    }
    table
}

/// Where a request goes and what for, as the login sees it.
#[derive(Clone, Copy)]
pub(crate) struct Visit<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) target: &'a Arc<Target>,
    /// What the request needs the right to do.
    pub(crate) access: &'a Access,
    /// Address asked, of the endpoint itself.
    pub(crate) home: &'a Uri,
}

impl Core {
    /// The `Authorization` to send unasked, when the place is known to want one.
    pub(crate) async fn authorization(&self, visit: Visit<'_>) -> Result<Option<HeaderValue>, RegistryError> {
        if visit.endpoint.headers.contains_key(header::AUTHORIZATION) {
            return Ok(None);
        }
        let key = (visit.endpoint.authority.clone(), visit.target.repository.clone());
        let wants = bounded(&self.logins.wants).get(&key).cloned();
        match wants {
            None => Ok(None),
            Some(wants) => self.satisfy(visit, &wants, None).await,
        }
    }

    /// The `Authorization` that answers a 401, given the one that was `refused` by it.
    ///
    /// # Errors
    /// [`RegistryError::Unauthorized`] if nothing better than what was refused can be shown.
    pub(crate) async fn answer(
        &self,
        visit: Visit<'_>,
        headers: &HeaderMap,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue, RegistryError> {
        let fail = |fault| RegistryError::Challenge {
            target: Arc::clone(visit.target),
            host: visit.endpoint.authority.clone(),
            fault,
        };
        let offered: Vec<_> = headers
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .take(challenge::CHALLENGES_MAX)
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        if offered.is_empty() {
            return Err(fail(ChallengeFault::Unreadable));
        }
        let wants = match offered.iter().find(|offer| offer.scheme == "bearer") {
            Some(bearer) => Wants::Bearer(BearerAsk::of(bearer, &visit.target.repository).map_err(fail)?),
            None if offered.iter().any(|offer| offer.scheme == "basic") => Wants::Basic,
            None => return Err(fail(ChallengeFault::Scheme)),
        };
        let key = (visit.endpoint.authority.clone(), visit.target.repository.clone());
        bounded(&self.logins.wants).insert(key, wants.clone());
        match self.satisfy(visit, &wants, refused).await? {
            Some(header) if Some(&header) != refused => Ok(header),
            _ => Err(self.refusal(visit).await),
        }
    }

    /// The error for a place that does not accept what we have. Forgets the login: it may be replaced meanwhile.
    pub(crate) async fn refusal(&self, visit: Visit<'_>) -> RegistryError {
        let login = self.login(visit).await.ok().flatten();
        let key = (visit.endpoint.login.clone(), visit.target.repository.clone());
        bounded(&self.logins.found).remove(&key);
        RegistryError::Unauthorized {
            target: Arc::clone(visit.target),
            host: visit.endpoint.authority.clone(),
            login: login.map_or(Login::Anonymous, |login| login.login()),
        }
    }

    /// The login for a place: the caller's for the registry itself, else the one filed under the place's own name.
    async fn login(&self, visit: Visit<'_>) -> Result<Option<Credentials>, RegistryError> {
        let name = &visit.endpoint.login;
        if *name == visit.target.registry
            && let Some(given) = &self.config.credentials
        {
            return Ok(Some(given.clone()));
        }
        let key = (name.clone(), visit.target.repository.clone());
        if let Some((at, found)) = bounded(&self.logins.found).get(&key)
            && at.elapsed() < LOGIN_KEPT
        {
            return Ok(found.clone());
        }
        let found = credentials::find(self.config.docker_config.as_ref(), name, &key.1).await?;
        bounded(&self.logins.found).insert(key, (Instant::now(), found.clone()));
        Ok(found)
    }

    async fn satisfy(
        &self,
        visit: Visit<'_>,
        wants: &Wants,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let login = self.login(visit).await?;
        match (wants, login) {
            (_, Some(Credentials::RegistryToken(token))) => {
                Ok(credentials::sensitive(&format!("Bearer {}", token.reveal())))
            }
            (Wants::Basic, login) => Ok(login.and_then(|login| login.basic())),
            (Wants::Bearer(ask), login) => self.token(visit, ask, login, refused).await.map(Some),
        }
    }

    /// A token from the table, or a new one. Those who want the same one wait for one request.
    async fn token(
        &self,
        visit: Visit<'_>,
        ask: &BearerAsk,
        login: Option<Credentials>,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue, RegistryError> {
        let id = login.as_ref().map(Credentials::id);
        let key = (visit.endpoint.authority.clone(), ask.clone(), visit.access.clone(), id);
        let slot = Arc::clone(bounded(&self.logins.tokens).entry(key).or_default());
        let mut slot = slot.lock().await;
        if let Some(token) = &*slot
            && Some(&token.header) != refused
            && token.good_until > Instant::now()
        {
            return Ok(token.header.clone());
        }
        *slot = None;
        let token = self.fetch_token(visit, ask, login.as_ref()).await?;
        let header = token.header.clone();
        *slot = Some(token);
        Ok(header)
    }

    async fn fetch_token(
        &self,
        visit: Visit<'_>,
        ask: &BearerAsk,
        login: Option<&Credentials>,
    ) -> Result<Token, RegistryError> {
        let realm = ask.realm.authority().map_or_else(String::new, ToString::to_string);
        let fail =
            |fault| RegistryError::Token { target: Arc::clone(visit.target), realm: realm.clone(), fault };
        let response = self.ask_service(visit, ask, login).await?;
        let status = response.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST) {
            return Err(self.refusal(visit).await);
        }
        if !status.is_success() {
            return Err(self.status_error(response, visit.target, realm, None).await);
        }
        let body = Body::new(response.into_body(), &self.config.retry).collect(ANSWER_BYTES_MAX).await;
        let body = body.map_err(|fault| self.body_error(fault, visit.target, &realm, 0, ANSWER_BYTES_MAX))?;
        Token::parse(&body, Instant::now()).map_err(fail)
    }

    /// Asks the token service, and where it moved to: to another origin without the login. What is posted is not
    /// posted elsewhere.
    async fn ask_service(
        &self,
        visit: Visit<'_>,
        ask: &BearerAsk,
        login: Option<&Credentials>,
    ) -> Result<Response<Incoming>, RegistryError> {
        let refuse = |fault| RegistryError::Challenge {
            target: Arc::clone(visit.target),
            host: visit.endpoint.authority.clone(),
            fault,
        };
        let mut guard = ask.admit(visit.endpoint, visit.home).map_err(refuse)?;
        let request = self.token_request(ask, visit.access, login);
        let mut request = request.ok_or_else(|| refuse(ChallengeFault::Realm))?;
        let call = Call::get(visit.endpoint, visit.target, String::new());
        for _ in 0..REDIRECTS_MAX {
            let (posts, base) = (request.method() == Method::POST, request.uri().clone());
            let mut headers = request.headers().clone();
            let profile = match same_origin(&base, visit.home) {
                true => (*visit.endpoint.profile).clone(),
                false => visit.endpoint.profile.without_identity(),
            };
            let patience = Patience::of(&self.config.retry);
            let response = self.transport.send(request, &profile, guard, patience, visit.target).await?;
            if posts || !matches!(response.status().as_u16(), 301..=303 | 307 | 308) {
                return Ok(response);
            }
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let next = admit(&call, &base, location)?;
            if !same_origin(&base, &next) {
                headers.remove(header::AUTHORIZATION);
                guard = guard_of(visit.endpoint);
            }
            request = Request::new(Outgoing::default());
            (*request.uri_mut(), *request.headers_mut()) = (next, headers);
        }
        Err(RegistryError::Redirect {
            target: Arc::clone(visit.target),
            host: ask.realm.authority().map_or_else(String::new, ToString::to_string),
            fault: RedirectFault::TooMany(REDIRECTS_MAX),
        })
    }

    fn token_request(
        &self,
        ask: &BearerAsk,
        access: &Access,
        login: Option<&Credentials>,
    ) -> Option<Request<Outgoing>> {
        let scope = ask.scope(access);
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        let request = Request::builder()
            .header(header::USER_AGENT, &self.config.user_agent)
            .header(header::ACCEPT, "application/json")
            .header(header::ACCEPT_ENCODING, "identity");
        match login {
            Some(Credentials::IdentityToken(token)) => request
                .method(Method::POST)
                .uri(ask.realm.clone())
                .header(header::CONTENT_TYPE, form.clone())
                .body(Payload::Document(form, ask.form(&scope, token.reveal()).into()).body().ok()?)
                .ok(),
            Some(login @ Credentials::Password { username, .. }) => request
                .uri(ask.address(&scope, Some(username))?)
                .header(header::AUTHORIZATION, login.basic()?)
                .body(Outgoing::default())
                .ok(),
            _ => request.uri(ask.address(&scope, None)?).body(Outgoing::default()).ok(),
        }
    }
}
