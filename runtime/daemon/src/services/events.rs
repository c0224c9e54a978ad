//! `containerd.services.events.v1`: what happens, to whoever listens.
//!
//! A subscription is in effect when its headers are sent: what a client does after that, it hears of. It hears of all
//! namespaces, whichever its call names, unless a filter says otherwise; that is containerd's rule and `ctr events` relies
//! on it.

use std::borrow::Cow;
use std::sync::Arc;

use runtime_api::containerd::services::events::v1 as wire;
use runtime_api::containerd::types::Envelope;
use runtime_api::filter::Filters;
use storage_model::{Identifier, Namespace};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::call::namespace;
use crate::convert::{field, filters, required};
use crate::exchange::{Exchange, Told};
use crate::status::{invalid, status, stopping};
use crate::stop::Stop;

/// Events on their way to one client, beside those in the exchange.
const EVENTS_WAITING: usize = 64;

/// The service.
#[derive(Clone)]
pub(crate) struct EventsService {
    exchange: Exchange,
    stop: Stop,
}

impl EventsService {
    pub(crate) fn new(exchange: Exchange, stop: Stop) -> Self {
        Self { exchange, stop }
    }
}

/// Checks a topic by containerd's rule: `/` and names between slashes.
fn check_topic(topic: &str) -> Result<(), Status> {
    let components = topic.strip_prefix('/').filter(|rest| !rest.is_empty());
    let components =
        components.ok_or_else(|| invalid(format!("topic {topic:?} must be like /images/create")))?;
    for component in components.split('/') {
        component.parse::<Identifier>().map_err(status)?;
    }
    Ok(())
}

/// An event that somebody forwards, checked.
///
/// # Errors
/// `InvalidArgument` if its namespace, topic or time is missing or wrong.
pub(crate) fn checked(envelope: Option<Envelope>) -> Result<Envelope, Status> {
    let envelope = required(envelope, "envelope")?;
    envelope.namespace.parse::<Namespace>().map_err(status)?;
    check_topic(&envelope.topic)?;
    if envelope.timestamp.is_none() {
        return Err(invalid("a forwarded event must have the time at which it happened"));
    }
    Ok(envelope)
}

fn told_field<'a>(told: &'a Told, path: &[String]) -> Option<Cow<'a, str>> {
    match path[0].as_str() {
        "namespace" => field(&told.envelope.namespace),
        "topic" => field(&told.envelope.topic),
        "event" => told.fields.as_ref()?.get(&path[1..]).filter(|text| !text.is_empty()),
        _ => None,
    }
}

/// Carries what matches to a client until it leaves, the daemon stops, or it is too far behind.
async fn carry(
    mut events: broadcast::Receiver<Arc<Told>>,
    filters: Filters,
    client: mpsc::Sender<Result<Envelope, Status>>,
    stop: Stop,
) {
    loop {
        let next = tokio::select! {
            next = events.recv() => next,
            () = client.closed() => return,
            () = stop.stopping() => Err(RecvError::Closed),
        };
        let message = match next {
            Ok(told) if !filters.matches(|path| told_field(&told, path)) => continue,
            Ok(told) => Ok(told.envelope.clone()),
            Err(RecvError::Closed) => Err(stopping()),
            Err(RecvError::Lagged(count)) => Err(Status::resource_exhausted(format!(
                "this subscriber missed {count} events because it reads too slowly: subscribe again, and list what there is"
            ))),
        };
        let last = message.is_err();
        if client.send(message).await.is_err() || last {
            return;
        }
    }
}

#[tonic::async_trait]
impl wire::events_server::Events for EventsService {
    async fn publish(&self, request: Request<wire::PublishRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(request.metadata())?;
        let wire::PublishRequest { topic, event } = request.into_inner();
        check_topic(&topic)?;
        self.exchange.tell(&namespace, &topic, event.unwrap_or_default());
        Ok(Response::new(()))
    }

    async fn forward(&self, request: Request<wire::ForwardRequest>) -> Result<Response<()>, Status> {
        self.exchange.forward(checked(request.into_inner().envelope)?);
        Ok(Response::new(()))
    }

    type SubscribeStream = ReceiverStream<Result<Envelope, Status>>;

    async fn subscribe(
        &self,
        request: Request<wire::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let filters = filters(&request.into_inner().filters)?;
        let (sender, receiver) = mpsc::channel(EVENTS_WAITING);
        tokio::spawn(carry(self.exchange.listen(), filters, sender, self.stop.clone()));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_a_path_of_names() {
        for good in ["/a", "/images/create", "/tasks/exec-added", "/x.y/z_1"] {
            assert!(check_topic(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "images", "//x", "/x/", "/x y", "/../x"] {
            assert_eq!(check_topic(bad).unwrap_err().code(), tonic::Code::InvalidArgument, "{bad:?}");
        }
    }
}
