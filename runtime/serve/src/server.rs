//! Connections in, answers out.

use std::convert::Infallible;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::backend::{Backend, BackendError};
use crate::flights::Flights;
use crate::graph::Graph;
use crate::options::Options;
use crate::reply::{Refusal, Reply, with_body};
use crate::request::{self, Ask};
use crate::stall::Stall;
use crate::tls;
use crate::view::View;

/// Largest head of a request, in bytes. Bodies are never read.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Longest wait for a TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Wait after an accept that failed: the machine is out of descriptors, or of memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why serving did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The certificate or its key cannot be used.
    #[error("cannot use {} for TLS: it should be PEM, and the key that of the first certificate", .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A server's state.
pub(crate) struct Mirror<B> {
    pub(crate) backend: Arc<B>,
    pub(crate) graph: Graph,
    pub(crate) flights: Option<Flights<B>>,
}

/// Serves the images of `backend` to whoever connects to `listener`, until `stop` is done and transfers had
/// [`Options::drain`] to end.
///
/// # Errors
/// [`ServeError::Certificate`], before the first connection. What fails later is the answer to who asked.
///
/// Cancel safety: a dropped future stops at once; pulls under way are abandoned to the engine.
pub async fn serve<B: Backend>(
    listener: TcpListener,
    backend: B,
    options: Options,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let acceptor = options.tls.as_ref().map(tls::acceptor).transpose()?;
    let backend = Arc::new(backend);
    let flights = options.pull_through.clone().map(|through| Flights::new(Arc::clone(&backend), through));
    let mirror = Arc::new(Mirror { backend, graph: Graph::default(), flights });
    let places = Arc::new(Semaphore::new(options.connections_max.max(1)));
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = &mut stop => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (mirror, watcher, acceptor) = (Arc::clone(&mirror), graceful.watcher(), acceptor.clone());
        let idle = options.idle;
        tokio::spawn(async move {
            connection(mirror, stream, acceptor, idle, watcher).await;
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(options.drain, graceful.shutdown()).await.is_err() {
        tracing::info!("transfers were broken off");
    }
    Ok(())
}

async fn connection<B: Backend>(
    mirror: Arc<Mirror<B>>,
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    idle: Duration,
    watcher: Watcher,
) {
    let _ = stream.set_nodelay(true);
    match acceptor {
        None => speak(mirror, stream, idle, watcher).await,
        Some(acceptor) => match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => speak(mirror, stream, idle, watcher).await,
            Ok(Err(error)) => tracing::debug!(%error, "no TLS"),
            Err(_) => tracing::debug!("no TLS in time"),
        },
    }
}

async fn speak<B: Backend>(
    mirror: Arc<Mirror<B>>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    idle: Duration,
    watcher: Watcher,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let mirror = Arc::clone(&mirror);
        async move { Ok::<_, Infallible>(mirror.answer(request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Stall::new(stream, idle)), service);
    if let Err(error) = watcher.watch(served).await {
        tracing::debug!(%error, "a connection ended");
    }
}

impl<B: Backend> Mirror<B> {
    /// The repositories of this moment.
    pub(crate) async fn view(&self) -> Result<View, BackendError> {
        self.backend.images().await.map(View::of)
    }

    /// Answers one request. The body it may have is not read.
    async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Reply {
        let head = request.method() == Method::HEAD;
        let asked = request::parse(request.method(), request.uri());
        let headers = request.headers();
        let answered = match &asked {
            Err(fault) => Err(Refusal::Ask(*fault)),
            Ok(Ask::Root) => Ok(with_body(StatusCode::OK, "application/json", Bytes::from_static(b"{}"))),
            Ok(Ask::Catalog(page)) => self.catalog(page).await,
            Ok(Ask::Tags(name, page)) => self.tags(name, page).await,
            Ok(Ask::Manifest(name, object)) => self.manifest(name, object, headers).await,
            Ok(Ask::Blob(name, digest)) => self.blob(name, digest, headers, head).await,
            Ok(Ask::Referrers(name, digest, kind)) => self.referrers(name, digest, kind.as_deref()).await,
        };
        let mut reply = answered.unwrap_or_else(|refusal| refusal.reply());
        tracing::debug!(method = %request.method(), uri = %request.uri(), status = %reply.status(), "answered");
        let version = HeaderValue::from_static("registry/2.0");
        reply.headers_mut().insert("docker-distribution-api-version", version);
        reply
    }
}
