//! `containerd.services.version.v1`: which daemon answers.

use runtime_api::containerd::services::version::v1::VersionResponse;
use runtime_api::containerd::services::version::v1::version_server::Version;
use tonic::{Request, Response, Status};

/// What clients of containerd are told: they compare versions to choose between services.
///
/// 1.7 is the last line of containerd whose clients do all work through the services that are here; from 2.0 on,
/// nerdctl expects the transfer service. Ours stands in the build part, where semantic versions allow it.
pub(crate) const CONTAINERD_VERSION: &str = concat!("1.7.0+windlass.", env!("CARGO_PKG_VERSION"));

/// The service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VersionService;

#[tonic::async_trait]
impl Version for VersionService {
    async fn version(&self, _: Request<()>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse {
            version: CONTAINERD_VERSION.to_owned(),
            revision: concat!("windlass-", env!("CARGO_PKG_VERSION")).to_owned(),
        }))
    }
}
