//! Proxies: which requests go through one, and how it is spoken to.
//!
//! The variables are those of curl and Go (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, in either case), read when
//! a configuration is made. https goes through a tunnel (`CONNECT`), so that the proxy sees no request and no
//! credentials; http goes to the proxy as it is. This machine is never asked through a proxy.
//!
//! The proxy's own login is shown to the proxy alone. The address of a registry is looked up by the proxy, so
//! [`Guard`](crate::transport::Guard) holds for names only where there is none; addresses are refused either way.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use tower_service::Service;

use crate::error::Cause;
use crate::location::{Reach, reach};

/// Which proxies are used.
#[derive(Clone, Default)]
pub struct Proxies(Option<Arc<Matcher>>);

impl Proxies {
    /// None: every registry is asked directly.
    pub fn none() -> Self {
        Self(None)
    }

    /// As the environment of this process says.
    pub fn from_environment() -> Self {
        Self(Some(Arc::new(Matcher::from_env())))
    }

    /// This proxy for http and https, but for the hosts in `except` (the syntax of `NO_PROXY`).
    pub fn through(proxy: &str, except: &str) -> Self {
        Self(Some(Arc::new(Matcher::builder().all(proxy.to_owned()).no(except.to_owned()).build())))
    }

    /// Whether one is named for https or http.
    pub(crate) fn are_named(&self) -> bool {
        let any = ["https://registry.invalid/", "http://registry.invalid/"];
        any.iter().any(|address| self.of(&Uri::from_static(address)).is_some())
    }

    /// The proxy for `address`, if it is reached through one.
    pub(crate) fn of(&self, address: &Uri) -> Option<Intercept> {
        let outside = reach(address.host().unwrap_or_default()) != Reach::Loopback;
        self.0.as_ref().filter(|_| outside)?.intercept(address)
    }

    /// The login of the proxy that a request to `address` is handed to as it is.
    pub(crate) fn login(&self, address: &Uri) -> Option<HeaderValue> {
        let plain = address.scheme_str() == Some("http");
        self.of(address).filter(|_| plain)?.basic_auth().cloned()
    }
}

/// Says whether there are any, not which: an address may hold a password.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Proxies(as configured)" } else { "Proxies(none)" })
    }
}

/// Connects directly or to the proxy: the connector below TLS.
#[derive(Clone)]
pub(crate) struct Dialer<D, P> {
    /// Connects to registries, guarded.
    pub(crate) direct: D,
    /// Connects to proxies, which the user named.
    pub(crate) to_proxy: P,
    pub(crate) proxies: Proxies,
}

impl<D, P> Service<Uri> for Dialer<D, P>
where
    D: Service<Uri>,
    D::Response: Send + 'static,
    D::Error: Into<Cause>,
    D::Future: Send + 'static,
    P: Service<Uri> + Clone + Send + 'static,
    P::Response: Read + Write + Unpin + Send + 'static,
    P::Error: Into<Cause>,
    P::Future: Send + 'static,
{
    type Response = Link<D::Response, P::Response>;
    type Error = Cause;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Cause>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        self.direct.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        let Some(proxy) = self.proxies.of(&address) else {
            let direct = self.direct.call(address);
            return Box::pin(async move { direct.await.map(Link::Direct).map_err(Into::into) });
        };
        if address.scheme_str() == Some("http") {
            let connecting = self.to_proxy.call(proxy.uri().clone());
            return Box::pin(async move { connecting.await.map(Link::Proxy).map_err(Into::into) });
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.to_proxy.clone());
        if let Some(login) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(login.clone());
        }
        let tunnel = tunnel.call(address);
        Box::pin(async move { tunnel.await.map(Link::Tunnel).map_err(Cause::from) })
    }
}

/// A connection, and to whom.
pub(crate) enum Link<D, P> {
    Direct(D),
    /// To a proxy that is handed whole requests.
    Proxy(P),
    /// Through a proxy.
    Tunnel(P),
}

impl<D: Connection, P: Connection> Connection for Link<D, P> {
    fn connected(&self) -> Connected {
        match self {
            Self::Direct(link) => link.connected(),
            Self::Proxy(link) => link.connected().proxy(true),
            Self::Tunnel(link) => link.connected(),
        }
    }
}

impl<D: Read + Unpin, P: Read + Unpin> Read for Link<D, P> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(link) => Pin::new(link).poll_read(context, buffer),
            Self::Proxy(link) | Self::Tunnel(link) => Pin::new(link).poll_read(context, buffer),
        }
    }
}

impl<D: Write + Unpin, P: Write + Unpin> Write for Link<D, P> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Direct(link) => Pin::new(link).poll_write(context, bytes),
            Self::Proxy(link) | Self::Tunnel(link) => Pin::new(link).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(link) => Pin::new(link).poll_flush(context),
            Self::Proxy(link) | Self::Tunnel(link) => Pin::new(link).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(link) => Pin::new(link).poll_shutdown(context),
            Self::Proxy(link) | Self::Tunnel(link) => Pin::new(link).poll_shutdown(context),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Direct(link) => link.is_write_vectored(),
            Self::Proxy(link) | Self::Tunnel(link) => link.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Direct(link) => Pin::new(link).poll_write_vectored(context, parts),
            Self::Proxy(link) | Self::Tunnel(link) => Pin::new(link).poll_write_vectored(context, parts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_and_this_machine_are_asked_directly() {
        let proxies = Proxies::through("http://user:secret@proxy.example:3128", "inside.example,10.0.0.0/8");
        let through = |address: &str| proxies.of(&address.parse().unwrap()).is_some();
        assert!(through("https://ghcr.io/v2/") && through("http://r.example:5000/v2/"));
        for direct in [
            "https://inside.example/",
            "https://r.inside.example/",
            "http://10.1.2.3:5000/",
            "http://127.0.0.1:5000/",
            "https://localhost/",
            "http://[::1]:5000/",
        ] {
            assert!(!through(direct), "{direct}");
        }
        assert!(proxies.login(&"http://r.example/".parse().unwrap()).is_some());
        assert!(proxies.login(&"https://r.example/".parse().unwrap()).is_none());
        assert!(!format!("{proxies:?}").contains("secret"));
        assert!(Proxies::none().of(&"https://ghcr.io/".parse().unwrap()).is_none());
    }
}
