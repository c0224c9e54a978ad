//! `containerd.services.transfer.v1`: images between registries, the store and archives. What `ctr` of containerd 2 does
//! by default.
//!
//! ```text
//! registry -> store: pull        store -> registry: push        store -> store: a further name
//! archive  -> store: import      store -> archive:  export      anything else: not implemented
//! ```
//! The ends come as `Any`; archives, credentials and progress travel on side channels (`streams`). The work is the
//! engine's: here are its words and containerd's. A client that leaves drops the call, which cancels.

mod bytes;
mod progress;
mod registry;
mod store;

use prost_types::Any;
use runtime_api::any;
use runtime_api::containerd::services::transfer::v1 as wire;
use runtime_api::containerd::types::transfer::{
    ImageExportStream, ImageImportStream, ImageStore, OciRegistry,
};
use runtime_engine::{Engine, EngineError, PullEvent, TransferEvent, Transferred};
use storage_model::Namespace;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use self::progress::Listener;
use crate::call::{blocking, namespace};
use crate::convert::required;
use crate::pipe::Sink;
use crate::status::{status, stopping};
use crate::stop::Stop;
use crate::streams::Streams;

/// Events on their way to the progress stream.
const EVENTS_WAITING: usize = 64;

/// Messages of an archive between the thread that writes it and the client.
const CHUNKS_WAITING: usize = 8;

/// The service.
#[derive(Clone)]
pub(crate) struct TransferService {
    engine: Engine,
    streams: Streams,
    stop: Stop,
}

/// One end.
enum End {
    Registry(OciRegistry),
    Store(ImageStore),
    Import(ImageImportStream),
    Export(ImageExportStream),
}

impl End {
    /// # Errors
    /// `Unimplemented` for an end that is not known here, `InvalidArgument` for one that cannot be read.
    fn read(any: &Any) -> Result<Self, Status> {
        let read = if any::is::<OciRegistry>(any) {
            any::unpack(any).map(Self::Registry)
        } else if any::is::<ImageStore>(any) {
            any::unpack(any).map(Self::Store)
        } else if any::is::<ImageImportStream>(any) {
            any::unpack(any).map(Self::Import)
        } else if any::is::<ImageExportStream>(any) {
            any::unpack(any).map(Self::Export)
        } else {
            return Err(Status::unimplemented(format!(
                "nothing is transferred from or to {:?}",
                any::name(any)
            )));
        };
        read.map_err(status)
    }
}

impl TransferService {
    pub(crate) fn new(engine: Engine, streams: Streams, stop: Stop) -> Self {
        Self { engine, streams, stop }
    }

    async fn run(&self, namespace: &Namespace, request: wire::TransferRequest) -> Result<(), Status> {
        let source = End::read(&required(request.source, "source")?)?;
        let destination = End::read(&required(request.destination, "destination")?)?;
        let progress = match request.options.unwrap_or_default().progress_stream.as_str() {
            "" => None,
            name => Some(self.streams.take(namespace, name)?),
        };
        match (source, destination) {
            (End::Registry(from), End::Store(to)) => {
                self.pull(namespace, &from, &to, Listener::new(progress, &from.reference)).await
            }
            (End::Store(from), End::Registry(to)) => {
                self.push(namespace, &from, &to, Listener::new(progress, &to.reference)).await
            }
            (End::Import(from), End::Store(to)) => {
                self.import(namespace, &from, &to, Listener::new(progress, &to.name)).await
            }
            (End::Store(from), End::Export(to)) => {
                self.export(namespace, &from, &to, Listener::new(progress, &from.name)).await
            }
            (End::Store(from), End::Store(to)) => {
                let space = self.engine.store().space(namespace);
                blocking(move || store::tag(&space, &from.name, &to)).await
            }
            _ => {
                Err(Status::unimplemented("nothing is transferred from such a source to such a destination"))
            }
        }
    }

    async fn pull(
        &self,
        namespace: &Namespace,
        from: &OciRegistry,
        to: &ImageStore,
        mut listener: Listener,
    ) -> Result<(), Status> {
        listener.headline(format!("Resolving from {}", from.reference)).await;
        let registry = registry::options(from, &self.streams, namespace).await?;
        let request = store::pull(to, &from.reference, registry)?;
        listener.image(&from.reference, "fetching image content", None).await;
        let (sender, mut events) = mpsc::channel::<PullEvent>(EVENTS_WAITING);
        let listening = async {
            while let Some(event) = events.recv().await {
                listener.pull(event).await;
            }
        };
        let pulling = self.engine.pull(namespace, request, sender);
        let pulled = tokio::join!(pulling, listening).0.map_err(status)?;
        let (space, name, names) = (self.engine.store().space(namespace), pulled.name.clone(), to.clone());
        if pulled.name != to.name || !to.extra_references.is_empty() {
            blocking(move || store::tag(&space, &name, &names)).await?;
        }
        listener.image(&from.reference, "saved", Some(pulled.digest)).await;
        listener.headline(format!("Completed pull from {}", from.reference)).await;
        Ok(())
    }

    async fn push(
        &self,
        namespace: &Namespace,
        from: &ImageStore,
        to: &OciRegistry,
        listener: Listener,
    ) -> Result<(), Status> {
        let registry = registry::options(to, &self.streams, namespace).await?;
        let request = store::push(from, &to.reference, registry);
        listener.headline(format!("Pushing to {}", to.reference)).await;
        listener.image(&to.reference, "pushing content", None).await;
        let (sender, events) = mpsc::channel(EVENTS_WAITING);
        heard(self.engine.push(namespace, request, sender), events, &listener).await?;
        listener.image(&to.reference, "pushed content", None).await;
        listener.headline(format!("Completed push to {}", to.reference)).await;
        Ok(())
    }

    async fn import(
        &self,
        namespace: &Namespace,
        from: &ImageImportStream,
        to: &ImageStore,
        listener: Listener,
    ) -> Result<(), Status> {
        let request = store::import(to, from)?;
        let archive = bytes::receive(self.streams.take(namespace, &from.stream)?);
        listener.headline("Importing").await;
        let (sender, events) = mpsc::channel(EVENTS_WAITING);
        let importing = self.engine.import(namespace, request, archive, sender);
        let imported = heard(importing, events, &listener).await?;
        for image in imported.images {
            listener.image(&image.name, "saved", Some(image.digest)).await;
        }
        listener.headline("Completed import").await;
        Ok(())
    }

    async fn export(
        &self,
        namespace: &Namespace,
        from: &ImageStore,
        to: &ImageExportStream,
        listener: Listener,
    ) -> Result<(), Status> {
        let request = store::export(from, to);
        let stream = self.streams.take(namespace, &to.stream)?;
        listener.headline("Exporting").await;
        let (chunks, archive) = mpsc::channel(CHUNKS_WAITING);
        let sink = Sink::new(chunks, std::convert::identity);
        let (sender, events) = mpsc::channel(EVENTS_WAITING);
        let exporting = heard(self.engine.export(namespace, request, sink, sender), events, &listener);
        let (exported, sent) = tokio::join!(exporting, bytes::send(stream, archive));
        // A client that stopped listening is why the archive could not be written.
        sent.and(exported)?;
        listener.headline("Completed export").await;
        Ok(())
    }
}

/// Waits for the work, and tells the listener what it tells.
async fn heard(
    work: impl Future<Output = Result<Transferred, EngineError>>,
    mut events: mpsc::Receiver<TransferEvent>,
    listener: &Listener,
) -> Result<Transferred, Status> {
    let listening = async {
        while let Some(event) = events.recv().await {
            listener.transfer(event).await;
        }
    };
    tokio::join!(work, listening).0.map_err(status)
}

#[tonic::async_trait]
impl wire::transfer_server::Transfer for TransferService {
    async fn transfer(&self, request: Request<wire::TransferRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(request.metadata())?;
        tokio::select! {
            done = self.run(&namespace, request.into_inner()) => done.map(Response::new),
            () = self.stop.stopping() => Err(stopping()),
        }
    }
}
