//! `containerd.services.namespaces.v1`.
//!
//! As in containerd, a namespace comes into being when it is first used: asking for one that nobody has used tells that
//! it has no labels (containerd's client asks so before it chooses a snapshotter), and labelling it makes it.

use runtime_api::containerd::services::namespaces::v1 as wire;
use storage_content::{LabelChange, NamespaceInfo, Store, StoreError};
use storage_model::{Labels, Namespace};
use tonic::{Request, Response, Status};

use crate::call::{CallError, blocking};
use crate::convert::{checked_labels, label_change, labels_out, required};
use crate::status::status;

/// The service.
#[derive(Clone)]
pub(crate) struct NamespacesService {
    store: Store,
}

impl NamespacesService {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }
}

fn namespace_out(info: NamespaceInfo) -> wire::Namespace {
    wire::Namespace { name: info.name.to_string(), labels: labels_out(info.labels) }
}

fn name_in(name: &str) -> Result<Namespace, Status> {
    name.parse().map_err(status)
}

#[tonic::async_trait]
impl wire::namespaces_server::Namespaces for NamespacesService {
    async fn get(
        &self,
        request: Request<wire::GetNamespaceRequest>,
    ) -> Result<Response<wire::GetNamespaceResponse>, Status> {
        let name = name_in(&request.into_inner().name)?;
        let store = self.store.clone();
        let namespace = blocking(move || match store.namespace(&name) {
            Err(error) if error.is_not_found() => {
                Ok(wire::Namespace { name: name.to_string(), ..Default::default() })
            }
            other => other.map(namespace_out),
        })
        .await?;
        Ok(Response::new(wire::GetNamespaceResponse { namespace: Some(namespace) }))
    }

    /// Lists all: containerd ignores the filter, and so do we.
    async fn list(
        &self,
        _: Request<wire::ListNamespacesRequest>,
    ) -> Result<Response<wire::ListNamespacesResponse>, Status> {
        let store = self.store.clone();
        let found = blocking(move || store.namespaces()).await?;
        let namespaces = found.into_iter().map(namespace_out).collect();
        Ok(Response::new(wire::ListNamespacesResponse { namespaces }))
    }

    async fn create(
        &self,
        request: Request<wire::CreateNamespaceRequest>,
    ) -> Result<Response<wire::CreateNamespaceResponse>, Status> {
        let wanted = required(request.into_inner().namespace, "namespace")?;
        let name = name_in(&wanted.name)?;
        let labels = checked_labels(wanted.labels)?;
        let store = self.store.clone();
        let made = blocking(move || store.create_namespace(&name, labels)).await?;
        Ok(Response::new(wire::CreateNamespaceResponse { namespace: Some(namespace_out(made)) }))
    }

    async fn update(
        &self,
        request: Request<wire::UpdateNamespaceRequest>,
    ) -> Result<Response<wire::UpdateNamespaceResponse>, Status> {
        let wire::UpdateNamespaceRequest { namespace, update_mask } = request.into_inner();
        let wanted = required(namespace, "namespace")?;
        let name = name_in(&wanted.name)?;
        let change = label_change(update_mask, checked_labels(wanted.labels)?, "a namespace")?;
        let store = self.store.clone();
        let updated = blocking(move || update_or_create(&store, &name, &change)).await?;
        Ok(Response::new(wire::UpdateNamespaceResponse { namespace: Some(namespace_out(updated)) }))
    }

    async fn delete(&self, request: Request<wire::DeleteNamespaceRequest>) -> Result<Response<()>, Status> {
        let name = name_in(&request.into_inner().name)?;
        let store = self.store.clone();
        blocking(move || store.delete_namespace(&name)).await?;
        Ok(Response::new(()))
    }
}

fn update_or_create(
    store: &Store,
    name: &Namespace,
    change: &LabelChange,
) -> Result<NamespaceInfo, CallError> {
    match store.update_namespace(name, change) {
        Err(error) if error.is_not_found() => {}
        other => return Ok(other?),
    }
    let mut labels = Labels::new();
    change.apply(&mut labels)?;
    match store.create_namespace(name, labels) {
        // Somebody else was faster: then it is there to be changed.
        Err(StoreError::AlreadyExists { .. }) => Ok(store.update_namespace(name, change)?),
        other => Ok(other?),
    }
}
