//! Containers on the wire.

use std::time::UNIX_EPOCH;

use runtime_api::windlass::v1 as wire;
use runtime_engine::{ContainerState, Engine, Status as Process};
use runtime_network::Port;
use storage_model::Namespace;

use crate::convert::labels_out;

/// Label of containerd's restart monitor.
const RESTART_POLICY: &str = "containerd.io/restart.policy";

fn port_out(port: Port) -> wire::PortMapping {
    wire::PortMapping {
        host_ip: port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        host_port: port.host_port.into(),
        container_port: port.container_port.into(),
        protocol: port.protocol.as_str().to_owned(),
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

/// A container as it is, with its network.
pub(super) fn container_out(engine: &Engine, namespace: &Namespace, state: ContainerState) -> wire::Container {
    let (status, pid, exit_code) = process_out(state.status);
    let network = engine.network_status(namespace, &state.record.id).unwrap_or_default();
    let network_mode = Engine::network_mode(&state.record);
    let restart = state.record.labels.get(RESTART_POLICY).cloned().unwrap_or_default();
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
        restart,
        network_mode: if network_mode.is_empty() { network.kind } else { network_mode },
        addresses: network.addresses,
        ports: network.ports.into_iter().map(port_out).collect(),
        ..wire::Container::default()
    }
}
