//! `containerd.services.streaming.v1`: side channels of other calls, by name.

use prost_types::Any;
use runtime_api::any;
use runtime_api::containerd::services::streaming::v1::StreamInit;
use runtime_api::containerd::services::streaming::v1::streaming_server::Streaming as Service;
use tonic::{Request, Response, Status, Streaming};

use crate::call::namespace;
use crate::status::{invalid, status, stopping};
use crate::stop::Stop;
use crate::streams::{Heard, Streams};

/// The message that says that the stream is open: `google.protobuf.Empty`.
const OPEN: &str = "google.protobuf.Empty";

/// The service.
#[derive(Clone)]
pub(crate) struct StreamingService {
    streams: Streams,
    stop: Stop,
}

impl StreamingService {
    pub(crate) fn new(streams: Streams, stop: Stop) -> Self {
        Self { streams, stop }
    }
}

#[tonic::async_trait]
impl Service for StreamingService {
    type StreamStream = Heard;

    async fn stream(&self, request: Request<Streaming<Any>>) -> Result<Response<Heard>, Status> {
        let namespace = namespace(request.metadata())?;
        let mut messages = request.into_inner();
        let first = tokio::select! {
            first = messages.message() => first?,
            () = self.stop.stopping() => return Err(stopping()),
        };
        let first = first.ok_or_else(|| invalid("the first message of a stream must name it"))?;
        let StreamInit { id } = any::unpack(&first).map_err(status)?;
        let hello = Any { type_url: OPEN.to_owned(), value: Vec::new() };
        Ok(Response::new(self.streams.open(namespace, id, messages, hello)?))
    }
}
