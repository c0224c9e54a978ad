//! A container's network, from its record: attached before its process starts, detached when it has ended.
//!
//! What was asked for is an extension of the record, so that a later start, by whichever daemon, asks for the same. A
//! container without the extension (made by a client of containerd, whose spec says all) is never touched.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use runtime_container::spec::{Join, Joins};
use runtime_network::{Dns, Kind, NetworkRequest, NetworkStatus, Port, Shared};
use serde::{Deserialize, Serialize};
use storage_content::{ContainerRecord, ErrorKind, Extension};
use storage_model::{Identifier, Namespace};

use super::Status;
use crate::{Engine, EngineError};

/// Extension of a record: the network it asked for.
pub(super) const NETWORK: &str = "windlass.io/network";

/// Network a container asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkWish {
    /// `none`, `host`, `bridge`, `container:ID`, `ns:PATH`, or a name; empty is `none`.
    pub mode: String,
    /// Ports to publish.
    pub ports: Vec<Port>,
    /// Addresses of name servers.
    pub dns_servers: Vec<String>,
    /// Domains short names are looked up in.
    pub dns_search: Vec<String>,
    /// Options of resolv.conf.
    pub dns_options: Vec<String>,
    /// `NAME:ADDRESS` for `/etc/hosts`.
    pub hosts: Vec<String>,
    /// Wanted address; empty: any.
    pub ip: String,
    /// Wanted hardware address; empty: any.
    pub mac: String,
    /// Host name; empty: the container's id.
    pub hostname: String,
    /// Processes: `private`, `host`, `container:ID`; empty is `private`.
    pub pid_mode: String,
    /// System V IPC and POSIX queues, likewise.
    pub ipc_mode: String,
    /// Host name namespace: `private` or `host`.
    pub uts_mode: String,
    /// Cgroup namespace: `private` or `host`; empty is what the machine has.
    pub cgroup_mode: String,
}

impl NetworkWish {
    /// The wish as an extension of a record.
    pub(super) fn extension(&self) -> Extension {
        let value = serde_json::to_vec(self).unwrap_or_default();
        Extension { type_url: NETWORK.to_owned(), value }
    }

    fn of(record: &ContainerRecord) -> Option<Self> {
        let extension = record.extensions.get(NETWORK)?;
        serde_json::from_slice(&extension.value).ok()
    }

    fn request(&self, namespace: &Namespace, id: &str, shared: Shared) -> NetworkRequest {
        let mode = if self.mode.is_empty() { "none" } else { &self.mode };
        let Ok(kind) = mode.parse::<Kind>();
        NetworkRequest {
            namespace: namespace.to_string(),
            id: id.to_owned(),
            kind,
            ports: self.ports.clone(),
            hostname: if self.hostname.is_empty() { id.to_owned() } else { self.hostname.clone() },
            dns: Dns {
                servers: self.dns_servers.clone(),
                search: self.dns_search.clone(),
                options: self.dns_options.clone(),
            },
            hosts: self.hosts.clone(),
            ip: self.ip.clone(),
            mac: self.mac.clone(),
            shared,
        }
    }
}

impl Engine {
    /// Attaches the container of `record` to the network it asked for, and says what its spec must join.
    ///
    /// Called before each start of its process. One that is attached already (its end was missed) is attached anew.
    ///
    /// # Errors
    /// [`EngineError::Network`], [`EngineError::NotRunning`] of a container to be joined; nothing is left behind.
    pub(crate) fn attach_network(
        &self,
        namespace: &Namespace,
        record: &ContainerRecord,
    ) -> Result<Joins, EngineError> {
        let Some(wish) = NetworkWish::of(record) else { return Ok(Joins::default()) };
        let id = record.id.as_str();
        let mut joins = Joins {
            pid: self.joined(namespace, &wish.pid_mode, "pid")?,
            ipc: self.joined(namespace, &wish.ipc_mode, "ipc")?,
            uts: self.joined(namespace, &wish.uts_mode, "uts")?,
            cgroup: self.joined(namespace, &wish.cgroup_mode, "cgroup")?,
            ..Joins::default()
        };
        let shared = match wish.mode.strip_prefix("container:") {
            Some(other) => Shared { pid: self.running_pid(namespace, other)? },
            None => Shared::default(),
        };
        self.networks().detach(namespace.as_str(), id)?;
        let attached = self.networks().attach(&wish.request(namespace, id, shared))?;
        joins.network = match attached.netns {
            Some(path) => Join::Path(path),
            None if attached.host => Join::Host,
            None => Join::Default,
        };
        joins.files =
            attached.files.into_iter().map(|file| (file.source, file.destination.to_owned())).collect();
        Ok(joins)
    }

    /// Takes the network of a container away whose process has ended. A failure is logged: the next start of the engine
    /// sweeps what is left.
    pub(crate) fn detach_network(&self, namespace: &Namespace, id: &str) {
        if let Err(error) = self.networks().detach(namespace.as_str(), id) {
            tracing::warn!(%error, %namespace, %id, "the network of a container that ended stays for now");
        }
    }

    /// Takes away the networks of containers that ended while no engine saw it.
    pub(crate) fn sweep_networks(&self) {
        self.networks().sweep(|namespace, id| {
            let Ok(space) = namespace.parse::<Namespace>() else { return false };
            match self.container(&space, id) {
                Ok(state) => matches!(state.status, Status::Created | Status::Running { .. }),
                // When it cannot be known, nothing is taken away.
                Err(error) => error.kind() != ErrorKind::NotFound,
            }
        });
    }

    /// The network of a container as it is; `None` without one of ours.
    pub fn network_status(&self, namespace: &Namespace, id: &Identifier) -> Option<NetworkStatus> {
        self.networks().status(namespace.as_str(), id.as_str())
    }

    /// The mode a container's record asks for; empty when it was not made by us.
    pub fn network_mode(record: &ContainerRecord) -> String {
        NetworkWish::of(record).map(|wish| wish.mode).unwrap_or_default()
    }

    fn joined(&self, namespace: &Namespace, mode: &str, kind: &str) -> Result<Join, EngineError> {
        match (mode, mode.split_once(':')) {
            ("", _) => Ok(Join::Default),
            ("private", _) => Ok(Join::Private),
            ("host", _) => Ok(Join::Host),
            (_, Some(("container", other))) => {
                let pid = self.running_pid(namespace, other)?;
                let pid = pid.ok_or_else(|| EngineError::NotRunning { id: other.to_owned() })?;
                Ok(Join::Path(format!("/proc/{pid}/ns/{kind}").into()))
            }
            (_, Some(("ns", path))) => Ok(Join::Path(path.into())),
            _ => Err(EngineError::NamespaceMode { kind: kind.to_owned(), given: mode.to_owned() }),
        }
    }

    fn running_pid(&self, namespace: &Namespace, id: &str) -> Result<Option<u32>, EngineError> {
        match self.container(namespace, id)?.status {
            Status::Running { pid } => Ok(Some(pid)),
            _ => Ok(None),
        }
    }
}

impl Engine {
    /// The program that becomes the first process of containers that ask for one; written where every container's shim
    /// sees it.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(crate) fn init_program(&self) -> Result<PathBuf, EngineError> {
        let path = self.config().state.join("windlass-init");
        let is_whole = fs::metadata(&path).is_ok_and(|file| file.len() == runtime_init::PROGRAM.len() as u64);
        if !is_whole {
            let failed = |source| EngineError::io("write", &path, source);
            // By rename: a container may be starting with the one there is.
            let new = self.config().state.join(format!("windlass-init.{:?}", std::thread::current().id()));
            fs::write(&new, runtime_init::PROGRAM).map_err(failed)?;
            fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).map_err(failed)?;
            fs::rename(&new, &path).map_err(failed)?;
        }
        Ok(path)
    }
}
