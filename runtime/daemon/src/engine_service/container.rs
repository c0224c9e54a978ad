//! Containers on the wire.

use std::time::UNIX_EPOCH;

use runtime_api::windlass::v1 as wire;
use runtime_engine::{ContainerState, Engine, Status as Process};
use runtime_network::Port;
use storage_model::Namespace;

use crate::convert::labels_out;

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

/// Mounts of a container beyond those that every one has: binds.
pub(crate) fn mounts_of(state: &ContainerState) -> Vec<wire::Mount> {
    let spec: serde_json::Value = serde_json::from_str(&state.spec_json).unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let all = spec["mounts"].as_array().cloned().unwrap_or_default();
    let binds = all.into_iter().filter(|mount| mount["type"] == "bind");
    binds
        .map(|mount| wire::Mount {
            r#type: text(&mount["type"]),
            source: text(&mount["source"]),
            destination: text(&mount["destination"]),
            options: mount["options"].as_array().into_iter().flatten().map(text).collect(),
        })
        .collect()
}

/// A container as it is, with its network.
pub(super) fn container_out(
    engine: &Engine,
    namespace: &Namespace,
    state: ContainerState,
) -> wire::Container {
    container_details_out(engine, namespace, state).0
}

/// The same, and the options it was made with.
pub(crate) fn container_details_out(
    engine: &Engine,
    namespace: &Namespace,
    state: ContainerState,
) -> (wire::Container, String) {
    let details = engine.details(namespace, &state);
    let (status, pid, exit_code) = process_out(state.status);
    let network = engine.network_status(namespace, &state.record.id).unwrap_or_default();
    let network_mode = Engine::network_mode(&state.record);
    let record = state.record;
    // A clock before 1970 is no reason to hide a container.
    let age = record.created.duration_since(UNIX_EPOCH).unwrap_or_default();
    let container = wire::Container {
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
        restart: details.restart,
        restarts: details.restarts,
        started_at: details.started_at,
        finished_at: i64::try_from(details.finished_at_ms / 1000).unwrap_or(i64::MAX),
        error: details.error,
        terminal: details.terminal,
        bundle: details.bundle,
        log_path: details.log_path,
        network_mode: if network_mode.is_empty() { network.kind } else { network_mode },
        addresses: network.addresses,
        ports: network.ports.into_iter().map(port_out).collect(),
        ..wire::Container::default()
    };
    (container, details.options_json)
}
