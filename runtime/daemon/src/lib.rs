//! The daemon: one engine behind one unix socket, speaking containerd's services and Windlass's own.
//!
//! `private directories -> engine (locks and recovers the root) -> socket -> ready -> serve -> stop`. Whoever can
//! connect may do everything: the socket has mode 0600 in a directory that others cannot write to.
//!
//! On SIGTERM or SIGINT the daemon stops accepting, ends its streams with `Unavailable`, lets calls under way finish for
//! [`GRACE`], and closes the store. SIGKILL at any moment is safe as well: what was acknowledged is on disk, containers run
//! on under their shims, and the next start recovers the rest.
//!
//! Not here: use cases (`runtime-engine`), what a record means (`storage-content`), the wire itself (`runtime-api`).
#![forbid(unsafe_code)]

mod accept;
mod call;
mod change;
mod convert;
mod engine_service;
mod error;
mod exchange;
mod identity;
mod lazy_service;
mod life_service;
mod pipe;
mod plugin;
mod server;
mod services;
mod shim_events;
mod socket;
mod status;
mod stop;
mod streams;

use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

pub use error::DaemonError;
pub use identity::IdentityError;
pub use runtime_engine::Budget;
pub use socket::SocketError;

/// How long calls under way may take to finish once the daemon is stopping.
pub const GRACE: Duration = Duration::from_secs(5);

/// What a daemon is started with.
#[derive(Debug, Clone)]
pub struct DaemonConfig {
    /// Durable data: blobs, snapshots, metadata. Made with mode 0700 when missing.
    pub root: PathBuf,
    /// Data of this boot: bundles and sockets of running containers. Made with mode 0700 when missing.
    pub state: PathBuf,
    /// Path of the socket.
    pub address: PathBuf,
    /// The `windlass` binary, started as shim.
    pub exe: PathBuf,
    /// Directories searched for `<registry>/hosts.toml`, first match first.
    pub hosts_dirs: Vec<PathBuf>,
    /// How much the store may take on the disk; none: as much as there is.
    pub budget: Option<Budget>,
}

/// Runs a daemon until SIGTERM or SIGINT; `ready` is called once, when the socket can be connected to.
///
/// # Errors
/// [`DaemonError`] if the root, the engine or the socket cannot be had, or if serving fails.
pub fn serve(config: DaemonConfig, ready: impl FnOnce()) -> Result<(), DaemonError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("windlass-daemon")
        .build()
        .map_err(DaemonError::Runtime)?;
    let outcome = runtime.block_on(async {
        // Before anything else, so that a signal during a long recovery is not lost.
        let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Runtime)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Runtime)?;
        let asked_to_stop = async move {
            tokio::select! {
                _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
                _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
            }
        };
        serve_until(config, ready, asked_to_stop).await
    });
    runtime.shutdown_timeout(GRACE);
    outcome
}

/// Runs a daemon until `stop` completes; `ready` is called once, when the socket can be connected to.
///
/// Cancel safety: a dropped future stops accepting; connections are served until the runtime ends, as after SIGKILL.
///
/// # Errors
/// [`DaemonError`] if the root, the engine or the socket cannot be had, or if serving fails.
pub async fn serve_until(
    config: DaemonConfig,
    ready: impl FnOnce(),
    stop: impl Future<Output = ()>,
) -> Result<(), DaemonError> {
    let open = tokio::task::spawn_blocking(move || server::Server::open(config));
    let server = open.await.map_err(|_| DaemonError::Worker)??;
    server.serve(ready, stop).await
}
