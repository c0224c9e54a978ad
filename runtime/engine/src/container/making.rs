//! Makes a container, or leaves nothing: record, snapshot, bundle, shim.

use std::collections::BTreeMap;
use std::time::SystemTime;

use runtime_container::runtime::OciRuntime;
use runtime_shim::{Client, MountSpec, ShimConfig};
use snapshotters_contract::{ActiveKey, CommittedName};
use storage_content::{ContainerRecord, ErrorKind, Extension};
use storage_model::{Identifier, Labels, Namespace, ProtectionDomain};

use super::{REMOVE_AT_EXIT, RunRequest, Started};
use crate::snapshotters::DEFAULT_SNAPSHOTTER;
use crate::{Engine, EngineError, Image};

fn mount_spec(mount: snapshotters_contract::Mount) -> MountSpec {
    MountSpec { kind: mount.kind, source: mount.source, options: mount.options }
}

/// A container being made. Dropped after its record was written and before it is whole, what exists of it is taken away.
pub(super) struct Making<'a> {
    engine: &'a Engine,
    namespace: &'a Namespace,
    id: &'a Identifier,
    /// Our record is there: until then a container of that name is somebody else's.
    begun: bool,
    whole: bool,
}

impl<'a> Making<'a> {
    pub(super) fn new(engine: &'a Engine, namespace: &'a Namespace, id: &'a Identifier) -> Self {
        Self { engine, namespace, id, begun: false, whole: false }
    }

    /// Makes it, and with `detach` starts its process.
    pub(super) fn make(
        mut self,
        image: &Image,
        runtime: &OciRuntime,
        request: &RunRequest,
    ) -> Result<Started, EngineError> {
        let space = self.engine.space(self.namespace);
        let snapshotter_name =
            if request.snapshotter.is_empty() { DEFAULT_SNAPSHOTTER } else { request.snapshotter.as_str() };
        let snapshotter = self.engine.snapshotter(snapshotter_name, space.clone())?;
        let key: ActiveKey = self.id.as_str().parse()?;
        let parent = parent(image, snapshotter_name, |name| snapshotter.stat(name).is_ok())?;

        // The record first: it is what keeps the snapshot from being collected.
        space.create_container(self.record(request, image, snapshotter_name)).map_err(|error| match error
            .kind()
        {
            ErrorKind::AlreadyExists => EngineError::ContainerExists { id: self.id.to_string() },
            _ => error.into(),
        })?;
        self.begun = true;
        let mounts = snapshotter.prepare(&key, parent.as_ref(), &Labels::new())?;

        let bundle = self.engine.bundle(self.namespace, self.id.as_str());
        std::fs::create_dir_all(&bundle)
            .map_err(|source| EngineError::io("create the directory", &bundle, source))?;
        let config = ShimConfig {
            id: self.id.to_string(),
            namespace: self.namespace.to_string(),
            bundle: bundle.clone(),
            runtime: runtime.path().to_owned(),
            runtime_root: self.engine.config().state.join("runtime").join(self.namespace.as_str()),
            mounts: mounts.into_iter().map(mount_spec).collect(),
            terminal: request.options.terminal,
            image_config: image.config.clone(),
            run_options: request.options.clone(),
            log: Some(bundle.join("output.log")),
        };
        let failed = EngineError::shim(self.id.as_str());
        config.write().map_err(|error| failed(error.into()))?;
        let handle =
            runtime_shim::spawn(&self.engine.config().exe, &bundle).map_err(|error| failed(error.into()))?;
        if request.detach {
            let started = Client::connect(&handle.socket).and_then(|client| client.start_detached());
            started.map_err(|error| failed(error.into()))?;
        }
        self.whole = true;
        Ok(Started { id: self.id.clone(), shim_socket: handle.socket })
    }

    fn record(&self, request: &RunRequest, image: &Image, snapshotter: &str) -> ContainerRecord {
        let now = SystemTime::now();
        let mut extensions = BTreeMap::new();
        if request.remove {
            extensions.insert(REMOVE_AT_EXIT.to_owned(), Extension::default());
        }
        ContainerRecord {
            id: self.id.clone(),
            image: image.record.name.clone(),
            snapshotter: snapshotter.to_owned(),
            snapshot_key: self.id.to_string(),
            runtime: request.runtime.clone(),
            spec: Vec::new(),
            labels: request.labels.clone(),
            created: now,
            updated: now,
            extensions,
        }
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if self.whole || !self.begun {
            return;
        }
        let undone = self.engine.end_shim(self.namespace, self.id.as_str()).and_then(|()| {
            match self.engine.record(self.namespace, self.id.as_str()) {
                Ok(record) => self.engine.take_away(self.namespace, &record),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            }
        });
        if let Err(error) = undone {
            tracing::warn!(%error, id = %self.id, "a container that could not be made left something behind");
        }
    }
}

/// The committed snapshot that `image` stands for; `None` for an image without layers.
fn parent(
    image: &Image,
    snapshotter: &str,
    is_here: impl Fn(&str) -> bool,
) -> Result<Option<CommittedName>, EngineError> {
    let Some(chain) = &image.chain else { return Ok(None) };
    let name = ProtectionDomain::Plain.snapshot_name(chain);
    if !is_here(&name) {
        return Err(EngineError::NotUnpacked {
            name: image.record.name.clone(),
            snapshotter: snapshotter.to_owned(),
        });
    }
    Ok(Some(name.parse()?))
}
