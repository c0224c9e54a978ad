//! The connection to the engine: one socket, containerd's services and our own, one namespace.
//!
//! Not here: starting an engine when none answers (`start`).

use std::future::ready;
use std::os::unix::net::UnixStream;
use std::path::Path;

use hyper_util::rt::TokioIo;
use runtime_api::containerd::services::containers::v1::containers_client::ContainersClient as RecordsClient;
use runtime_api::containerd::services::content::v1::ReadContentRequest;
use runtime_api::containerd::services::content::v1::content_client::ContentClient;
use runtime_api::containerd::services::diff::v1::diff_client::DiffClient;
use runtime_api::containerd::services::events::v1::events_client::EventsClient;
use runtime_api::containerd::services::images::v1::images_client::ImagesClient;
use runtime_api::containerd::services::introspection::v1::introspection_client::IntrospectionClient;
use runtime_api::containerd::services::leases::v1::leases_client::LeasesClient;
use runtime_api::containerd::services::namespaces::v1::namespaces_client::NamespacesClient;
use runtime_api::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use runtime_api::containerd::services::tasks::v1::tasks_client::TasksClient;
use runtime_api::windlass::v1::InfoRequest;
use runtime_api::windlass::v1::containers_client::ContainersClient as LivesClient;
use runtime_api::windlass::v1::engine_client::EngineClient;
use runtime_api::windlass::v1::lazy_client::LazyClient;
use runtime_api::{LEASE_HEADER, MESSAGE_BYTES_MAX, NAMESPACE_HEADER};
use storage_model::Namespace;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

use crate::args::Global;
use crate::error::CliError;
use crate::start;

/// What every service's client talks through.
pub(crate) type Link = InterceptedService<Channel, Scope>;

/// Puts the namespace, and the lease if there is one, on each call.
#[derive(Clone)]
pub(crate) struct Scope {
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Scope {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(NAMESPACE_HEADER, self.namespace.clone());
        if let Some(lease) = &self.lease {
            request.metadata_mut().insert(LEASE_HEADER, lease.clone());
        }
        Ok(request)
    }
}

/// An open connection to the engine. A clone is the same connection.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    scope: Scope,
    namespace: Namespace,
}

impl Client {
    /// Connects to the engine that `global` means, starting one if none answers.
    ///
    /// # Errors
    /// [`CliError::Connect`], [`CliError::Start`], or [`CliError::WrongRoot`] when the engine that answers works on
    /// another root than the user named.
    pub(crate) async fn connect(global: &Global) -> Result<Self, CliError> {
        let socket = global.socket();
        let stream = start::connect_or_start(global, &socket)?;
        let mut client = Self::over(stream, &socket, &global.namespace).await?;
        if let Some(lease) = &global.lease {
            client = client.with_lease(lease)?;
        }
        if let Some(wanted) = global.wanted_root() {
            client.check_root(wanted, &socket).await?;
        }
        Ok(client)
    }

    async fn over(stream: UnixStream, socket: &Path, namespace: &Namespace) -> Result<Self, CliError> {
        let failed = |source| CliError::Connect { socket: socket.to_owned(), source };
        stream.set_nonblocking(true).map_err(failed)?;
        let stream = tokio::net::UnixStream::from_std(stream).map_err(failed)?;
        // One connection is enough for one command: when it breaks, the engine is gone and the command has failed.
        let mut once = Some(TokioIo::new(stream));
        let connector = tower::service_fn(move |_: Uri| {
            ready(once.take().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::ConnectionReset)))
        });
        let channel = Endpoint::from_static("http://windlass")
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(STREAM_WINDOW_BYTES)
            .connect_with_connector(connector)
            .await
            .map_err(|error| failed(std::io::Error::other(error)))?;
        // A namespace is made of letters, digits, `-`, `.` and `_` only.
        let value = namespace.as_str().parse().expect("a namespace is visible ASCII");
        let scope = Scope { namespace: value, lease: None };
        Ok(Self { channel, scope, namespace: namespace.clone() })
    }

    async fn check_root(&self, wanted: &Path, socket: &Path) -> Result<(), CliError> {
        let info = self.engine().info(InfoRequest {}).await.map_err(failed("ask the engine for its root"))?;
        let serves = Path::new(&info.get_ref().root).to_owned();
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if real(&serves) == real(wanted) {
            return Ok(());
        }
        Err(CliError::WrongRoot { socket: socket.to_owned(), serves, wanted: wanted.to_owned() })
    }

    /// The namespace of this connection.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The same connection; what its calls make joins the lease `id`.
    ///
    /// # Errors
    /// [`CliError::NotFound`] for an id that cannot travel, and so names no lease.
    pub(crate) fn with_lease(&self, id: &str) -> Result<Self, CliError> {
        let lease = id.parse().map_err(|_| CliError::NotFound {
            kind: "lease",
            name: id.to_owned(),
            namespace: self.namespace.to_string(),
        })?;
        let scope = Scope { lease: Some(lease), ..self.scope.clone() };
        Ok(Self { scope, ..self.clone() })
    }

    /// Windlass's own service.
    pub(crate) fn engine(&self) -> EngineClient<Link> {
        EngineClient::with_interceptor(self.channel.clone(), self.scope.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Images that are shown before they have arrived.
    pub(crate) fn lazy(&self) -> LazyClient<Link> {
        LazyClient::with_interceptor(self.channel.clone(), self.scope.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Containers as containerd's clients see them: their records.
    pub(crate) fn records(&self) -> RecordsClient<Link> {
        RecordsClient::with_interceptor(self.channel.clone(), self.scope.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// What is done with containers.
    pub(crate) fn lives(&self) -> LivesClient<Link> {
        LivesClient::with_interceptor(self.channel.clone(), self.scope.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Processes, as containerd's clients see them.
    pub(crate) fn tasks(&self) -> TasksClient<Link> {
        TasksClient::with_interceptor(self.channel.clone(), self.scope.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Images by name.
    pub(crate) fn images(&self) -> ImagesClient<Link> {
        ImagesClient::with_interceptor(self.channel.clone(), self.scope.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Content by digest.
    pub(crate) fn content(&self) -> ContentClient<Link> {
        ContentClient::with_interceptor(self.channel.clone(), self.scope.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Snapshots by key.
    pub(crate) fn snapshots(&self) -> SnapshotsClient<Link> {
        SnapshotsClient::with_interceptor(self.channel.clone(), self.scope.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Namespaces.
    pub(crate) fn namespaces(&self) -> NamespacesClient<Link> {
        NamespacesClient::with_interceptor(self.channel.clone(), self.scope.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Leases.
    pub(crate) fn leases(&self) -> LeasesClient<Link> {
        LeasesClient::with_interceptor(self.channel.clone(), self.scope.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Layers from trees.
    pub(crate) fn diff(&self) -> DiffClient<Link> {
        DiffClient::with_interceptor(self.channel.clone(), self.scope.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// What happens.
    pub(crate) fn events(&self) -> EventsClient<Link> {
        EventsClient::with_interceptor(self.channel.clone(), self.scope.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// What the engine is made of.
    pub(crate) fn introspection(&self) -> IntrospectionClient<Link> {
        IntrospectionClient::with_interceptor(self.channel.clone(), self.scope.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Content as a stream of messages, from its beginning.
    ///
    /// # Errors
    /// Those of the content service; `NotFound` when it is not here.
    pub(crate) async fn read(
        &self,
        digest: &str,
    ) -> Result<tonic::Streaming<runtime_api::containerd::services::content::v1::ReadContentResponse>, Status>
    {
        let request = ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
        Ok(self.content().read(request).await?.into_inner())
    }
}

/// Bytes the engine may send ahead: two of the 8 MiB messages content comes in.
const STREAM_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// Turns the engine's answer into the failure of `what`.
pub(crate) fn failed(what: impl Into<String>) -> impl FnOnce(Status) -> CliError {
    let what = what.into();
    move |status| CliError::Engine { what, source: Box::new(status) }
}
