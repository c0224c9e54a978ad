//! Giving a container its network, and taking it away again.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError, RwLock};

use serde_json::{Value, json};
use storage_model::Digest;
use storage_sys::{mount, network};

use crate::bridge;
use crate::cni;
use crate::error::NetworkError;
use crate::kind::{BRIDGE, Kind};
use crate::names::{self, Dns, NameFile, Names};
use crate::port::Port;
use crate::record::{Plugins, Record};
use crate::reserve::{self, Held};

/// Where plug-ins are looked for, in order: upstream's place, Debian's, Fedora's.
const PLUGIN_DIRECTORIES: [&str; 3] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];

/// Where networks are configured.
const CONFIGURATIONS: &str = "/etc/cni/net.d";

/// Name of the interface inside.
const INTERFACE: &str = "eth0";

/// Where networks and plug-ins are found, and where ours are noted.
#[derive(Debug, Clone)]
pub struct Place {
    pub(crate) state: PathBuf,
    pub(crate) plugins: Vec<PathBuf>,
    pub(crate) configurations: PathBuf,
}

impl Place {
    /// The usual places, with `state` as the engine's state directory; `CNI_PATH` and `NETCONFPATH` replace them, as
    /// in other programs.
    pub fn of(state: &Path) -> Self {
        let listed = std::env::var_os("CNI_PATH").map(|list| std::env::split_paths(&list).collect());
        let plugins = listed.unwrap_or_else(|| PLUGIN_DIRECTORIES.map(PathBuf::from).to_vec());
        let configurations =
            std::env::var_os("NETCONFPATH").map_or_else(|| CONFIGURATIONS.into(), PathBuf::from);
        Self { state: state.join("network"), plugins, configurations }
    }

    /// These places.
    pub fn with(state: &Path, plugins: Vec<PathBuf>, configurations: &Path) -> Self {
        Self { state: state.join("network"), plugins, configurations: configurations.to_owned() }
    }

    pub(crate) fn has_plugin(&self, name: &str) -> bool {
        self.plugins.iter().any(|directory| directory.join(name).is_file())
    }
}

/// The container whose network is shared.
#[derive(Debug, Clone, Default)]
pub struct Shared {
    /// Its process, if it runs.
    pub pid: Option<u32>,
}

/// What a container asks for.
#[derive(Debug, Clone, Default)]
pub struct NetworkRequest {
    /// Namespace of the container.
    pub namespace: String,
    /// Its id.
    pub id: String,
    /// The kind of network.
    pub kind: Kind,
    /// Ports to publish.
    pub ports: Vec<Port>,
    /// Its name for itself.
    pub hostname: String,
    /// How names are resolved, where the network's way is not wanted.
    pub dns: Dns,
    /// `NAME:ADDRESS` for `/etc/hosts`; the address `host-gateway` is this machine.
    pub hosts: Vec<String>,
    /// Wanted address; empty: any.
    pub ip: String,
    /// Wanted hardware address; empty: any.
    pub mac: String,
    /// With [`Kind::Container`]: the other one.
    pub shared: Shared,
}

/// A container's network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attached {
    /// The container is in the machine's own network namespace.
    pub host: bool,
    /// Path of the namespace to join; `None` without `host`: the OCI runtime makes one.
    pub netns: Option<PathBuf>,
    /// Files to mount into the container.
    pub files: Vec<NameFile>,
    /// Its addresses, as `ADDRESS/BITS`.
    pub addresses: Vec<String>,
    /// What is published.
    pub ports: Vec<Port>,
}

/// What is known of a container's network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkStatus {
    /// The kind, as [`Kind`] is written.
    pub kind: String,
    /// Addresses, as `ADDRESS/BITS`.
    pub addresses: Vec<String>,
    /// What is published.
    pub ports: Vec<Port>,
}

/// The networks of one engine.
///
/// Any thread may call at any time: calls for different containers run in parallel, those for one container one by one.
#[derive(Debug)]
pub struct Network {
    place: Place,
    /// Containers (namespace and id) that are being attached or detached.
    busy: Mutex<HashSet<(String, String)>>,
    /// Told when one of them no longer is.
    freed: Condvar,
    /// Held while ports are chosen and noted, and while a subnet is.
    choosing: Mutex<()>,
    /// Read by whoever uses the bridge, written by who removes it.
    bridge: RwLock<()>,
}

impl Network {
    /// The networks of the engine at `place`. Nothing is made before the first container asks.
    pub fn new(place: Place) -> Self {
        Self {
            place,
            busy: Mutex::default(),
            freed: Condvar::new(),
            choosing: Mutex::new(()),
            bridge: RwLock::new(()),
        }
    }

    /// Names of the networks there are.
    pub fn names(&self) -> Vec<String> {
        let mut names = cni::names(&self.place.configurations);
        if !names.iter().any(|name| name == BRIDGE) {
            names.insert(0, BRIDGE.to_owned());
        }
        names
    }

    /// Gives a container its network.
    ///
    /// # Errors
    /// [`NetworkError`]; nothing is left behind then.
    pub fn attach(&self, request: &NetworkRequest) -> Result<Attached, NetworkError> {
        if !request.ports.is_empty() && !matches!(request.kind, Kind::Named(_)) {
            return Err(NetworkError::NoPorts {
                kind: request.kind.to_string(),
                directory: self.place.configurations.clone(),
            });
        }
        let wants_files = !request.dns.is_empty() || !request.hosts.is_empty();
        match &request.kind {
            Kind::None | Kind::Host if !wants_files => {
                Ok(Attached { host: request.kind == Kind::Host, ..Attached::default() })
            }
            _ => self.attach_noted(request),
        }
    }

    /// Waits until nobody else is at work on a container; nobody else is until the guard is dropped.
    fn alone(&self, namespace: &str, id: &str) -> Alone<'_> {
        let key = (namespace.to_owned(), id.to_owned());
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.freed.wait_while(busy, |busy| busy.contains(&key));
        free.unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        Alone { network: self, key }
    }

    /// Takes a container's network away: its addresses, ports, namespace and files. One without a network is no error.
    ///
    /// # Errors
    /// [`NetworkError`] when a plug-in fails; its record stays, for [`Network::sweep`] to try again.
    pub fn detach(&self, namespace: &str, id: &str) -> Result<(), NetworkError> {
        if !self.directory(namespace, id).exists() {
            return Ok(());
        }
        let _alone = self.alone(namespace, id);
        self.detach_alone(namespace, id)
    }

    fn detach_alone(&self, namespace: &str, id: &str) -> Result<(), NetworkError> {
        let directory = self.directory(namespace, id);
        if !directory.exists() {
            return Ok(());
        }
        let netns = directory.join("netns");
        let is_kept = mount::is_mounted(&netns).unwrap_or(false);
        let mut bridge = None;
        if let Some(plugins) = Record::read(&directory).and_then(|record| record.plugins) {
            // Without a namespace (the machine was restarted) plug-ins still free addresses and rules.
            let place = if is_kept { netns.clone() } else { PathBuf::new() };
            let call = plugins.call(self.place.plugins.clone(), place);
            cni::call_all_back(&plugins.config(), &call, plugins.result.as_ref())?;
            bridge = plugins.bridge;
        }
        if is_kept {
            mount::detach(&netns)
                .map_err(|error| NetworkError::io("unmount", &netns)(std::io::Error::other(error)))?;
        }
        remove_directory(&directory)?;
        if let Some(bridge) = bridge {
            self.remove_unused(&bridge);
        }
        Ok(())
    }

    /// Asks the plug-ins whether a container's network is as they made it. One without plug-ins is.
    ///
    /// # Errors
    /// [`NetworkError::Plugin`] with what is amiss.
    pub fn check(&self, namespace: &str, id: &str) -> Result<(), NetworkError> {
        let directory = self.directory(namespace, id);
        let Some(plugins) = Record::read(&directory).and_then(|record| record.plugins) else { return Ok(()) };
        let call = plugins.call(self.place.plugins.clone(), directory.join("netns"));
        let result = plugins.result.clone().unwrap_or(Value::Null);
        Ok(cni::check(&plugins.config(), &call, &result)?)
    }

    /// What is known of a container's network; `None` when it has none of ours.
    pub fn status(&self, namespace: &str, id: &str) -> Option<NetworkStatus> {
        let record = Record::read(&self.directory(namespace, id))?;
        let result = record.plugins.and_then(|plugins| plugins.result).unwrap_or(Value::Null);
        Some(NetworkStatus { kind: record.kind, addresses: cni::address_texts(&result), ports: record.ports })
    }

    /// Detaches every container that `is_alive` (asked with namespace and id) does not know: what a crash left.
    /// Returns how many; a failure is logged and tried again by the next sweep.
    pub fn sweep(&self, is_alive: impl Fn(&str, &str) -> bool) -> usize {
        let mut swept = 0;
        for (namespace, id) in self.known() {
            if is_alive(&namespace, &id) {
                continue;
            }
            match self.detach(&namespace, &id) {
                Ok(()) => swept += 1,
                Err(error) => {
                    tracing::warn!(%error, %namespace, %id, "the network of a container that is gone stays");
                }
            }
        }
        swept
    }

    fn containers(&self) -> PathBuf {
        self.place.state.join("containers")
    }

    fn directory(&self, namespace: &str, id: &str) -> PathBuf {
        self.containers().join(namespace).join(id)
    }

    /// Namespace and id of every container with a directory.
    fn known(&self) -> Vec<(String, String)> {
        let inside = |path: &Path| -> Vec<String> {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
        };
        let containers = self.containers();
        let namespaces = inside(&containers).into_iter();
        namespaces
            .flat_map(|namespace| {
                let ids = inside(&containers.join(&namespace));
                ids.into_iter().map(move |id| (namespace.clone(), id))
            })
            .collect()
    }

    fn attach_noted(&self, request: &NetworkRequest) -> Result<Attached, NetworkError> {
        let _alone = self.alone(&request.namespace, &request.id);
        let directory = self.directory(&request.namespace, &request.id);
        if let Some(parent) = directory.parent() {
            fs::create_dir_all(parent).map_err(NetworkError::io("create the directory", parent))?;
        }
        fs::create_dir(&directory).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => NetworkError::Attached { id: request.id.clone() },
            _ => NetworkError::io("create the directory", &directory)(error),
        })?;
        let attached = self.attach_at(&directory, request);
        if attached.is_err()
            && let Err(error) = self.detach_alone(&request.namespace, &request.id)
        {
            tracing::warn!(%error, id = %request.id, "a network that could not be made left something behind");
        }
        attached
    }

    fn attach_at(&self, directory: &Path, request: &NetworkRequest) -> Result<Attached, NetworkError> {
        match &request.kind {
            Kind::None => {
                self.note(directory, request)?;
                let files = self.write_names(directory, request, Dns::default(), &Value::Null)?;
                Ok(Attached { files, ..Attached::default() })
            }
            Kind::Host => {
                self.note(directory, request)?;
                let files = self.write_names(directory, request, names::host_dns(), &Value::Null)?;
                Ok(Attached { host: true, files, ..Attached::default() })
            }
            Kind::Path(path) => {
                self.note(directory, request)?;
                let netns = directory.join("netns");
                network::keep_again(path, &netns)
                    .map_err(NetworkError::io("join the network namespace", path))?;
                let files = self.write_names(directory, request, names::machine_dns(), &Value::Null)?;
                Ok(Attached { netns: Some(netns), files, ..Attached::default() })
            }
            Kind::Container(other) => self.share(directory, request, other),
            Kind::Named(name) => self.connect(directory, request, name),
        }
    }

    /// The record of a container that needs no plug-in.
    fn note(&self, directory: &Path, request: &NetworkRequest) -> Result<(), NetworkError> {
        record_of(request, Vec::new(), None).write(directory)
    }

    /// The network of container `other`, with its name files.
    fn share(
        &self,
        directory: &Path,
        request: &NetworkRequest,
        other: &str,
    ) -> Result<Attached, NetworkError> {
        self.note(directory, request)?;
        let not_running = || NetworkError::NotRunning { id: other.to_owned() };
        let pid = request.shared.pid.ok_or_else(not_running)?;
        let netns = directory.join("netns");
        network::keep_of(pid, &netns).map_err(|error| match error.kind() {
            ErrorKind::NotFound => not_running(),
            _ => NetworkError::io("keep a network namespace at", &netns)(error),
        })?;
        let theirs = self.directory(&request.namespace, other);
        for file in names::present(&theirs) {
            let Some(name) = file.source.file_name() else { continue };
            let copy = directory.join(name);
            fs::copy(&file.source, &copy).map_err(NetworkError::io("write", &copy))?;
        }
        let of_machine = network::is_same(&netns, Path::new("/proc/self/ns/net")).unwrap_or(false);
        let result = Record::read(&theirs).and_then(|record| record.plugins?.result).unwrap_or(Value::Null);
        Ok(Attached {
            host: of_machine,
            netns: Some(netns),
            files: names::present(directory),
            addresses: cni::address_texts(&result),
            ports: Vec::new(),
        })
    }

    /// A network made by plug-ins.
    fn connect(
        &self,
        directory: &Path,
        request: &NetworkRequest,
        name: &str,
    ) -> Result<Attached, NetworkError> {
        let _bridge = self.bridge.read().unwrap_or_else(PoisonError::into_inner);
        let (mut record, held) = self.begin(directory, request, name)?;
        let netns = directory.join("netns");
        network::keep_new(&netns).map_err(NetworkError::io("keep a network namespace at", &netns))?;
        // The plug-ins' rules take over from the sockets that held the ports.
        let Some(plugins) = &mut record.plugins else { return Ok(Attached::default()) };
        let call = plugins.call(self.place.plugins.clone(), netns.clone());
        let result = cni::add(&plugins.config(), &call)?;
        drop(held);
        plugins.result = Some(result.clone());
        record.write(directory)?;
        let dns = cni::dns(&result).or(names::machine_dns());
        let files = self.write_names(directory, request, dns, &result)?;
        let addresses = cni::address_texts(&result);
        Ok(Attached { host: false, netns: Some(netns), files, addresses, ports: record.ports })
    }

    /// Chooses the plug-ins and the ports, and notes both.
    fn begin(
        &self,
        directory: &Path,
        request: &NetworkRequest,
        name: &str,
    ) -> Result<(Record, Held), NetworkError> {
        let _one = self.choosing.lock().unwrap_or_else(PoisonError::into_inner);
        let configured = cni::find(&self.place.configurations, name);
        let (list, bridge) = match configured {
            Ok(list) => (list, None),
            Err(_) if name == BRIDGE => {
                let bridge = bridge::plan(&self.place)?;
                (bridge.list(&self.place, !request.ports.is_empty()), Some(bridge.interface))
            }
            Err(error) => return Err(error),
        };
        let (ports, held) = if request.ports.is_empty() {
            Default::default()
        } else {
            let known = self.known();
            let others: Vec<Record> =
                known.iter().filter_map(|(space, id)| Record::read(&self.directory(space, id))).collect();
            reserve::reserve(&request.ports, &others)?
        };
        let plugins = Plugins {
            name: list.name,
            version: list.version,
            list: list.plugins,
            container: self.container_name(request),
            interface: INTERFACE.to_owned(),
            arguments: arguments(request),
            capabilities: capabilities(request, &ports),
            result: None,
            bridge,
        };
        let record = record_of(request, ports, Some(plugins));
        record.write(directory)?;
        Ok((record, held))
    }

    /// `CNI_CONTAINERID`: unique on the machine, since plug-ins know neither engines nor namespaces.
    fn container_name(&self, request: &NetworkRequest) -> String {
        let directory = self.directory(&request.namespace, &request.id);
        let unique = Digest::of(directory.as_os_str().as_encoded_bytes()).hex();
        format!("{}-{}", request.id, &unique[..12])
    }

    fn write_names(
        &self,
        directory: &Path,
        request: &NetworkRequest,
        dns: Dns,
        result: &Value,
    ) -> Result<Vec<NameFile>, NetworkError> {
        let gateway = bridge::gateway(result);
        let hosts = request.hosts.iter().map(|text| host_line(text, gateway)).collect::<Result<_, _>>()?;
        let names = Names {
            hostname: request.hostname.clone(),
            addresses: cni::addresses(result),
            dns: request.dns.clone().or(dns),
            hosts,
            of_machine: request.kind == Kind::Host,
        };
        names.write(directory)
    }

    /// Removes our bridge if no container uses it. Whether it works matters to nobody: the next container uses it again.
    fn remove_unused(&self, interface: &str) {
        let Ok(_alone) = self.bridge.try_write() else { return };
        let uses = |(space, id): &(String, String)| {
            let record = Record::read(&self.directory(space, id));
            record.and_then(|record| record.plugins?.bridge).is_some_and(|name| name == interface)
        };
        if !self.known().iter().any(uses)
            && let Err(error) = network::remove_bridge(interface)
        {
            tracing::debug!(%error, interface, "the bridge stays");
        }
    }
}

/// The only one at work on a container.
struct Alone<'a> {
    network: &'a Network,
    key: (String, String),
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.network.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.network.freed.notify_all();
    }
}

fn record_of(request: &NetworkRequest, ports: Vec<Port>, plugins: Option<Plugins>) -> Record {
    Record {
        namespace: request.namespace.clone(),
        id: request.id.clone(),
        kind: request.kind.to_string(),
        ports,
        plugins,
    }
}

/// `CNI_ARGS`: a wanted address for plug-ins that know no capabilities.
fn arguments(request: &NetworkRequest) -> String {
    let mut arguments = vec!["IgnoreUnknown=1".to_owned()];
    if !request.ip.is_empty() {
        arguments.push(format!("IP={}", request.ip));
    }
    if !request.mac.is_empty() {
        arguments.push(format!("MAC={}", request.mac));
    }
    arguments.join(";")
}

/// What plug-ins may ask for (CNI conventions, "dynamic plug-in specific fields").
fn capabilities(request: &NetworkRequest, ports: &[Port]) -> Value {
    let mut all = json!({});
    if !ports.is_empty() {
        let mappings = ports.iter().map(|port| {
            json!({
                "hostPort": port.host_port,
                "containerPort": port.container_port,
                "protocol": port.protocol.as_str(),
                "hostIP": port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            })
        });
        all["portMappings"] = mappings.collect();
    }
    if !request.ip.is_empty() {
        all["ips"] = json!([request.ip]);
    }
    if !request.mac.is_empty() {
        all["mac"] = json!(request.mac);
    }
    all
}

/// `NAME:ADDRESS` as a line of `/etc/hosts`.
fn host_line(text: &str, gateway: Option<IpAddr>) -> Result<(String, IpAddr), NetworkError> {
    let bad = || NetworkError::HostLine { given: text.to_owned() };
    let (name, address) = text.split_once(':').ok_or_else(bad)?;
    let is_name = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control());
    let address = match address {
        "host-gateway" => gateway,
        address => address.trim_start_matches('[').trim_end_matches(']').parse().ok(),
    };
    address.filter(|_| is_name).map(|address| (name.to_owned(), address)).ok_or_else(bad)
}

fn remove_directory(directory: &Path) -> Result<(), NetworkError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(NetworkError::io("remove", directory)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
