//! Containers on the wire.

use std::time::UNIX_EPOCH;

use runtime_api::windlass::v1 as wire;
use runtime_container::spec::{MountOption, RunOptions};
use runtime_engine::{ContainerState, RunRequest, Status as Process};
use tonic::Status;

use crate::convert::{checked_labels, labels_out};

pub(super) fn run_in(request: wire::RunRequest) -> Result<RunRequest, Status> {
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let options = RunOptions {
        args: request.args,
        entrypoint: request.entrypoint_set.then_some(request.entrypoint),
        env: request.env,
        cwd: given(request.cwd),
        user: given(request.user),
        terminal: request.terminal,
        net_host: request.net_host,
        mounts: request.mounts.into_iter().map(mount_in).collect(),
        hostname: given(request.hostname),
        read_only: request.read_only,
        privileged: request.privileged,
        ..RunOptions::default()
    };
    Ok(RunRequest {
        image: request.image,
        id: request.id,
        snapshotter: request.snapshotter,
        runtime: request.runtime,
        options,
        remove: request.remove,
        detach: request.detach,
        labels: checked_labels(request.labels)?,
    })
}

fn mount_in(mount: wire::Mount) -> MountOption {
    MountOption {
        kind: mount.r#type,
        source: mount.source,
        destination: mount.destination,
        options: mount.options,
    }
}

/// Words for the state of a process, and its id and exit code where it has them.
fn process_out(status: Process) -> (&'static str, u32, u32) {
    match status {
        Process::Created => ("created", 0, 0),
        Process::Running { pid } => ("running", pid, 0),
        Process::Exited { code } => ("exited", 0, code),
        Process::Lost => ("unknown", 0, 0),
    }
}

pub(super) fn container_out(state: ContainerState) -> wire::Container {
    let (status, pid, exit_code) = process_out(state.status);
    let record = state.record;
    // A clock before 1970 is no reason to hide a container.
    let age = record.created.duration_since(UNIX_EPOCH).unwrap_or_default();
    wire::Container {
        id: record.id.to_string(),
        image: record.image,
        runtime: record.runtime,
        snapshotter: record.snapshotter,
        created_at: i64::try_from(age.as_secs()).unwrap_or(i64::MAX),
        status: status.to_owned(),
        pid,
        exit_code,
        args: state.args,
        spec_json: state.spec_json,
        labels: labels_out(record.labels),
        ..wire::Container::default()
    }
}
