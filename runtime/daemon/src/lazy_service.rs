//! `windlass.v1.Lazy`: images that are shown before they have arrived, asked after and completed.

use runtime_api::windlass::v1 as wire;
use runtime_engine::{Engine, LazyImage, LazyLayer};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::call::{blocking, namespace};
use crate::engine_service::registry_in;
use crate::status::status;

/// The service.
#[derive(Clone)]
pub(crate) struct LazyService {
    engine: Engine,
}

impl LazyService {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine }
    }
}

#[tonic::async_trait]
impl wire::lazy_server::Lazy for LazyService {
    async fn status(
        &self,
        request: Request<wire::LazyStatusRequest>,
    ) -> Result<Response<wire::LazyStatusResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let wire::LazyStatusRequest { image, faults } = request.into_inner();
        let engine = self.engine.clone();
        let images = blocking(move || engine.lazy_status(&namespace, &image)).await?;
        let images = images.into_iter().map(|image| image_out(image, faults)).collect();
        Ok(Response::new(wire::LazyStatusResponse { images }))
    }

    type FillStream = ReceiverStream<Result<wire::LazyFillEvent, Status>>;

    async fn fill(
        &self,
        request: Request<wire::LazyFillRequest>,
    ) -> Result<Response<Self::FillStream>, Status> {
        let namespace = namespace(request.metadata())?;
        let image = request.into_inner().image;
        let (sender, receiver) = mpsc::channel(4);
        let engine = self.engine.clone();
        tokio::spawn(async move {
            let (told, mut events) = mpsc::channel(4);
            let passed = sender.clone();
            let pass = async {
                while let Some((bytes_present, bytes_total)) = events.recv().await {
                    let event = wire::LazyFillEvent { bytes_present, bytes_total, verified: false };
                    // Who does not listen any more does not stop the work.
                    let _ = passed.send(Ok(event)).await;
                }
            };
            let (outcome, ()) = tokio::join!(engine.fill(&namespace, &image, told), pass);
            let last = match outcome {
                Ok(bytes) => {
                    Ok(wire::LazyFillEvent { bytes_present: bytes, bytes_total: bytes, verified: true })
                }
                Err(error) => Err(status(error)),
            };
            let _ = sender.send(last).await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn metrics(
        &self,
        _: Request<wire::LazyMetricsRequest>,
    ) -> Result<Response<wire::LazyMetricsResponse>, Status> {
        let engine = self.engine.clone();
        let text = blocking(move || engine.lazy_metrics()).await?;
        Ok(Response::new(wire::LazyMetricsResponse { text }))
    }

    async fn export_trace(
        &self,
        request: Request<wire::LazyTraceRequest>,
    ) -> Result<Response<wire::LazyTraceResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let image = request.into_inner().image;
        let engine = self.engine.clone();
        let json = blocking(move || engine.export_trace(&namespace, &image)).await?;
        Ok(Response::new(wire::LazyTraceResponse { json }))
    }

    async fn import_trace(
        &self,
        request: Request<wire::LazyImportTraceRequest>,
    ) -> Result<Response<wire::LazyImportTraceResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let wire::LazyImportTraceRequest { image, json } = request.into_inner();
        let engine = self.engine.clone();
        let events = blocking(move || engine.import_trace(&namespace, &image, &json)).await?;
        Ok(Response::new(wire::LazyImportTraceResponse { events }))
    }

    async fn push_trace(
        &self,
        request: Request<wire::LazyPushTraceRequest>,
    ) -> Result<Response<wire::LazyPushTraceResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let wire::LazyPushTraceRequest { image, registry } = request.into_inner();
        let options = registry_in(registry)?;
        let digest = self.engine.push_trace(&namespace, &image, &options).await.map_err(status)?;
        Ok(Response::new(wire::LazyPushTraceResponse { digest: digest.to_string() }))
    }
}

fn image_out(image: LazyImage, with_faults: bool) -> wire::LazyImage {
    let mut out = wire::LazyImage {
        name: image.name,
        digest: image.digest.to_string(),
        mode: image.mode.to_owned(),
        asked: image.asked,
        reasons: image.reasons,
        estimated_full_seconds: image.estimated_seconds.0,
        estimated_lazy_seconds: image.estimated_seconds.1,
        bytes_total: image.bytes_total,
        bytes_present: image.bytes_present,
        verified: image.verified,
        filling: image.filling,
        fill_error: image.fill_error.unwrap_or_default(),
        layers: image.layers.into_iter().map(layer_out).collect(),
        trace_events: image.trace_events,
        ..Default::default()
    };
    let Some(mount) = image.mount else { return out };
    out.mountpoint = mount.mountpoint.display().to_string();
    let seen = mount.image;
    (out.requests, out.bytes_fetched) = (seen.requests, seen.bytes_fetched);
    (out.faults, out.fault_wait_us, out.failures) = (seen.faults, seen.fault_wait_us, seen.failures);
    if with_faults {
        let fault = |fault: lazy_fetch::FaultNote| wire::LazyFault {
            path: fault.path,
            offset: fault.offset,
            length: fault.length,
            at_unix_ms: fault.at_unix_ms,
            wait_us: fault.wait_us,
            source: fault.source,
            error: fault.error.unwrap_or_default(),
        };
        out.recent = seen.recent.into_iter().map(fault).collect();
    }
    out
}

fn layer_out(layer: LazyLayer) -> wire::LazyLayer {
    wire::LazyLayer {
        digest: layer.digest.to_string(),
        bytes: layer.bytes,
        format: layer.format,
        present: layer.present,
        verified: layer.verified,
    }
}
