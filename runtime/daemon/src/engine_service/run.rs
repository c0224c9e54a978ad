//! A request for a container, from the wire.

use std::path::PathBuf;

use runtime_api::windlass::v1 as wire;
use runtime_container::spec::{Grants, Joins, Limits, MountOption, RunOptions, Ulimit};
use runtime_engine::{LogWish, NetworkWish, RunRequest};
use runtime_network::Port;
use tonic::Status;

use crate::convert::checked_labels;

pub(super) fn run_in(request: wire::RunRequest) -> Result<RunRequest, Status> {
    let network = network_in(&request)?;
    let limits = limits_in(&request);
    let options = RunOptions {
        args: request.args,
        entrypoint: request.entrypoint_set.then_some(request.entrypoint),
        env: request.env,
        cwd: given(request.cwd),
        user: given(request.user),
        terminal: request.terminal,
        net_host: request.net_host || network.mode == "host",
        mounts: request.mounts.into_iter().map(mount_in).collect(),
        hostname: given(request.hostname),
        read_only: request.read_only,
        privileged: request.privileged,
        limits,
        grants: Grants {
            cap_add: request.cap_add,
            cap_drop: request.cap_drop,
            devices: request.devices,
            security: request.security_opts,
            groups: request.groups,
            sysctls: request.sysctls.into_iter().collect(),
        },
        annotations: request.annotations.into_iter().collect(),
        domainname: given(request.domainname),
        cgroup_parent: given(request.cgroup_parent),
        // The engine's choice, once it has attached the network.
        joins: Joins::default(),
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
        network,
        rootfs: given(request.rootfs).map(PathBuf::from),
        init: request.init,
        restart: request.restart,
        stop_signal: request.stop_signal,
        stop_timeout_seconds: request.stop_timeout_seconds,
        log: LogWish { driver: request.log_driver, options: request.log_options.into_iter().collect() },
    })
}

fn given(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn mount_in(mount: wire::Mount) -> MountOption {
    MountOption {
        kind: mount.r#type,
        source: mount.source,
        destination: mount.destination,
        options: mount.options,
    }
}

fn network_in(request: &wire::RunRequest) -> Result<NetworkWish, Status> {
    let wire = request.network.clone().unwrap_or_default();
    let ports = wire.ports.into_iter().map(port_in).collect::<Result<_, _>>()?;
    let mode = if request.net_host { "host".to_owned() } else { wire.mode };
    let all = NetworkWish {
        ports,
        dns_servers: wire.dns_servers,
        dns_search: wire.dns_search,
        dns_options: wire.dns_options,
        hosts: wire.hosts,
        ip: wire.ip,
        mac: wire.mac,
        pid_mode: request.pid_mode.clone(),
        ipc_mode: request.ipc_mode.clone(),
        uts_mode: request.uts_mode.clone(),
        cgroup_mode: request.cgroupns_mode.clone(),
        ..NetworkWish::default()
    };
    // A network of nothing is what every container has: then there is nothing to note.
    if all == NetworkWish::default() && matches!(mode.as_str(), "none" | "") {
        return Ok(all);
    }
    Ok(NetworkWish { mode, hostname: request.hostname.clone(), ..all })
}

fn port_in(port: wire::PortMapping) -> Result<Port, Status> {
    let bad = |what: String| Status::invalid_argument(format!("a published port has {what}"));
    let number = |number: u32| u16::try_from(number).map_err(|_| bad(format!("the number {number}")));
    let container_port = number(port.container_port)?;
    if container_port == 0 {
        return Err(bad("no number in the container".to_owned()));
    }
    let host_ip = match port.host_ip.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| bad(format!("the address {text:?}")))?),
    };
    let protocol = port.protocol.parse().map_err(|error| bad(format!("another protocol: {error}")))?;
    Ok(Port { host_ip, host_port: number(port.host_port)?, container_port, protocol })
}

fn limits_in(request: &wire::RunRequest) -> Limits {
    let ulimit =
        |limit: &wire::Ulimit| Ulimit { name: limit.name.clone(), soft: limit.soft, hard: limit.hard };
    Limits {
        ulimits: request.ulimits.iter().map(ulimit).collect(),
        oom_score_adj: request.oom_score_adj_set.then_some(request.oom_score_adj),
        shm_bytes: request.shm_bytes,
        ..resources_in(request.resources.clone().unwrap_or_default())
    }
}

/// Limits of a cgroup.
pub(super) fn resources_in(resources: wire::Resources) -> Limits {
    Limits {
        memory_bytes: resources.memory_bytes,
        memory_swap_bytes: resources.memory_swap_bytes,
        memory_reservation_bytes: resources.memory_reservation_bytes,
        cpu_millis: resources.cpu_millis,
        cpu_shares: resources.cpu_shares,
        cpuset_cpus: resources.cpuset_cpus,
        cpuset_mems: resources.cpuset_mems,
        pids: resources.pids,
        blkio_weight: resources.blkio_weight,
        ..Limits::default()
    }
}
