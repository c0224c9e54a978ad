//! `update`: limits of a container that exists.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use libcgroups::common::{CgroupConfig, CgroupManager, ControllerOpt, create_cgroup_manager};
use libcontainer::container::Container;
use libcontainer::oci_spec::runtime::{
    LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder,
};

use crate::args::{Args, UpdateArgs};
use crate::error::EmbeddedError;
use crate::life::load;

/// Largest file of resources, in bytes.
const RESOURCES_BYTES_MAX: u64 = 1024 * 1024;

/// Sets the limits that were named.
pub(crate) fn update(args: &Args, update: &UpdateArgs) -> Result<(), EmbeddedError> {
    let container = load(args, &update.id)?;
    let resources = match &update.resources {
        Some(path) => read(path)?,
        None => build(update)?,
    };
    let options = ControllerOpt {
        resources: &resources,
        disable_oom_killer: false,
        oom_score_adj: None,
        freezer_state: None,
    };
    manager(&container)?.apply(&options).map_err(failed("set limits"))
}

/// What keeps the container's cgroup.
pub(crate) fn manager(
    container: &Container,
) -> Result<impl CgroupManager<Error = libcgroups::common::AnyManagerError>, EmbeddedError> {
    let config = container.spec().map_err(EmbeddedError::container("reading the config"))?;
    create_cgroup_manager(CgroupConfig {
        cgroup_path: config.cgroup_path,
        systemd_cgroup: container.systemd(),
        container_name: container.id().to_owned(),
    })
    .map_err(failed("find the controllers"))
}

/// Turns the library's error into ours.
pub(crate) fn failed<E: std::error::Error>(what: &'static str) -> impl FnOnce(E) -> EmbeddedError {
    move |error| {
        let mut words = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            words = format!("{words}: {error}");
            cause = error.source();
        }
        EmbeddedError::Cgroup { what, words }
    }
}

fn read(path: &Path) -> Result<LinuxResources, EmbeddedError> {
    let failed = |source| EmbeddedError::Read { path: path.to_owned(), source };
    let mut text = Vec::new();
    if path == Path::new("-") {
        io::stdin().take(RESOURCES_BYTES_MAX).read_to_end(&mut text).map_err(failed)?;
    } else {
        let file = fs::File::open(path).map_err(failed)?;
        file.take(RESOURCES_BYTES_MAX).read_to_end(&mut text).map_err(failed)?;
    }
    serde_json::from_slice(&text).map_err(|source| EmbeddedError::Syntax {
        path: PathBuf::from(path),
        kind: "the resources of a spec",
        source,
    })
}

fn build(update: &UpdateArgs) -> Result<LinuxResources, EmbeddedError> {
    let mut builder = LinuxResourcesBuilder::default();
    if let Some(bytes) = update.memory {
        builder =
            builder.memory(LinuxMemoryBuilder::default().limit(bytes).build().map_err(failed("set memory"))?);
    }
    if let Some(limit) = update.pids_limit {
        builder =
            builder.pids(LinuxPidsBuilder::default().limit(limit).build().map_err(failed("set processes"))?);
    }
    let mut cpu = LinuxCpuBuilder::default();
    if let Some(shares) = update.cpu_share {
        cpu = cpu.shares(shares);
    }
    if let Some(quota) = update.cpu_quota {
        cpu = cpu.quota(quota);
    }
    if let Some(period) = update.cpu_period {
        cpu = cpu.period(period);
    }
    builder.cpu(cpu.build().map_err(failed("set CPU time"))?).build().map_err(failed("set limits"))
}
