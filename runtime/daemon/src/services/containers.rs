//! `containerd.services.containers.v1`: records of containers. Their processes are not this service's business.
//!
//! A record of ours has no place for a few things that containerd's clients give and want back unchanged: the type of
//! the spec, the runtime's options, the sandbox. They are kept as extensions under [`HIDDEN`], which clients do not see.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use prost_types::{Any, FieldMask};
use runtime_api::containerd::services::containers::v1 as wire;
use runtime_engine::{Engine, RUNTIME_OPTIONS};
use storage_content::{ContainerRecord, Extension, LabelChange, Space, Store, StoreError};
use storage_model::{Identifier, Namespace};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::call::{CallError, blocking, namespace, space};
use crate::convert::{
    checked_labels, field, filters, immutable, label, label_change, labels_out, paths, required, time_out,
};
use crate::status::{invalid, status};

/// Prefix of extensions that are ours.
const HIDDEN: &str = "windlass.io/";
/// Holds the type URL of the spec.
const SPEC_TYPE: &str = "windlass.io/spec-type";
/// Holds the sandbox's name.
const SANDBOX: &str = "windlass.io/sandbox";

/// Type URL of a spec that our own engine made, as containerd's clients spell it.
const SPEC_TYPE_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/// What can be changed after creation.
const MUTABLE: [&str; 5] = ["labels", "spec", "extensions", "image", "snapshotkey"];

/// The service.
#[derive(Clone)]
pub(crate) struct ContainersService {
    engine: Engine,
    store: Store,
    /// Held from reading a record to writing it back: two updates never lose one another.
    updating: Arc<Mutex<()>>,
}

impl ContainersService {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { store: engine.store().clone(), engine, updating: Arc::default() }
    }

    async fn found(
        &self,
        request: Request<wire::ListContainersRequest>,
    ) -> Result<Vec<wire::Container>, Status> {
        let (space, namespace) = (space(&self.store, &request)?, namespace(request.metadata())?);
        let filters = filters(&request.into_inner().filters)?;
        let engine = self.engine.clone();
        let found = blocking(move || {
            let found = space.containers()?;
            Ok::<_, StoreError>(
                found.into_iter().map(|record| with_spec(&engine, &namespace, record)).collect::<Vec<_>>(),
            )
        })
        .await?;
        let wanted = |record: &ContainerRecord| filters.matches(|path| container_field(record, path));
        Ok(found.into_iter().filter(wanted).map(container_out).collect())
    }
}

/// A record as clients expect it: the spec of a container of `windlass run` is made when it starts, and is not in the record.
fn with_spec(engine: &Engine, namespace: &Namespace, mut record: ContainerRecord) -> ContainerRecord {
    if record.spec.is_empty() {
        let state = engine.container(namespace, record.id.as_str());
        record.spec = state.map(|state| state.spec_json.into_bytes()).unwrap_or_default();
    }
    record
}

fn container_field<'a>(record: &'a ContainerRecord, path: &[String]) -> Option<Cow<'a, str>> {
    match (path[0].as_str(), path.get(1).map(String::as_str)) {
        ("id", _) => field(record.id.as_str()),
        ("runtime", Some("name")) => field(&record.runtime),
        ("image", _) => field(&record.image),
        ("labels", _) => label(&record.labels, &path[1..]),
        _ => None,
    }
}

fn any_in(any: Any) -> Extension {
    Extension { type_url: any.type_url, value: any.value }
}

fn any_out(extension: Extension) -> Any {
    Any { type_url: extension.type_url, value: extension.value }
}

fn container_out(mut record: ContainerRecord) -> wire::Container {
    let spec_type =
        record.extensions.remove(SPEC_TYPE).map_or_else(|| SPEC_TYPE_URL.to_owned(), |kept| kept.type_url);
    let options = record.extensions.remove(RUNTIME_OPTIONS).map(any_out);
    let sandbox = record.extensions.remove(SANDBOX).map(|kept| kept.type_url).unwrap_or_default();
    wire::Container {
        id: record.id.to_string(),
        labels: labels_out(record.labels),
        image: record.image,
        runtime: Some(wire::container::Runtime { name: record.runtime, options }),
        spec: Some(Any { type_url: spec_type, value: record.spec }),
        snapshotter: record.snapshotter,
        snapshot_key: record.snapshot_key,
        created_at: time_out(record.created),
        updated_at: time_out(record.updated),
        extensions: record
            .extensions
            .into_iter()
            .filter(|(name, _)| !name.starts_with(HIDDEN))
            .map(|(name, extension)| (name, any_out(extension)))
            .collect(),
        sandbox,
    }
}

/// # Errors
/// `InvalidArgument` by containerd's rules: a valid name, a runtime, a spec, a snapshotter if there is a snapshot.
fn container_in(container: wire::Container) -> Result<ContainerRecord, Status> {
    let runtime = container.runtime.unwrap_or_default();
    if runtime.name.is_empty() {
        return Err(invalid("container.runtime.name must be set"));
    }
    if !container.snapshot_key.is_empty() && container.snapshotter.is_empty() {
        return Err(invalid("container.snapshotter must be set if container.snapshot_key is"));
    }
    let spec = required(container.spec, "container.spec")?;
    let mut record = ContainerRecord {
        id: container.id.parse().map_err(status)?,
        image: container.image,
        snapshotter: container.snapshotter,
        snapshot_key: container.snapshot_key,
        runtime: runtime.name,
        spec: Vec::new(),
        labels: checked_labels(container.labels)?,
        extensions: Default::default(),
        created: SystemTime::UNIX_EPOCH,
        updated: SystemTime::UNIX_EPOCH,
    };
    for (name, any) in container.extensions {
        if name.is_empty() || name.starts_with(HIDDEN) {
            return Err(invalid(format!("container.extensions: the name {name:?} is empty or reserved")));
        }
        record.extensions.insert(name, any_in(any));
    }
    set_spec(&mut record, spec);
    if let Some(options) = runtime.options {
        record.extensions.insert(RUNTIME_OPTIONS.to_owned(), any_in(options));
    }
    if !container.sandbox.is_empty() {
        let kept = Extension { type_url: container.sandbox, value: Vec::new() };
        record.extensions.insert(SANDBOX.to_owned(), kept);
    }
    Ok(record)
}

fn set_spec(record: &mut ContainerRecord, spec: Any) {
    record.spec = spec.value;
    let kept = Extension { type_url: spec.type_url, value: Vec::new() };
    record.extensions.insert(SPEC_TYPE.to_owned(), kept);
}

fn id_in(id: &str) -> Result<Identifier, Status> {
    id.parse().map_err(status)
}

/// Puts the parts of `new` that the mask names into `record`.
fn update(
    record: &mut ContainerRecord,
    new: wire::Container,
    mask: Option<FieldMask>,
) -> Result<(), CallError> {
    let mut paths = paths(mask);
    if paths.is_empty() {
        let runtime = new.runtime.as_ref().map(|runtime| runtime.name.as_str()).unwrap_or_default();
        if record.snapshotter != new.snapshotter || record.runtime != runtime {
            return Err(invalid("a container's snapshotter and runtime cannot be changed").into());
        }
        paths.extend(MUTABLE.map(str::to_owned));
    }
    let labels = checked_labels(new.labels)?;
    for path in &paths {
        if path == "labels" || path.starts_with("labels.") {
            let mask = FieldMask { paths: vec![path.clone()] };
            let change: LabelChange = label_change(Some(mask), labels.clone(), "a container")?;
            change.apply(&mut record.labels)?;
            continue;
        }
        if let Some(name) = path.strip_prefix("extensions.").filter(|name| !name.starts_with(HIDDEN)) {
            match new.extensions.get(name) {
                Some(any) => record.extensions.insert(name.to_owned(), any_in(any.clone())),
                None => record.extensions.remove(name),
            };
            continue;
        }
        match path.as_str() {
            "spec" => set_spec(record, required(new.spec.clone(), "container.spec")?),
            "image" => record.image.clone_from(&new.image),
            "snapshotkey" => record.snapshot_key.clone_from(&new.snapshot_key),
            "extensions" => {
                record.extensions.retain(|name, _| name.starts_with(HIDDEN));
                let theirs = new.extensions.iter().filter(|(name, _)| !name.starts_with(HIDDEN));
                record.extensions.extend(theirs.map(|(name, any)| (name.clone(), any_in(any.clone()))));
            }
            _ => return Err(immutable(path, "a container").into()),
        }
    }
    if !record.snapshot_key.is_empty() && record.snapshotter.is_empty() {
        return Err(invalid("container.snapshotter must be set if container.snapshot_key is").into());
    }
    Ok(())
}

#[tonic::async_trait]
impl wire::containers_server::Containers for ContainersService {
    async fn get(
        &self,
        request: Request<wire::GetContainerRequest>,
    ) -> Result<Response<wire::GetContainerResponse>, Status> {
        let space = space(&self.store, &request)?;
        let namespace = namespace(request.metadata())?;
        let id = id_in(&request.into_inner().id)?;
        let engine = self.engine.clone();
        let found = blocking(move || {
            let record = space.container(&id)?;
            Ok::<_, StoreError>(with_spec(&engine, &namespace, record))
        });
        let record = found.await?;
        Ok(Response::new(wire::GetContainerResponse { container: Some(container_out(record)) }))
    }

    async fn list(
        &self,
        request: Request<wire::ListContainersRequest>,
    ) -> Result<Response<wire::ListContainersResponse>, Status> {
        Ok(Response::new(wire::ListContainersResponse { containers: self.found(request).await? }))
    }

    type ListStreamStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<wire::ListContainerMessage, Status>> + Send>>;

    async fn list_stream(
        &self,
        request: Request<wire::ListContainersRequest>,
    ) -> Result<Response<Self::ListStreamStream>, Status> {
        let found = self.found(request).await?;
        let messages =
            found.into_iter().map(|container| Ok(wire::ListContainerMessage { container: Some(container) }));
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn create(
        &self,
        request: Request<wire::CreateContainerRequest>,
    ) -> Result<Response<wire::CreateContainerResponse>, Status> {
        let space = space(&self.store, &request)?;
        let record = container_in(required(request.into_inner().container, "container")?)?;
        let made = blocking(move || space.create_container(record)).await?;
        Ok(Response::new(wire::CreateContainerResponse { container: Some(container_out(made)) }))
    }

    async fn update(
        &self,
        request: Request<wire::UpdateContainerRequest>,
    ) -> Result<Response<wire::UpdateContainerResponse>, Status> {
        let space = space(&self.store, &request)?;
        let wire::UpdateContainerRequest { container, update_mask } = request.into_inner();
        let new = required(container, "container")?;
        let id = id_in(&new.id)?;
        let updating = self.updating.clone();
        let updated = blocking(move || {
            let _alone = updating.lock().unwrap_or_else(PoisonError::into_inner);
            write_back(&space, &id, |record| update(record, new, update_mask))
        })
        .await?;
        Ok(Response::new(wire::UpdateContainerResponse { container: Some(container_out(updated)) }))
    }

    async fn delete(&self, request: Request<wire::DeleteContainerRequest>) -> Result<Response<()>, Status> {
        let space = space(&self.store, &request)?;
        let id = id_in(&request.into_inner().id)?;
        let updating = self.updating.clone();
        blocking(move || {
            let _alone = updating.lock().unwrap_or_else(PoisonError::into_inner);
            space.delete_container(&id)
        })
        .await?;
        Ok(Response::new(()))
    }
}

fn write_back(
    space: &Space,
    id: &Identifier,
    change: impl FnOnce(&mut ContainerRecord) -> Result<(), CallError>,
) -> Result<ContainerRecord, CallError> {
    let mut record = space.container(id)?;
    change(&mut record)?;
    Ok(space.put_container(record)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> wire::Container {
        wire::Container {
            id: "c1".into(),
            runtime: Some(wire::container::Runtime {
                name: "io.containerd.runc.v2".into(),
                options: Some(Any { type_url: "options".into(), value: vec![1, 2] }),
            }),
            spec: Some(Any { type_url: "a/spec".into(), value: b"{}".to_vec() }),
            snapshotter: "overlayfs".into(),
            snapshot_key: "c1".into(),
            extensions: [("theirs".to_owned(), Any { type_url: "t".into(), value: vec![3] })].into(),
            sandbox: "pod".into(),
            ..Default::default()
        }
    }

    #[test]
    fn what_a_client_gives_comes_back_unchanged_and_ours_stays_hidden() {
        let given = container();
        let back = container_out(container_in(given.clone()).unwrap());
        assert_eq!((back.runtime, back.spec, back.sandbox), (given.runtime, given.spec, given.sandbox));
        assert_eq!(back.extensions, given.extensions);
    }

    #[test]
    fn incomplete_containers_are_refused() {
        let broken: [fn(&mut wire::Container); 5] = [
            |container| container.id = "../c".into(),
            |container| container.runtime = None,
            |container| container.spec = None,
            |container| container.snapshotter.clear(),
            |container| {
                container.extensions.insert("windlass.io/spec-type".into(), Any::default());
            },
        ];
        for (index, breaking) in broken.iter().enumerate() {
            let mut container = container();
            breaking(&mut container);
            let error = container_in(container).unwrap_err();
            assert_eq!(error.code(), tonic::Code::InvalidArgument, "case {index}");
        }
    }

    #[test]
    fn an_update_changes_what_its_mask_names() {
        let mut record = container_in(container()).unwrap();
        let new = wire::Container {
            image: "new".into(),
            labels: [("l".to_owned(), "1".to_owned())].into(),
            ..container()
        };
        let mask = |path: &str| Some(FieldMask { paths: vec![path.to_owned()] });
        assert!(update(&mut record, new.clone(), mask("labels.l")).is_ok());
        assert_eq!((record.labels.len(), record.image.as_str()), (1, ""));
        assert!(update(&mut record, new.clone(), mask("id")).is_err());
        assert!(update(&mut record, new.clone(), mask("extensions.theirs")).is_ok());
        assert!(update(&mut record, new, None).is_ok());
        assert_eq!(record.image, "new");
        let moved = wire::Container { snapshotter: "native".into(), ..container() };
        assert!(update(&mut record, moved, None).is_err());
    }
}
