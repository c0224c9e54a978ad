//! Whom a container reaches and who reaches it, as `run` takes it.

use clap::Args;
use runtime_api::windlass::v1::{NetworkOptions, PortMapping};

use super::amounts::{ip, publish};

/// Network options.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct NetworkArgs {
    /// none, bridge, host, container:ID, ns:PATH, or a CNI network [default: none; with -p bridge]
    #[arg(long, visible_alias = "network", env = "WINDLASS_NET", hide_env = true, value_name = "NETWORK")]
    net: Option<String>,
    /// Use the network of this machine; the same as --net host
    #[arg(long, conflicts_with = "net")]
    net_host: bool,
    /// The same as --net bridge
    #[arg(long, hide = true, conflicts_with_all = ["net", "net_host"])]
    cni: bool,
    /// Publish a port of the container: [[ADDRESS:]PORT:]CONTAINER-PORT[/tcp|udp|sctp], also ranges
    #[arg(short, long, value_name = "PORTS", value_parser = publish)]
    publish: Vec<Ports>,
    /// Name server [default: this machine's]
    #[arg(long, value_name = "ADDRESS", value_parser = ip)]
    dns: Vec<String>,
    /// Domain that short names are looked up in
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Option of resolv.conf
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Line of /etc/hosts; the address host-gateway is this machine
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
    /// Wanted address
    #[arg(long, value_name = "ADDRESS", value_parser = ip)]
    ip: Option<String>,
    /// Wanted hardware address
    #[arg(long, value_name = "ADDRESS")]
    mac_address: Option<String>,
}

/// What one `-p` publishes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ports(pub(crate) Vec<PortMapping>);

impl NetworkArgs {
    /// The options on the wire.
    pub(crate) fn options(&self) -> NetworkOptions {
        let ports: Vec<PortMapping> = self.publish.iter().flat_map(|ports| ports.0.clone()).collect();
        // The default costs nothing at the start of a container; a bridge takes four programs.
        let default = if ports.is_empty() { "none" } else { "bridge" };
        let mode = match (&self.net, self.net_host, self.cni) {
            (_, true, _) => "host",
            (_, _, true) => "bridge",
            (Some(net), ..) if !net.is_empty() => net,
            _ => default,
        };
        NetworkOptions {
            mode: mode.to_owned(),
            ports,
            dns_servers: self.dns.clone(),
            dns_search: self.dns_search.clone(),
            dns_options: self.dns_option.clone(),
            hosts: self.add_host.clone(),
            ip: self.ip.clone().unwrap_or_default(),
            mac: self.mac_address.clone().unwrap_or_default(),
        }
    }
}
