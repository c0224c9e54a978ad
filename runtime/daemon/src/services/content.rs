//! `containerd.services.content.v1`: blobs and ingests. Writing is in `write`.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use runtime_api::containerd::services::content::v1 as wire;
use storage_content::{BlobInfo, IngestStatus, Store};
use storage_model::Digest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::write;
use crate::call::{blocking, space};
use crate::convert::{
    BATCH, checked_labels, filters, label, label_change, labels_out, required, size_out, time_out,
};
use crate::status::{Failure, status, stopping};
use crate::stop::Stop;

/// Bytes per message of a read (containerd's own number): a thirty-second of the time between two of them is overhead.
const READ_BYTES: u64 = 1024 * 1024;

/// The service.
#[derive(Clone)]
pub(crate) struct ContentService {
    store: Store,
    stop: Stop,
}

impl ContentService {
    pub(crate) fn new(store: Store, stop: Stop) -> Self {
        Self { store, stop }
    }
}

/// Reading the file of a blob failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot read blob {digest}")]
struct ReadError {
    digest: Digest,
    source: io::Error,
}

impl Failure for ReadError {
    fn kind(&self) -> storage_content::ErrorKind {
        // The store promised these bytes.
        storage_content::ErrorKind::DataLoss
    }
}

fn digest_in(text: &str) -> Result<Digest, Status> {
    text.parse().map_err(status)
}

fn info_out(info: BlobInfo) -> wire::Info {
    wire::Info {
        digest: info.digest.to_string(),
        size: size_out(info.size),
        created_at: time_out(info.created),
        updated_at: time_out(info.updated),
        labels: labels_out(info.labels),
    }
}

fn status_out(status: IngestStatus) -> wire::Status {
    wire::Status {
        started_at: time_out(status.started),
        updated_at: time_out(status.updated),
        r#ref: status.reference,
        offset: size_out(status.offset),
        total: size_out(status.expected.size.unwrap_or(0)),
        expected: status.expected.digest.map(|digest| digest.to_string()).unwrap_or_default(),
    }
}

fn blob_field<'a>(info: &'a BlobInfo, path: &[String]) -> Option<Cow<'a, str>> {
    match path[0].as_str() {
        "digest" => Some(Cow::from(info.digest.to_string())),
        "labels" => label(&info.labels, &path[1..]),
        _ => None,
    }
}

#[tonic::async_trait]
impl wire::content_server::Content for ContentService {
    async fn info(
        &self,
        request: Request<wire::InfoRequest>,
    ) -> Result<Response<wire::InfoResponse>, Status> {
        let space = space(&self.store, &request)?;
        let digest = digest_in(&request.into_inner().digest)?;
        let info = blocking(move || space.blob(&digest)).await?;
        Ok(Response::new(wire::InfoResponse { info: Some(info_out(info)) }))
    }

    async fn update(
        &self,
        request: Request<wire::UpdateRequest>,
    ) -> Result<Response<wire::UpdateResponse>, Status> {
        let space = space(&self.store, &request)?;
        let wire::UpdateRequest { info, update_mask } = request.into_inner();
        let info = required(info, "info")?;
        let digest = digest_in(&info.digest)?;
        let change = label_change(update_mask, checked_labels(info.labels)?, "a blob")?;
        let info = blocking(move || space.set_blob_labels(&digest, change)).await?;
        Ok(Response::new(wire::UpdateResponse { info: Some(info_out(info)) }))
    }

    type ListStream = ReceiverStream<Result<wire::ListContentResponse, Status>>;

    async fn list(
        &self,
        request: Request<wire::ListContentRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let space = space(&self.store, &request)?;
        let filters = filters(&request.into_inner().filters)?;
        let (sender, receiver) = mpsc::channel(2);
        tokio::task::spawn_blocking(move || {
            let mut batch = Vec::with_capacity(BATCH);
            let walked = space.blobs(&mut |info| {
                if filters.matches(|path| blob_field(&info, path)) {
                    batch.push(info_out(info));
                }
                if batch.len() < BATCH {
                    return ControlFlow::Continue(());
                }
                let info = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
                match sender.blocking_send(Ok(wire::ListContentResponse { info })) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            });
            // Whoever stopped listening needs no last message.
            let _ = match walked {
                Err(error) => sender.blocking_send(Err(status(error))),
                Ok(()) if batch.is_empty() => Ok(()),
                Ok(()) => sender.blocking_send(Ok(wire::ListContentResponse { info: batch })),
            };
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn delete(&self, request: Request<wire::DeleteContentRequest>) -> Result<Response<()>, Status> {
        let space = space(&self.store, &request)?;
        let digest = digest_in(&request.into_inner().digest)?;
        blocking(move || space.delete_blob(&digest)).await?;
        Ok(Response::new(()))
    }

    type ReadStream = ReceiverStream<Result<wire::ReadContentResponse, Status>>;

    /// Streams a part of a blob. A size of 0, or one past the end, means the rest.
    async fn read(
        &self,
        request: Request<wire::ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let space = space(&self.store, &request)?;
        let wire::ReadContentRequest { digest, offset, size } = request.into_inner();
        let digest = digest_in(&digest)?;
        let (file, length) = blocking(move || {
            let length = space.blob(&digest)?.size;
            Ok::<_, storage_content::StoreError>((space.open_blob(&digest)?, length))
        })
        .await?;
        let offset = u64::try_from(offset).unwrap_or(0);
        if offset > length {
            let words = format!("cannot read blob {digest} at {offset}: it is {length} bytes long");
            return Err(Status::out_of_range(words));
        }
        let rest = length - offset;
        let size = u64::try_from(size).ok().filter(|size| *size > 0).map_or(rest, |size| size.min(rest));
        let (sender, receiver) = mpsc::channel(2);
        let range = Range { digest, file: Arc::new(file), begin: offset, size };
        tokio::spawn(send_range(range, sender, self.stop.clone()));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn status(
        &self,
        request: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusResponse>, Status> {
        let space = space(&self.store, &request)?;
        let reference = request.into_inner().r#ref;
        let status = blocking(move || space.ingest_status(&reference)).await?;
        Ok(Response::new(wire::StatusResponse { status: Some(status_out(status)) }))
    }

    async fn list_statuses(
        &self,
        request: Request<wire::ListStatusesRequest>,
    ) -> Result<Response<wire::ListStatusesResponse>, Status> {
        let space = space(&self.store, &request)?;
        let filters = filters(&request.into_inner().filters)?;
        let found = blocking(move || space.ingests()).await?;
        let wanted = |status: &IngestStatus| {
            filters.matches(|path| match path {
                [name] if name == "ref" => Some(Cow::from(status.reference.as_str())),
                _ => None,
            })
        };
        let statuses = found.into_iter().filter(wanted).map(status_out).collect();
        Ok(Response::new(wire::ListStatusesResponse { statuses }))
    }

    type WriteStream = ReceiverStream<Result<wire::WriteContentResponse, Status>>;

    async fn write(
        &self,
        request: Request<Streaming<wire::WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let space = space(&self.store, &request)?;
        let (sender, receiver) = mpsc::channel(2);
        tokio::spawn(write::session(space, request.into_inner(), sender, self.stop.clone()));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn abort(&self, request: Request<wire::AbortRequest>) -> Result<Response<()>, Status> {
        let space = space(&self.store, &request)?;
        let reference = request.into_inner().r#ref;
        blocking(move || space.abort_ingest(&reference)).await?;
        Ok(Response::new(()))
    }
}

/// Bytes `begin .. begin + size` of an open blob, all of them below its length.
struct Range {
    digest: Digest,
    file: Arc<File>,
    begin: u64,
    size: u64,
}

/// Sends a range in pieces; a slow reader holds no thread, and at most three pieces in memory.
async fn send_range(
    range: Range,
    sender: mpsc::Sender<Result<wire::ReadContentResponse, Status>>,
    stop: Stop,
) {
    let mut sent = 0;
    while sent < range.size {
        let (file, digest, at) = (range.file.clone(), range.digest, range.begin + sent);
        let count = READ_BYTES.min(range.size - sent);
        let piece = blocking(move || {
            let mut piece = vec![0; usize::try_from(count).expect("a piece is at most READ_BYTES")];
            match file.read_exact_at(&mut piece, at) {
                Ok(()) => Ok(piece),
                Err(source) => Err(ReadError { digest, source }),
            }
        })
        .await;
        let failed = piece.is_err();
        // Counted from the beginning of what was asked for, as containerd counts (its definition says otherwise; its
        // clients take the pieces as they come).
        let message =
            piece.map(|data| wire::ReadContentResponse { offset: size_out(sent), data: data.into() });
        let delivered = tokio::select! {
            delivered = sender.send(message) => delivered.is_ok(),
            () = stop.stopping() => {
                let _ = sender.try_send(Err(stopping()));
                false
            }
        };
        if failed || !delivered {
            return;
        }
        sent += count;
    }
}
