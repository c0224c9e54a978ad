//! One request on the wire: connections are pooled, answers timed, failures named.
//!
//! Neither redirects nor logins here: see `session.rs`.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, header};
use hyper::body::{Body as _, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::{Client as Pool, Error as PoolError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use storage_model::Digest;
use tower_service::Service;

use crate::error::{causes, io_kind};
use crate::location::{Reach, reach_of};
use crate::payload::{LocalFault, Outgoing};
use crate::proxy::{Dialer, Proxies};
use crate::tls::{Profile, advice};
use crate::{RegistryError, RetryPolicy, Target};

/// Most bytes one read of a body asks the kernel for, and so the largest chunk handed on, in bytes.
///
/// `tests/it/throughput.rs` takes 2.2 to 3.3 GB/s from loopback on two busy cores with anything from 64 KiB to 1 MiB:
/// past this size only memory grows.
const READ_BYTES: usize = 256 * 1024;
/// Idle connections kept to one host.
const IDLE_CONNECTIONS_MAX: usize = 32;
/// How long an idle connection is kept. Servers close theirs after 60 s and more.
const IDLE_TIME: Duration = Duration::from_secs(30);

/// Which addresses a host named by somebody else may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Guard {
    /// The user named the host: any.
    Open,
    /// A registry of this machine named it: none of the link.
    Link,
    /// Any other registry named it: none of the link and none of this machine.
    Internal,
}

impl Guard {
    pub(crate) fn admits(self, reach: Reach) -> bool {
        match self {
            Self::Open => true,
            Self::Link => reach != Reach::Link,
            Self::Internal => !matches!(reach, Reach::Link | Reach::Loopback),
        }
    }
}

/// Asks DNS and drops the addresses the guard refuses, so that a name is no way around it.
#[derive(Clone)]
struct Resolver {
    inner: GaiResolver,
    guard: Guard,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let guard = self.guard;
        let asked = self.inner.call(name);
        Box::pin(async move {
            let found: Vec<SocketAddr> = asked.await?.filter(|a| guard.admits(reach_of(a.ip()))).collect();
            if found.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address we may go to"));
            }
            Ok(found.into_iter())
        })
    }
}

/// TLS over what `proxy.rs` connects; the proxy itself may speak TLS too.
type Direct = HttpConnector<Resolver>;
type Wire = Pool<HttpsConnector<Dialer<Direct, HttpsConnector<Direct>>>, Outgoing>;

/// Pools of connections: one for each way of connecting.
pub(crate) struct Transport {
    proxies: Proxies,
    pools: Mutex<HashMap<(Digest, Guard, bool), Wire>>,
}

impl Transport {
    pub(crate) fn new(proxies: Proxies) -> Self {
        Self { proxies, pools: Mutex::default() }
    }

    fn pool(&self, profile: &Profile, guard: Guard, secure: bool) -> Result<Wire, RegistryError> {
        let key = (profile.id(), guard, secure);
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&key) {
            return Ok(pool.clone());
        }
        let tls = profile.client_config(secure)?;
        let named = self.proxies.are_named();
        let to_proxy = HttpsConnectorBuilder::new()
            .with_tls_config(profile.without_identity().client_config(secure || named)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp(profile, Guard::Open));
        let dialer = Dialer { direct: tcp(profile, guard), to_proxy, proxies: self.proxies.clone() };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(dialer);
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .http1_max_buf_size(READ_BYTES)
            .build(connector);
        pools.insert(key, pool.clone());
        Ok(pool)
    }

    /// Sends one request and waits for the head of its answer, as long as `patience` says.
    ///
    /// Cancel safety: a dropped future closes the connection or leaves it unused in the pool.
    pub(crate) async fn send(
        &self,
        mut request: Request<Outgoing>,
        profile: &Profile,
        guard: Guard,
        patience: Patience,
        target: &Arc<Target>,
    ) -> Result<Response<Incoming>, RegistryError> {
        let secure = request.uri().scheme_str() != Some("http");
        let host = request.uri().authority().map_or_else(String::new, ToString::to_string);
        let (sent, length) = (request.body().sent(), request.body().size_hint().lower());
        if let Some(login) = self.proxies.login(request.uri()) {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, login);
        }
        let pool = self.pool(profile, guard, secure)?;
        let late = |what, after| RegistryError::Timeout {
            target: Arc::clone(target),
            host: host.clone(),
            what,
            after,
        };
        let mut answer = std::pin::pin!(pool.request(request));
        let mut before = 0;
        loop {
            let whole = sent.load(Ordering::Relaxed) == length;
            let wait = if whole { patience.answer } else { patience.stall_window };
            match tokio::time::timeout(wait, &mut answer).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) => return Err(name_failure(error, host, secure, target)),
                Err(_) if whole => return Err(late("no answer", wait)),
                Err(_) => {
                    let now = sent.load(Ordering::Relaxed);
                    if now < length && now - before < patience.stall_bytes_min {
                        return Err(late("it took too few bytes", wait));
                    }
                    before = now;
                }
            }
        }
    }
}

/// What makes connections.
fn tcp(profile: &Profile, guard: Guard) -> Direct {
    let mut tcp = HttpConnector::new_with_resolver(Resolver { inner: GaiResolver::new(), guard });
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(Duration::from_secs(30)));
    tcp.set_connect_timeout(Some(profile.dial_timeout));
    tcp
}

/// How long one request may take: the answer after its last byte was sent, and the bytes before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) answer: Duration,
    pub(crate) stall_window: Duration,
    pub(crate) stall_bytes_min: u64,
}

impl Patience {
    pub(crate) fn of(policy: &RetryPolicy) -> Self {
        let (stall_window, stall_bytes_min) = (policy.stall_window, policy.stall_bytes_min);
        Self { answer: policy.answer_max, stall_window, stall_bytes_min }
    }
}

/// Turns a failure of the pool into one that says what happened.
fn name_failure(error: PoolError, host: String, secure: bool, target: &Arc<Target>) -> RegistryError {
    let target = Arc::clone(target);
    if let Some(LocalFault(source)) = causes(&error).find_map(|cause| cause.downcast_ref::<LocalFault>()) {
        return RegistryError::Source { target, source: io::Error::new(source.kind(), source.to_string()) };
    }
    if let Some(tls) = find_tls(&error) {
        let plain = matches!(tls, rustls::Error::InvalidMessage(_));
        if plain && secure {
            return RegistryError::SpeaksHttp { target, host };
        }
        let advice = advice(tls);
        return RegistryError::Tls { target, host, advice, source: Box::new(tls.clone()) };
    }
    if error.is_connect() {
        let source = innermost(&error);
        if causes(&error).any(|cause| cause.to_string().starts_with("dns error")) {
            return RegistryError::UnknownHost { target, host, source };
        }
        return RegistryError::Connect { target, host, source };
    }
    // hyper tells a head that is too large from one that is no HTTP only in words.
    let parse = |error: &hyper::Error| error.is_parse() && !error.to_string().contains("too large");
    if !secure && causes(&error).any(|cause| cause.downcast_ref::<hyper::Error>().is_some_and(parse)) {
        return RegistryError::SpeaksHttps { target, host };
    }
    RegistryError::Interrupted { target, host, at: 0, source: Some(innermost(&error)) }
}

/// The first TLS error among the causes.
fn find_tls<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    causes(error).find_map(|cause| cause.downcast_ref::<rustls::Error>())
}

/// The last cause of a chain, in its own words: what is above it only says "request failed". Keeps the kind of an
/// `io::Error`.
fn innermost(error: &(dyn StdError + 'static)) -> crate::error::Cause {
    let words = causes(error).last().map_or_else(String::new, ToString::to_string);
    Box::new(io::Error::new(io_kind(error).unwrap_or(io::ErrorKind::Other), words))
}
