//! `grpc.health.v1`: whether the daemon serves. containerd's clients ask before they do anything.

use runtime_api::grpc::health::v1::health_check_response::ServingStatus;
use runtime_api::grpc::health::v1::health_server::Health;
use runtime_api::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::stop::Stop;

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct HealthService {
    services: &'static [&'static str],
    stop: Stop,
}

impl HealthService {
    /// Answers for `services` (full names) and for the whole server.
    pub(crate) fn new(services: &'static [&'static str], stop: Stop) -> Self {
        Self { services, stop }
    }

    fn knows(&self, service: &str) -> bool {
        service.is_empty() || self.services.contains(&service)
    }

    fn state(&self) -> ServingStatus {
        if self.stop.is_stopping() { ServingStatus::NotServing } else { ServingStatus::Serving }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if self.knows(&service) {
            Ok(Response::new(response(self.state())))
        } else {
            Err(Status::not_found(format!("no service is called {service:?}")))
        }
    }

    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (sender, receiver) = mpsc::channel(2);
        let known = self.knows(&request.into_inner().service);
        let now = if known { self.state() } else { ServingStatus::ServiceUnknown };
        let stop = self.stop.clone();
        tokio::spawn(async move {
            if sender.send(Ok(response(now))).await.is_err() {
                return;
            }
            tokio::select! {
                () = sender.closed() => {}
                () = stop.stopping() => {
                    // Nobody listens any more: that is an end as good as any.
                    let _ = sender.send(Ok(response(ServingStatus::NotServing))).await;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
