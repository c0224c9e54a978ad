//! Pushing, importing, exporting and converting on the wire.

use std::time::Duration;

use runtime_api::windlass::v1 as wire;
use runtime_engine::{
    ConvertRequest, Engine, EngineError, ExportRequest, ImportRequest, LazyForm, PushRequest, TransferEvent,
    Transferred,
};
use storage_model::Namespace;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::pull::{count_in, registry_in};
use crate::convert::checked_labels;
use crate::pipe::{Chunk, Sink, Source};
use crate::status::{invalid, status};

/// Events on their way from an export to its client, beside its bytes.
const EVENTS_WAITING: usize = 64;

/// How long a client may take to say what it wants to import, once it has opened the stream.
const OPTIONS_WAIT: Duration = Duration::from_secs(30);

pub(super) fn push_in(request: wire::PushRequest) -> Result<PushRequest, Status> {
    let manifest = match request.manifest_digest.as_str() {
        "" => None,
        text => Some(text.parse().map_err(status)?),
    };
    Ok(PushRequest {
        image: request.image,
        reference: request.reference,
        platforms: request.platforms,
        all_platforms: request.all_platforms,
        manifest_digest: manifest,
        max_concurrent_uploads: count_in(request.max_concurrent_uploads),
        registry: registry_in(request.registry)?,
    })
}

pub(super) fn export_in(request: wire::ExportRequest) -> ExportRequest {
    ExportRequest {
        images: request.images,
        platforms: request.platforms,
        all_platforms: request.all_platforms,
        skip_manifest_json: request.skip_manifest_json,
        skip_non_distributable: request.skip_non_distributable,
    }
}

pub(super) fn convert_in(request: wire::ConvertRequest) -> Result<ConvertRequest, Status> {
    Ok(ConvertRequest {
        compression: ConvertRequest::compression(&request.compression).map_err(status)?,
        image: request.image,
        target: request.target,
        level: Some(request.level).filter(|level| *level != 0),
        oci: request.oci,
        platforms: request.platforms,
        all_platforms: request.all_platforms,
        lazy: LazyForm::parse(&request.lazy).map_err(status)?,
        prioritized: request.prioritized,
    })
}

fn import_in(options: wire::ImportOptions) -> Result<ImportRequest, Status> {
    Ok(ImportRequest {
        base_name: options.base_name,
        index_name: options.index_name,
        digests: options.digests,
        skip_digest_for_named: options.skip_digest_for_named,
        platforms: options.platforms,
        all_platforms: options.all_platforms,
        no_unpack: options.no_unpack,
        snapshotter: options.snapshotter,
        labels: checked_labels(options.labels)?,
        compress_blobs: options.compress_blobs,
        replace: options.replace,
    })
}

/// What to import, from the first message, and a reader of the bytes in those after it.
///
/// # Errors
/// `InvalidArgument` if the first message is none of options; `DeadlineExceeded` if none comes.
pub(super) async fn begin_import(
    mut messages: Streaming<wire::ImportRequest>,
) -> Result<(ImportRequest, Source), Status> {
    use wire::import_request::Part;
    let late = || Status::deadline_exceeded("no message says what to import");
    let first = tokio::time::timeout(OPTIONS_WAIT, messages.message()).await.map_err(|_| late())??;
    let Some(wire::ImportRequest { part: Some(Part::Options(options)) }) = first else {
        return Err(invalid("the first message of an import must have its options"));
    };
    let request = import_in(options)?;
    let (chunks, source) = Source::new();
    tokio::spawn(carry(messages, chunks));
    Ok((request, source))
}

/// Carries an archive's bytes to their reader. Without the last word, the reader knows that something is missing.
async fn carry(mut messages: Streaming<wire::ImportRequest>, chunks: mpsc::Sender<Chunk>) {
    use wire::import_request::Part;
    loop {
        let message = tokio::select! {
            message = messages.message() => message,
            () = chunks.closed() => return,
        };
        let chunk = match message {
            Ok(Some(wire::ImportRequest { part: Some(Part::Data(data)) })) => Chunk::Data(data),
            // A client that cancels looks the same here, but its import is cancelled with it.
            Ok(None) => Chunk::End,
            Ok(Some(_)) => {
                tracing::info!("an import was given something else than bytes in the middle of its archive");
                return;
            }
            Err(error) => {
                tracing::info!(%error, "the client of an import stopped in the middle of its archive");
                return;
            }
        };
        let last = matches!(chunk, Chunk::End);
        if chunks.send(chunk).await.is_err() || last {
            return;
        }
    }
}

/// What an export sends.
pub(super) enum Exported {
    /// The next bytes of the archive.
    Data(Vec<u8>),
    /// How far it is.
    Event(TransferEvent),
}

/// Exports into `messages`, bytes and events as they come.
///
/// # Errors
/// Those of [`Engine::export`].
pub(super) async fn export(
    engine: Engine,
    namespace: Namespace,
    request: ExportRequest,
    messages: mpsc::Sender<Exported>,
) -> Result<Transferred, EngineError> {
    let (sender, mut events) = mpsc::channel(EVENTS_WAITING);
    let sink = Sink::new(messages.clone(), Exported::Data);
    let forwarding = async move {
        while let Some(event) = events.recv().await {
            if messages.send(Exported::Event(event)).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(engine.export(&namespace, request, sink, sender), forwarding).0
}

pub(super) fn event_out(event: TransferEvent) -> wire::TransferEvent {
    use wire::transfer_event::Event;
    let event = match event {
        TransferEvent::Progress { name, kind, state, done_bytes, total_bytes } => {
            Event::Progress(wire::TransferProgress {
                name,
                kind: kind.as_str().to_owned(),
                state: state.as_str().to_owned(),
                done_bytes,
                total_bytes,
            })
        }
        TransferEvent::Message(text) => Event::Message(wire::Message { text }),
    };
    wire::TransferEvent { event: Some(event) }
}

pub(super) fn done_out(done: Transferred) -> wire::TransferEvent {
    let images = done.images.into_iter().map(|image| wire::NamedDigest {
        name: image.name,
        digest: image.digest.to_string(),
        chain_id: image.chain.map(|chain| chain.to_string()).unwrap_or_default(),
    });
    let done = wire::TransferDone { images: images.collect(), bytes: done.bytes, seconds: done.seconds };
    wire::TransferEvent { event: Some(wire::transfer_event::Event::Done(done)) }
}

pub(super) fn exported_out(exported: Exported) -> wire::ExportResponse {
    use wire::export_response::Part;
    let part = match exported {
        Exported::Data(data) => Part::Data(data),
        Exported::Event(event) => Part::Event(event_out(event)),
    };
    wire::ExportResponse { part: Some(part) }
}

pub(super) fn export_done_out(done: Transferred) -> wire::ExportResponse {
    wire::ExportResponse { part: Some(wire::export_response::Part::Event(done_out(done))) }
}
