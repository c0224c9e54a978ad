//! Containers on the wire.

use std::time::UNIX_EPOCH;

use runtime_api::windlass::v1 as wire;
use runtime_engine::{ContainerState, Status as Process};

use crate::convert::labels_out;

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
