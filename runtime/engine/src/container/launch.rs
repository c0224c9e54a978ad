//! Starting a container's process: the first time, and every later time.
//!
//! What a start needs is in the record ([`RUN`]): the shim's config without what belongs to one start alone (mounts, the
//! network joined). So a container can be started again by any later daemon, also after a restart of the machine, which
//! takes bundles away.

use std::fs;
use std::io;
use std::path::Path;

use runtime_shim::{Client, Handle, MountSpec, ShimConfig};
use snapshotters_contract::ActiveKey;
use storage_content::{ContainerRecord, Extension};
use storage_model::Namespace;

use super::making::mount_spec;
use super::{RunRequest, Started, Status};
use crate::{Engine, EngineError};

/// Extension of a record: the config of its shim, JSON.
pub(super) const RUN: &str = "windlass.io/run";

/// Files of a bundle that outlive a start: what was printed before.
const KEPT: &str = "output.log";

/// The extension that holds `config`.
pub(super) fn extension(config: &ShimConfig) -> Extension {
    Extension { type_url: RUN.to_owned(), value: serde_json::to_vec(config).unwrap_or_default() }
}

impl Engine {
    /// Starts a container that has ended, on the snapshot it had; with `attach` its shim waits for the client's start.
    ///
    /// # Errors
    /// [`EngineError::Running`] if it runs, [`EngineError::NotOurs`] if a client of containerd made it; those of a first
    /// start. Then it has ended as before.
    pub fn start_again(&self, namespace: &Namespace, id: &str, attach: bool) -> Result<Started, EngineError> {
        let _one = self.watches().starting();
        let state = self.container(namespace, id)?;
        if matches!(state.status, Status::Running { .. } | Status::Created) {
            return Err(EngineError::Running { id: id.to_owned() });
        }
        let record = state.record;
        if is_of_clients(&record) {
            return self.start_task_again(namespace, record);
        }
        let mut config = stored(&record)?;
        config.bundle = self.bundle(namespace, id);
        config.mounts = self.mounts_again(namespace, &record, &config)?;
        clear(&config.bundle).map_err(|source| EngineError::io("clear", &config.bundle, source))?;
        let handle = self.launch(namespace, &record, config, !attach)?;
        self.watch(namespace, &record.id);
        Ok(Started { id: record.id, shim_socket: handle.socket })
    }

    /// Makes the shim of a container, and with `start` its process.
    ///
    /// # Errors
    /// [`EngineError::Network`], [`EngineError::Shim`], [`EngineError::Start`].
    pub(super) fn launch(
        &self,
        namespace: &Namespace,
        record: &ContainerRecord,
        mut config: ShimConfig,
        start: bool,
    ) -> Result<Handle, EngineError> {
        let init = config.run_options.joins.init.is_some();
        config.run_options.joins = self.attach_network(namespace, record)?;
        if init {
            config.run_options.joins.init = Some(self.init_program()?);
        }
        let bundle = &config.bundle;
        fs::create_dir_all(bundle)
            .map_err(|source| EngineError::io("create the directory", bundle, source))?;
        let failed = EngineError::shim(record.id.as_str());
        config.write().map_err(|error| failed(error.into()))?;
        let handle = runtime_shim::spawn(&self.config().exe, bundle).map_err(|error| failed(error.into()))?;
        if start {
            let started = Client::connect(&handle.socket).and_then(|client| client.start_detached());
            let pid = started.map_err(|error| failed(error.into()))?;
            self.tasks().events().started(namespace, record.id.as_str(), pid);
        }
        Ok(handle)
    }

    fn mounts_again(
        &self,
        namespace: &Namespace,
        record: &ContainerRecord,
        config: &ShimConfig,
    ) -> Result<Vec<MountSpec>, EngineError> {
        if record.snapshot_key.is_empty() {
            return Ok(config.mounts.clone());
        }
        let key: ActiveKey = record.snapshot_key.parse()?;
        let mounts = self.snapshotter(&record.snapshotter, self.space(namespace))?.mounts(&key)?;
        Ok(mounts.into_iter().map(mount_spec).collect())
    }
}

/// Whether a client of containerd made the container: it brought a spec, and we keep no config.
pub(super) fn is_of_clients(record: &ContainerRecord) -> bool {
    !record.spec.is_empty() && !record.extensions.contains_key(RUN)
}

/// The config that was kept with the record.
fn stored(record: &ContainerRecord) -> Result<ShimConfig, EngineError> {
    let kept = record.extensions.get(RUN).and_then(|kept| serde_json::from_slice(&kept.value).ok());
    kept.ok_or_else(|| EngineError::NotOurs { id: record.id.to_string() })
}

/// What the first start of a request needs, but for mounts and network.
pub(super) fn first(
    engine: &Engine,
    namespace: &Namespace,
    id: &str,
    runtime: &Path,
    request: &RunRequest,
) -> ShimConfig {
    ShimConfig {
        id: id.to_owned(),
        namespace: namespace.to_string(),
        bundle: engine.bundle(namespace, id),
        runtime: runtime.to_owned(),
        runtime_root: engine.config().state.join("runtime").join(namespace.as_str()),
        mounts: Vec::new(),
        terminal: request.options.terminal,
        image_config: super::making::no_image(),
        run_options: request.options.clone(),
        log: None,
        log_settings: None,
    }
}

/// Takes what belongs to the last start out of a bundle.
fn clear(bundle: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(bundle) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let kept = entry.file_name().to_string_lossy().starts_with(KEPT);
        if entry.file_type()?.is_dir() {
            // The root's mount point: in our mount namespace nothing is mounted there, and it is empty.
            fs::remove_dir(entry.path())?;
        } else if !kept {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cleared_bundle_keeps_what_was_printed_and_nothing_else() {
        let bundle = tempfile::tempdir().unwrap();
        for name in ["exit.json", "pid", "output.log", "output.log.1"] {
            fs::write(bundle.path().join(name), "").unwrap();
        }
        fs::create_dir(bundle.path().join("rootfs")).unwrap();
        clear(bundle.path()).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(bundle.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["output.log", "output.log.1"]);
        clear(&bundle.path().join("missing")).unwrap();
    }

    #[test]
    fn a_root_that_is_not_empty_is_not_cleared() {
        let bundle = tempfile::tempdir().unwrap();
        fs::create_dir_all(bundle.path().join("rootfs/etc")).unwrap();
        assert!(clear(bundle.path()).is_err());
        assert!(bundle.path().join("rootfs/etc").exists());
    }
}
