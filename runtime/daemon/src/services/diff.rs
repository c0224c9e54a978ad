//! `containerd.services.diff.v1`: layers to trees, and trees to layers.
//!
//! Where the mounts are directories of ours nothing is mounted. What `Apply` writes is made durable by the commit of its
//! snapshot, whatever `sync_fs` says. Stream processors are a matter of containerd's configuration: payloads for them are
//! refused, because to ignore one would be to unpack an encrypted layer as if it were a plain one.

use runtime_api::containerd::services::diff::v1 as wire;
use runtime_api::containerd::types;
use runtime_engine::{DiffRequest, Engine};
use snapshotters_contract::Mount;
use tonic::{Request, Response, Status};

use crate::call::{blocking, space};
use crate::convert::{checked_labels, descriptor_in, descriptor_out, required, system_time};
use crate::status::invalid;

/// The service.
#[derive(Clone)]
pub(crate) struct DiffService {
    engine: Engine,
}

impl DiffService {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine }
    }
}

fn mounts_in(mounts: Vec<types::Mount>) -> Vec<Mount> {
    let mount = |mount: types::Mount| Mount {
        kind: mount.r#type,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    };
    mounts.into_iter().map(mount).collect()
}

#[tonic::async_trait]
impl wire::diff_server::Diff for DiffService {
    async fn apply(
        &self,
        request: Request<wire::ApplyRequest>,
    ) -> Result<Response<wire::ApplyResponse>, Status> {
        let space = space(self.engine.store(), &request)?;
        let wire::ApplyRequest { diff, mounts, payloads, .. } = request.into_inner();
        let diff = descriptor_in(required(diff, "diff")?)?;
        if let Some(kind) = payloads.keys().next() {
            return Err(Status::unimplemented(format!("there is no stream processor for {kind:?}")));
        }
        if mounts.is_empty() {
            return Err(invalid("a layer needs mounts to be unpacked over"));
        }
        let (engine, mounts) = (self.engine.clone(), mounts_in(mounts));
        let applied = blocking(move || engine.apply(&space, &diff, &mounts)).await?;
        Ok(Response::new(wire::ApplyResponse { applied: Some(descriptor_out(applied)) }))
    }

    async fn diff(
        &self,
        request: Request<wire::DiffRequest>,
    ) -> Result<Response<wire::DiffResponse>, Status> {
        let space = space(self.engine.store(), &request)?;
        let request = request.into_inner();
        let request = DiffRequest {
            left: mounts_in(request.left),
            right: mounts_in(request.right),
            media_type: request.media_type,
            reference: request.r#ref,
            labels: checked_labels(request.labels)?,
            source_date_epoch: request.source_date_epoch.map(system_time).transpose()?,
        };
        let engine = self.engine.clone();
        let packed = blocking(move || engine.diff(&space, &request)).await?;
        Ok(Response::new(wire::DiffResponse { diff: Some(descriptor_out(packed)) }))
    }
}
