//! containerd's services over a unix socket: the same calls for every engine that speaks them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use runtime_api::containerd::services::content::v1::content_client::ContentClient;
use runtime_api::containerd::services::content::v1::{WriteAction, WriteContentRequest};
use runtime_api::containerd::services::leases::v1::leases_client::LeasesClient;
use runtime_api::containerd::services::leases::v1::{CreateRequest, DeleteRequest};
use runtime_api::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use runtime_api::containerd::services::snapshots::v1::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
};
use runtime_api::{LEASE_HEADER, MESSAGE_BYTES_MAX, NAMESPACE_HEADER};
use storage_model::Digest;
use tonic::Request;
use tonic::transport::{Channel, Endpoint, Uri};

/// Snapshotter and namespace of everything here.
const SNAPSHOTTER: &str = "overlayfs";
const NAMESPACE: &str = "bench";

/// Bytes of one message of content: what containerd's own client sends at most.
const PIECE_BYTES: usize = 8 * 1024 * 1024;

/// One engine's services.
#[derive(Clone)]
pub(crate) struct Api {
    channel: Channel,
    lease: Option<String>,
}

impl Api {
    /// Connects to the engine behind `socket`.
    ///
    /// # Errors
    /// Nobody answers.
    pub(crate) async fn connect(socket: &Path) -> Result<Self> {
        let path: PathBuf = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(path).await?)) }
        });
        let endpoint = Endpoint::from_static("http://engine").http2_adaptive_window(true);
        let channel = endpoint.connect_with_connector(connector).await;
        Ok(Self { channel: channel.with_context(|| socket.display().to_string())?, lease: None })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert(NAMESPACE_HEADER, NAMESPACE.parse().expect("ASCII"));
        if let Some(lease) = &self.lease {
            metadata.insert(LEASE_HEADER, lease.parse().expect("ASCII"));
        }
        request
    }

    /// The same services, with everything made through them kept by a new lease.
    pub(crate) async fn leased(&self, id: &str) -> Result<Self> {
        let request = CreateRequest { id: id.to_owned(), labels: Default::default() };
        LeasesClient::new(self.channel.clone()).create(self.request(request)).await?;
        Ok(Self { lease: Some(id.to_owned()), ..self.clone() })
    }

    /// Ends the lease and waits for the collection; returns how long that took.
    pub(crate) async fn end(&self) -> Result<Duration> {
        let id = self.lease.clone().context("there is a lease to end")?;
        let free = Self { lease: None, ..self.clone() };
        let begun = Instant::now();
        let request = free.request(DeleteRequest { id, sync: true });
        LeasesClient::new(self.channel.clone()).delete(request).await?;
        Ok(begun.elapsed())
    }

    /// One snapshot's life: prepared on `parent`, committed as `name`.
    pub(crate) async fn snapshot(&self, name: &str, parent: &str) -> Result<()> {
        let mut client = SnapshotsClient::new(self.channel.clone());
        let key = format!("{name}-active");
        let prepare = PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.clone(),
            parent: parent.to_owned(),
            ..Default::default()
        };
        client.prepare(self.request(prepare)).await?;
        let commit = CommitSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            name: name.to_owned(),
            key,
            ..Default::default()
        };
        client.commit(self.request(commit)).await?;
        Ok(())
    }

    /// Removes a snapshot.
    pub(crate) async fn remove(&self, name: &str) -> Result<()> {
        let remove = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: name.to_owned() };
        SnapshotsClient::new(self.channel.clone()).remove(self.request(remove)).await?;
        Ok(())
    }

    /// Writes one blob, as a client that knows its digest does.
    pub(crate) async fn write(&self, bytes: &[u8]) -> Result<()> {
        let digest = Digest::of(bytes).to_string();
        let last = bytes.len().div_ceil(PIECE_BYTES).max(1) - 1;
        let total = i64::try_from(bytes.len())?;
        let mut offset = 0;
        let mut messages = Vec::new();
        for (number, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
            let action = if number == last { WriteAction::Commit } else { WriteAction::Write };
            messages.push(WriteContentRequest {
                action: action.into(),
                r#ref: digest.clone(),
                total,
                expected: digest.clone(),
                offset,
                data: piece.to_vec().into(),
                labels: Default::default(),
            });
            offset += i64::try_from(piece.len())?;
        }
        let request = self.request(tokio_stream::iter(messages));
        let client = ContentClient::new(self.channel.clone());
        let mut answers =
            client.max_encoding_message_size(MESSAGE_BYTES_MAX).write(request).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok(())
    }
}
