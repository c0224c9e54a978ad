//! `containerd.services.version.v1`: which daemon answers.

use runtime_api::containerd::services::version::v1::VersionResponse;
use runtime_api::containerd::services::version::v1::version_server::Version;
use tonic::{Request, Response, Status};

/// What clients of containerd are told: they compare versions to choose between services.
///
/// 1.7 is the last line of containerd whose clients ask for nothing that is not here: those that see 2.0 may count on its mount
/// manager and sandboxes. What 2.x clients do by default, transfers, is here and they ask for it without looking at this. Ours
/// stands in the build part, where semantic versions allow it.
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
