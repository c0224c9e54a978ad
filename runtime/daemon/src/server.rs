//! Opening and serving: the order of the daemon's life.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use runtime_api::MESSAGE_BYTES_MAX;
use runtime_api::containerd::services::containers::v1::containers_server::{self, ContainersServer};
use runtime_api::containerd::services::content::v1::content_server::{self, ContentServer};
use runtime_api::containerd::services::diff::v1::diff_server::{self, DiffServer};
use runtime_api::containerd::services::events::v1::events_server::{self, EventsServer};
use runtime_api::containerd::services::images::v1::images_server::{self, ImagesServer};
use runtime_api::containerd::services::introspection::v1::introspection_server::{self, IntrospectionServer};
use runtime_api::containerd::services::leases::v1::leases_server::{self, LeasesServer};
use runtime_api::containerd::services::namespaces::v1::namespaces_server::{self, NamespacesServer};
use runtime_api::containerd::services::snapshots::v1::snapshots_server::{self, SnapshotsServer};
use runtime_api::containerd::services::streaming::v1::streaming_server::{self, StreamingServer};
use runtime_api::containerd::services::tasks::v1::tasks_server::{self, TasksServer};
use runtime_api::containerd::services::transfer::v1::transfer_server::{self, TransferServer};
use runtime_api::containerd::services::version::v1::version_server::{self, VersionServer};
use runtime_api::grpc::health::v1::health_server::HealthServer;
use runtime_api::windlass::v1::containers_server::{self as lives_server, ContainersServer as LivesServer};
use runtime_api::windlass::v1::engine_server::{self, EngineServer};
use runtime_api::windlass::v1::lazy_server::LazyServer;
use runtime_engine::{Engine, EngineConfig};
use tonic::transport::server::Router;

use crate::engine_service::EngineService;
use crate::exchange::Exchange;
use crate::lazy_service::LazyService;
use crate::life_service::LifeService;
use crate::services::containers::ContainersService;
use crate::services::content::ContentService;
use crate::services::diff::DiffService;
use crate::services::events::EventsService;
use crate::services::health::HealthService;
use crate::services::images::ImagesService;
use crate::services::introspection::IntrospectionService;
use crate::services::leases::LeasesService;
use crate::services::namespaces::NamespacesService;
use crate::services::snapshots::SnapshotsService;
use crate::services::streaming::StreamingService;
use crate::services::tasks::TasksService;
use crate::services::transfer::TransferService;
use crate::services::version::VersionService;
use crate::shim_events::ShimEvents;
use crate::socket::{self, Socket};
use crate::stop::{self, Stop};
use crate::streams::Streams;
use crate::{DaemonConfig, DaemonError, GRACE, accept, change, identity};

/// Calls that one connection may have open at once. A client past it waits; a flood of streams costs no more than these.
const STREAMS_MAX: u32 = 128;

/// Streams that a client may have reset before they were accepted (RUSTSEC-2024-0003): a few are normal, many an attack.
const RESETS_MAX: usize = 32;

/// Largest headers of one call, in bytes: a namespace, a lease and what gRPC adds are far below.
const HEADER_BYTES_MAX: u32 = 64 * 1024;

/// Bytes a client may send ahead on one stream: a message of content is up to 8 MiB, so this keeps one in flight.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// Bytes a client may send ahead on all its streams.
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// Between two questions whether a silent client still lives.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// What `health` answers for.
const SERVICES: &[&str] = &[
    containers_server::SERVICE_NAME,
    content_server::SERVICE_NAME,
    diff_server::SERVICE_NAME,
    engine_server::SERVICE_NAME,
    events_server::SERVICE_NAME,
    images_server::SERVICE_NAME,
    introspection_server::SERVICE_NAME,
    leases_server::SERVICE_NAME,
    lives_server::SERVICE_NAME,
    namespaces_server::SERVICE_NAME,
    snapshots_server::SERVICE_NAME,
    streaming_server::SERVICE_NAME,
    tasks_server::SERVICE_NAME,
    transfer_server::SERVICE_NAME,
    version_server::SERVICE_NAME,
];

/// Puts the limits of a message on a service.
macro_rules! limited {
    ($server:ident, $service:expr) => {
        $server::new($service)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    };
}

/// An open engine and a bound socket.
pub(crate) struct Server {
    engine: Engine,
    uuid: String,
    socket: Socket,
    listener: UnixListener,
    exchange: Exchange,
    /// Where shims tell their events; served from the start, as they may be waiting to tell.
    shim_events: ShimEvents,
}

impl Server {
    /// Opens the engine, then the socket: who holds the root may replace a stale socket. Blocks.
    ///
    /// # Errors
    /// [`DaemonError`]; nothing is served then, and the root is free again.
    pub(crate) fn open(config: DaemonConfig) -> Result<Self, DaemonError> {
        for directory in [&config.root, &config.state] {
            make_private(directory)?;
        }
        let root = config.root.clone();
        let engine = Engine::open(EngineConfig {
            root: config.root,
            state: config.state,
            address: config.address.clone(),
            exe: config.exe,
            hosts_dirs: config.hosts_dirs,
            budget: config.budget,
        })?;
        let uuid = identity::uuid(&root)?;
        let (socket, listener) = socket::bind(&config.address)?;
        let exchange = Exchange::new();
        let shim_address = runtime_engine::ttrpc_address(&config.address);
        let shim_events = ShimEvents::serve(&shim_address, exchange.clone())
            .map_err(|source| DaemonError::ShimEvents { path: shim_address, source })?;
        Ok(Self { engine, uuid, socket, listener, exchange, shim_events })
    }

    /// Serves until `stop` completes, then for at most [`GRACE`].
    ///
    /// # Errors
    /// [`DaemonError::Runtime`] or [`DaemonError::Serve`] if the listener fails.
    pub(crate) async fn serve(
        self,
        ready: impl FnOnce(),
        stop: impl Future<Output = ()>,
    ) -> Result<(), DaemonError> {
        let Self { engine, uuid, socket, listener, exchange, shim_events } = self;
        listener.set_nonblocking(true).map_err(DaemonError::Runtime)?;
        let listener = tokio::net::UnixListener::from_std(listener).map_err(DaemonError::Runtime)?;
        let (stopper, stopping) = stop::channel();
        let begun = engine.clone();
        tokio::spawn(async move { begun.complete_all().await });
        let router = router(engine, uuid, exchange, &stopping);
        let serving = router.serve_with_incoming_shutdown(accept::connections(listener), async move {
            stopping.stopping().await;
        });
        tokio::pin!(serving);
        ready();
        let served = tokio::select! {
            served = &mut serving => Some(served),
            () = stop => None,
        };
        stopper.stop();
        // The path goes first: a client that comes now finds no daemon instead of a closed door.
        drop((socket, shim_events));
        let served = match served {
            Some(served) => served,
            None => tokio::time::timeout(GRACE, serving).await.unwrap_or_else(|_| {
                tracing::warn!("some calls did not finish in time and are cut off");
                Ok(())
            }),
        };
        Ok(served?)
    }
}

fn router(engine: Engine, uuid: String, exchange: Exchange, stop: &Stop) -> Router {
    let store = engine.store().clone();
    change::observe(&store, exchange.clone());
    let told = exchange.clone();
    engine.tell_task_events(Arc::new(move |namespace, topic, event| told.tell(namespace, topic, event)));
    let streams = Streams::new(stop.clone());
    let introspection = IntrospectionService::new(store.root(), &engine.snapshotters(), uuid);
    tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .concurrency_limit_per_connection(STREAMS_MAX as usize)
        .http2_max_pending_accept_reset_streams(Some(RESETS_MAX))
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .add_service(limited!(VersionServer, VersionService))
        .add_service(limited!(HealthServer, HealthService::new(SERVICES, stop.clone())))
        .add_service(limited!(IntrospectionServer, introspection))
        .add_service(limited!(NamespacesServer, NamespacesService::new(store.clone())))
        .add_service(limited!(ContentServer, ContentService::new(store.clone(), stop.clone())))
        .add_service(limited!(ImagesServer, ImagesService::new(engine.clone())))
        .add_service(limited!(LeasesServer, LeasesService::new(engine.clone())))
        .add_service(limited!(SnapshotsServer, SnapshotsService::new(engine.clone())))
        .add_service(limited!(DiffServer, DiffService::new(engine.clone())))
        .add_service(limited!(EventsServer, EventsService::new(exchange, stop.clone())))
        .add_service(limited!(StreamingServer, StreamingService::new(streams.clone(), stop.clone())))
        .add_service(limited!(TransferServer, TransferService::new(engine.clone(), streams, stop.clone())))
        .add_service(limited!(ContainersServer, ContainersService::new(engine.clone())))
        .add_service(limited!(TasksServer, TasksService::new(engine.clone(), stop.clone())))
        .add_service(limited!(LazyServer, LazyService::new(engine.clone())))
        .add_service(limited!(LivesServer, LifeService::new(engine.clone(), stop.clone())))
        .add_service(limited!(EngineServer, EngineService::new(engine, stop.clone())))
}

/// Makes `directory` with mode 0700, or makes one that is ours private.
fn make_private(directory: &Path) -> Result<(), DaemonError> {
    let failed =
        |what| move |source: io::Error| DaemonError::Directory { what, path: directory.into(), source };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(failed("create the directory"))?;
    let metadata = fs::metadata(directory).map_err(failed("look at"))?;
    let user = socket::own_uid().map_err(failed("learn who may own"))?;
    if metadata.uid() != user {
        return Err(DaemonError::NotOwned { path: directory.into(), owner: metadata.uid(), user });
    }
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(directory, Permissions::from_mode(0o700)).map_err(failed("close to others"))?;
    }
    Ok(())
}
