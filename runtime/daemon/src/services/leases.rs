//! `containerd.services.leases.v1`: what is kept from collection until its lease goes.

use std::borrow::Cow;

use runtime_api::containerd::services::leases::v1 as wire;
use runtime_engine::Engine;
use storage_content::{Lease, Resource};
use tonic::{Request, Response, Status};

use crate::call::{CallError, blocking, lease_id, space};
use crate::convert::{checked_labels, field, filters, label, labels_out, required, time_out};
use crate::status::status;

/// The service.
#[derive(Clone)]
pub(crate) struct LeasesService {
    engine: Engine,
}

impl LeasesService {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine }
    }
}

fn lease_out(lease: Lease) -> wire::Lease {
    wire::Lease {
        id: lease.id.to_string(),
        created_at: time_out(lease.created),
        labels: labels_out(lease.labels),
    }
}

fn lease_field<'a>(lease: &'a Lease, path: &[String]) -> Option<Cow<'a, str>> {
    match path[0].as_str() {
        "id" => field(lease.id.as_str()),
        "labels" => label(&lease.labels, &path[1..]),
        _ => None,
    }
}

fn resource_in(resource: Option<wire::Resource>) -> Result<Resource, Status> {
    let resource = required(resource, "resource")?;
    Resource::parse(&resource.r#type, &resource.id).map_err(status)
}

fn resource_out(resource: Resource) -> wire::Resource {
    wire::Resource { r#type: resource.kind.to_string(), id: resource.id }
}

#[tonic::async_trait]
impl wire::leases_server::Leases for LeasesService {
    async fn create(
        &self,
        request: Request<wire::CreateRequest>,
    ) -> Result<Response<wire::CreateResponse>, Status> {
        let space = space(self.engine.store(), &request)?;
        let wire::CreateRequest { id, labels } = request.into_inner();
        let id = if id.is_empty() { None } else { Some(lease_id(&id)?) };
        let labels = checked_labels(labels)?;
        let lease = blocking(move || space.create_lease(id, labels)).await?;
        Ok(Response::new(wire::CreateResponse { lease: Some(lease_out(lease)) }))
    }

    async fn delete(&self, request: Request<wire::DeleteRequest>) -> Result<Response<()>, Status> {
        let space = space(self.engine.store(), &request)?;
        let wire::DeleteRequest { id, sync } = request.into_inner();
        let id = lease_id(&id)?;
        let engine = self.engine.clone();
        blocking(move || {
            space.delete_lease(&id)?;
            if sync {
                engine.collect()?;
            } else {
                engine.collect_soon();
            }
            Ok::<_, CallError>(())
        })
        .await?;
        Ok(Response::new(()))
    }

    async fn list(
        &self,
        request: Request<wire::ListRequest>,
    ) -> Result<Response<wire::ListResponse>, Status> {
        let space = space(self.engine.store(), &request)?;
        let filters = filters(&request.into_inner().filters)?;
        let found = blocking(move || space.leases()).await?;
        let wanted = |lease: &Lease| filters.matches(|path| lease_field(lease, path));
        let leases = found.into_iter().filter(wanted).map(lease_out).collect();
        Ok(Response::new(wire::ListResponse { leases }))
    }

    async fn add_resource(&self, request: Request<wire::AddResourceRequest>) -> Result<Response<()>, Status> {
        let space = space(self.engine.store(), &request)?;
        let wire::AddResourceRequest { id, resource } = request.into_inner();
        let (id, resource) = (lease_id(&id)?, resource_in(resource)?);
        blocking(move || space.add_resource(&id, &resource)).await?;
        Ok(Response::new(()))
    }

    async fn delete_resource(
        &self,
        request: Request<wire::DeleteResourceRequest>,
    ) -> Result<Response<()>, Status> {
        let space = space(self.engine.store(), &request)?;
        let wire::DeleteResourceRequest { id, resource } = request.into_inner();
        let (id, resource) = (lease_id(&id)?, resource_in(resource)?);
        blocking(move || space.delete_resource(&id, &resource)).await?;
        Ok(Response::new(()))
    }

    async fn list_resources(
        &self,
        request: Request<wire::ListResourcesRequest>,
    ) -> Result<Response<wire::ListResourcesResponse>, Status> {
        let space = space(self.engine.store(), &request)?;
        let id = lease_id(&request.into_inner().id)?;
        let found = blocking(move || space.resources(&id)).await?;
        let resources = found.into_iter().map(resource_out).collect();
        Ok(Response::new(wire::ListResourcesResponse { resources }))
    }
}
