//! The engine behind its socket.
//!
//! The connection is made when it is needed and made again after the engine was restarted: a mirror outlives it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use runtime_api::containerd::services::content::v1::content_client::ContentClient;
use runtime_api::containerd::services::content::v1::{InfoRequest, ReadContentRequest};
use runtime_api::containerd::services::images::v1::ListImagesRequest;
use runtime_api::containerd::services::images::v1::images_client::ImagesClient;
use runtime_api::windlass::v1::engine_client::EngineClient;
use runtime_api::windlass::v1::pull_event::Event;
use runtime_api::windlass::v1::{PullRequest, RegistryOptions};
use runtime_api::{MESSAGE_BYTES_MAX, NAMESPACE_HEADER};
use storage_model::{Descriptor, Digest, Namespace, Reference};
use tokio_stream::StreamExt as _;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};

use crate::backend::{Backend, BackendError, Content, Image, PullReport};

/// Bytes that may be on their way for one call, and for all.
const WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// One namespace of the engine at a socket. A clone is the same connection.
#[derive(Debug, Clone)]
pub struct Socket {
    channel: Channel,
    namespace: MetadataValue<Ascii>,
}

impl Socket {
    /// The engine at `path`. Nothing is connected yet.
    pub fn new(path: &Path, namespace: &Namespace) -> Self {
        let path: Arc<PathBuf> = Arc::new(path.to_owned());
        let connector = tower::service_fn(move |_: Uri| {
            let path = Arc::clone(&path);
            async move { tokio::net::UnixStream::connect(&*path).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://windlass")
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES * 4)
            .connect_with_connector_lazy(connector);
        let namespace = namespace.as_str().parse().expect("a namespace is visible ASCII");
        Self { channel, namespace }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(NAMESPACE_HEADER, self.namespace.clone());
        request
    }
}

impl Backend for Socket {
    async fn images(&self) -> Result<Vec<Image>, BackendError> {
        let mut client =
            ImagesClient::new(self.channel.clone()).max_decoding_message_size(4 * MESSAGE_BYTES_MAX);
        let listed = client.list(self.request(ListImagesRequest { filters: Vec::new() })).await;
        let listed = listed.map_err(|status| BackendError::of("list images", status))?;
        Ok(listed.into_inner().images.into_iter().filter_map(image).collect())
    }

    async fn size(&self, digest: &Digest) -> Result<Option<u64>, BackendError> {
        let mut client = ContentClient::new(self.channel.clone());
        match client.info(self.request(InfoRequest { digest: digest.to_string() })).await {
            Ok(info) => {
                let info =
                    info.into_inner().info.ok_or(BackendError::Nonsense("content without its record"))?;
                u64::try_from(info.size).map(Some).map_err(|_| BackendError::Nonsense("a negative size"))
            }
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(BackendError::of("look for content", status)),
        }
    }

    async fn read(&self, digest: &Digest, offset: u64, length: u64) -> Result<Option<Content>, BackendError> {
        if length == 0 {
            // To containerd's service a size of 0 means all that is left.
            return Ok(Some(Box::pin(tokio_stream::empty())));
        }
        let mut client =
            ContentClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let signed =
            |number: u64| i64::try_from(number).map_err(|_| BackendError::Nonsense("a size past 2^63"));
        let (offset, size) = (signed(offset)?, signed(length)?);
        let failed = |status| BackendError::of("read content", status);
        match client.read(self.request(ReadContentRequest { digest: digest.to_string(), offset, size })).await
        {
            Ok(stream) => {
                let stream = stream.into_inner();
                Ok(Some(Box::pin(stream.map(move |part| part.map(|part| part.data).map_err(failed)))))
            }
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(failed(status)),
        }
    }

    async fn pull(
        &self,
        reference: &Reference,
        all: bool,
        registry: &RegistryOptions,
        report: impl Fn(PullReport) + Send + Sync,
    ) -> Result<(), BackendError> {
        let failed = |status: Status| BackendError::of("pull it", status);
        let request = PullRequest {
            reference: reference.to_string(),
            plain_http: registry.plain_http,
            skip_verify: registry.skip_verify,
            ca_file: registry.ca_file.clone(),
            hosts_dir: registry.hosts_dir.clone(),
            credentials: registry.credentials.clone(),
            docker_config: registry.docker_config.clone(),
            all_platforms: all,
            no_unpack: true,
            ..PullRequest::default()
        };
        let mut events = EngineClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .pull(self.request(request))
            .await
            .map_err(failed)?
            .into_inner();
        while let Some(event) = events.message().await.map_err(failed)? {
            match event.event {
                Some(Event::Resolved(resolved)) => {
                    let digest = resolved.digest.parse();
                    report(PullReport::Resolved(digest.map_err(|_| BackendError::Nonsense("no digest"))?));
                }
                Some(Event::Done(_)) => return Ok(()),
                _ => report(PullReport::Progress),
            }
        }
        Err(BackendError::Nonsense("a pull without an end"))
    }
}

/// An image on the wire as ours; none if its target is nothing that can be served.
fn image(image: runtime_api::containerd::services::images::v1::Image) -> Option<Image> {
    let target = image.target?;
    let size = u64::try_from(target.size).ok()?;
    let target = Descriptor::new(target.media_type, target.digest.parse().ok()?, size);
    Some(Image { name: image.name, target })
}
