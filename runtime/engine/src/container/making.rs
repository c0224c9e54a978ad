//! Makes a container, or leaves nothing: record, snapshot, bundle, shim.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use runtime_container::runtime::OciRuntime;
use runtime_logs::Settings;
use runtime_shim::MountSpec;
use snapshotters_contract::{ActiveKey, CommittedName};
use storage_content::{ContainerRecord, ErrorKind, Extension};
use storage_model::{Identifier, ImageConfig, Labels, Namespace, ProcessDefaults, ProtectionDomain, RootFs};

use super::launch;
use super::network::NETWORK;
use super::{LogWish, NetworkWish, REMOVE_AT_EXIT, RunRequest, Started};
use crate::snapshotters::DEFAULT_SNAPSHOTTER;
use crate::{Engine, EngineError, Image};

pub(super) fn mount_spec(mount: snapshotters_contract::Mount) -> MountSpec {
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
        image: Option<&Image>,
        runtime: &OciRuntime,
        request: &RunRequest,
    ) -> Result<Started, EngineError> {
        let space = self.engine.space(self.namespace);
        let snapshotter_name =
            if request.snapshotter.is_empty() { DEFAULT_SNAPSHOTTER } else { request.snapshotter.as_str() };
        let snapshotter = self.engine.snapshotter(snapshotter_name, space.clone())?;
        let key: ActiveKey = self.id.as_str().parse()?;
        let parent = match image {
            Some(image) => parent(image, snapshotter_name, |name| snapshotter.stat(name).is_ok())?,
            None => None,
        };
        let log = log_settings(&request.log)?;

        let mut config =
            launch::first(self.engine, self.namespace, self.id.as_str(), runtime.path(), request);
        if let Some(image) = image {
            config.image_config = image.config.clone();
        }
        config.log = log.map(|_| config.bundle.join("output.log"));
        config.log_settings = log;
        if let Some(directory) = &request.rootfs {
            config.mounts = vec![bound(directory)?];
        }
        if request.init {
            config.run_options.joins.init = Some(self.engine.init_program()?);
        }

        // The record first: it is what keeps the snapshot from being collected.
        let mut record = self.record(request, image, snapshotter_name);
        record.extensions.insert(launch::RUN.to_owned(), launch::extension(&config));
        space.create_container(record.clone()).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => EngineError::ContainerExists { id: self.id.to_string() },
            _ => error.into(),
        })?;
        self.begun = true;
        if request.rootfs.is_none() {
            let mounts = snapshotter.prepare(&key, parent.as_ref(), &Labels::new())?;
            config.mounts = mounts.into_iter().map(mount_spec).collect();
        }
        let handle = self.engine.launch(self.namespace, &record, config, request.detach)?;
        self.whole = true;
        Ok(Started { id: self.id.clone(), shim_socket: handle.socket })
    }

    fn record(&self, request: &RunRequest, image: Option<&Image>, snapshotter: &str) -> ContainerRecord {
        let now = SystemTime::now();
        let mut extensions = BTreeMap::new();
        if request.remove {
            extensions.insert(REMOVE_AT_EXIT.to_owned(), Extension::default());
        }
        if request.network != NetworkWish::default() {
            extensions.insert(NETWORK.to_owned(), request.network.extension());
        }
        let has_snapshot = request.rootfs.is_none();
        ContainerRecord {
            id: self.id.clone(),
            image: image.map(|image| image.record.name.clone()).unwrap_or_default(),
            snapshotter: if has_snapshot { snapshotter.to_owned() } else { String::new() },
            snapshot_key: if has_snapshot { self.id.to_string() } else { String::new() },
            runtime: request.runtime.clone(),
            spec: Vec::new(),
            labels: labels(request, image),
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

/// Label of a container: signal that asks it to end (containerd's name for it).
pub(super) const STOP_SIGNAL: &str = "io.containerd.image.config.stop-signal";

/// Label of a container: how long that is waited for, in seconds.
pub(super) const STOP_TIMEOUT: &str = "windlass.io/stop-timeout";

/// Labels of containerd's restart monitor, which nerdctl writes too: what the container should be, and the policy.
pub(super) const RESTART_STATUS: &str = "containerd.io/restart.status";
pub(super) const RESTART_POLICY: &str = "containerd.io/restart.policy";

/// The user's labels, and those that tell later what was asked for.
fn labels(request: &RunRequest, image: Option<&Image>) -> Labels {
    let mut labels = request.labels.clone();
    let image_signal = image.map_or("", |image| image.config.config.stop_signal.as_str());
    let signal = if request.stop_signal.is_empty() { image_signal } else { &request.stop_signal };
    if !signal.is_empty() {
        labels.insert(STOP_SIGNAL.to_owned(), signal.to_owned());
    }
    if request.stop_timeout_seconds > 0 {
        labels.insert(STOP_TIMEOUT.to_owned(), request.stop_timeout_seconds.to_string());
    }
    if !matches!(request.restart.as_str(), "" | "no") {
        labels.insert(RESTART_STATUS.to_owned(), "running".to_owned());
        labels.insert(RESTART_POLICY.to_owned(), request.restart.clone());
    }
    labels
}

/// How output is kept; `None`: not at all.
fn log_settings(wish: &LogWish) -> Result<Option<Settings>, EngineError> {
    let options = wish.options.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    match wish.driver.as_str() {
        "" | "json-file" => Ok(Some(Settings::parse(options)?)),
        "none" => Ok(None),
        _ => Err(EngineError::LogDriver(wish.driver.clone())),
    }
}

/// The config of a directory without an image: it says nothing.
pub(super) fn no_image() -> ImageConfig {
    ImageConfig {
        created: None,
        architecture: String::new(),
        os: String::new(),
        variant: None,
        config: ProcessDefaults::default(),
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() },
        history: Vec::new(),
    }
}

/// The mount of a directory that is a root.
fn bound(directory: &Path) -> Result<MountSpec, EngineError> {
    if !directory.is_absolute() || !directory.is_dir() {
        return Err(EngineError::RootDirectory { path: directory.to_owned() });
    }
    let options = ["rbind".to_owned(), "rw".to_owned()].to_vec();
    Ok(MountSpec { kind: "bind".to_owned(), source: directory.to_string_lossy().into_owned(), options })
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
