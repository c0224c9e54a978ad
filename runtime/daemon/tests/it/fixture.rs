//! A daemon for one test.

use std::path::PathBuf;

use hyper_util::rt::TokioIo;
use runtime_api::{LEASE_HEADER, MESSAGE_BYTES_MAX, NAMESPACE_HEADER};
use runtime_daemon::{DaemonConfig, DaemonError, serve_until};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

/// The namespace that tests work in.
pub(crate) const NAMESPACE: &str = "test";

/// A running daemon. Its directory goes with it.
pub(crate) struct Daemon {
    temp: TempDir,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), DaemonError>>,
    pub(crate) channel: Channel,
}

pub(crate) fn config(temp: &TempDir) -> DaemonConfig {
    DaemonConfig {
        root: temp.path().join("root"),
        state: temp.path().join("state"),
        address: temp.path().join("state/w.sock"),
        exe: PathBuf::from("/nonexistent/windlass"),
        hosts_dirs: Vec::new(),
        budget: None,
    }
}

impl Daemon {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    /// Starts a daemon on what is in `temp` already.
    pub(crate) async fn start_in(temp: TempDir) -> Self {
        let config = config(&temp);
        let address = config.address.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = oneshot::channel();
        let task = tokio::spawn(async move {
            let stopped = async move { stopped.await.unwrap_or_default() };
            serve_until(config, move || ready.send(()).unwrap(), stopped).await
        });
        if is_ready.await.is_err() {
            panic!("the daemon did not start: {:?}", task.await);
        }
        let connect = move |_| {
            let address = address.clone();
            async move { UnixStream::connect(address).await.map(TokioIo::new) }
        };
        let endpoint = Endpoint::from_static("http://windlass");
        let channel = endpoint.connect_with_connector(tower::service_fn(connect)).await.unwrap();
        Self { temp, stop, task, channel }
    }

    pub(crate) fn config(&self) -> DaemonConfig {
        config(&self.temp)
    }

    /// Path of the socket.
    pub(crate) fn address(&self) -> PathBuf {
        self.config().address
    }

    /// Stops the daemon and gives its directory back.
    pub(crate) async fn stop(self) -> TempDir {
        let Self { temp, stop, task, channel } = self;
        stop.send(()).unwrap();
        task.await.unwrap().unwrap();
        drop(channel);
        temp
    }
}

/// A request in the tests' namespace.
pub(crate) fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(NAMESPACE_HEADER, NAMESPACE.parse().unwrap());
    request
}

/// A request under a lease.
pub(crate) fn leased<T>(lease: &str, message: T) -> Request<T> {
    let mut request = request(message);
    request.metadata_mut().insert(LEASE_HEADER, lease.parse().unwrap());
    request
}

/// A client of service `$module`, with the limits of real ones.
macro_rules! client {
    ($daemon:expr, $client:ty) => {
        <$client>::new($daemon.channel.clone())
            .max_decoding_message_size($crate::fixture::MESSAGE_BYTES)
            .max_encoding_message_size($crate::fixture::MESSAGE_BYTES)
    };
}
pub(crate) use client;

/// Limit of a client's messages, in bytes: above the daemon's, so that it is the daemon that refuses.
pub(crate) const MESSAGE_BYTES: usize = 2 * MESSAGE_BYTES_MAX;
