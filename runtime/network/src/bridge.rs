//! The network `bridge`, which needs no configuration: a bridge of this engine, addresses of a subnet nobody uses here,
//! masquerading outwards, ports published inwards.
//!
//! The subnet is one of the 64 of [`RANGE`] that no route of this machine touches; it is remembered until the machine
//! gets a route into it. Two engines of one machine have two bridges and two subnets.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use storage_model::Digest;

use crate::attach::Place;
use crate::cni::ConfigList;
use crate::error::NetworkError;
use crate::kind::BRIDGE;
use crate::record::write_json;

/// Where subnets are taken from: a corner of 10.0.0.0/8 that neither Docker, Podman, nerdctl nor k3s use.
const RANGE: &str = "10.86.0.0/16";

/// Its first address.
const RANGE_START: u32 = u32::from_be_bytes([10, 86, 0, 0]);

/// Bits of a subnet's prefix: 1021 containers each.
const SUBNET_BITS: u32 = 22;

/// Subnets in the range.
const SUBNETS: u32 = 1 << (SUBNET_BITS - 16);

/// The state directory of an engine that was given none: its bridge has the plain name.
const STATE_DEFAULT: &str = "/run/windlass";

/// The bridge of an engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bridge {
    /// Name of the interface.
    pub(crate) interface: String,
    /// First address of the subnet, which has [`SUBNET_BITS`].
    subnet: Ipv4Addr,
}

/// The bridge of the engine at `place`; chooses its subnet if it has none that is free.
///
/// The caller serialises calls.
///
/// # Errors
/// [`NetworkError::NoSubnet`], [`NetworkError::Io`].
pub(crate) fn plan(place: &Place) -> Result<Bridge, NetworkError> {
    let path = place.state.join("bridge.json");
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let stored = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Bridge>(&text).ok());
    let interface = interface(&place.state);
    let is_free = |subnet: u32| is_free(&routes, &interface, subnet);
    if let Some(stored) =
        stored.filter(|stored| is_free(stored.subnet.into()) && stored.interface == interface)
    {
        return Ok(stored);
    }
    let first = hash(&place.state);
    let subnet = (0..SUBNETS).map(|at| nth(first.wrapping_add(at))).find(|subnet| is_free(*subnet));
    let subnet = subnet
        .ok_or_else(|| NetworkError::NoSubnet { range: RANGE, directory: place.configurations.clone() })?;
    let bridge = Bridge { interface, subnet: subnet.into() };
    fs::create_dir_all(&place.state).map_err(NetworkError::io("create the directory", &place.state))?;
    write_json(&path, &bridge)?;
    Ok(bridge)
}

impl Bridge {
    /// Its plug-ins: with ports, those that publish them; with a firewall on this machine, the one that opens it.
    pub(crate) fn list(&self, place: &Place, with_ports: bool) -> ConfigList {
        let mut bridge = json!({
            "type": "bridge",
            "bridge": self.interface,
            "isGateway": true,
            "ipMasq": true,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": format!("{}/{SUBNET_BITS}", self.subnet)}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": place.state.join("leases"),
            },
            "capabilities": {"ips": true, "mac": true},
        });
        if let Some(bytes) = outward_mtu() {
            bridge["mtu"] = json!(bytes);
        }
        let mut plugins = vec![bridge];
        if with_ports {
            plugins.push(json!({"type": "portmap", "snat": true, "capabilities": {"portMappings": true}}));
        }
        // Without it a machine whose FORWARD chain drops (Docker's does) would drop our packets too.
        if place.has_plugin("firewall") {
            plugins.push(json!({"type": "firewall"}));
        }
        ConfigList { name: format!("{BRIDGE}-{}", self.interface), version: "0.4.0".to_owned(), plugins }
    }
}

/// Name of the bridge of the engine with this directory: at most 15 bytes, and its own.
fn interface(state: &Path) -> String {
    if state.starts_with(STATE_DEFAULT) {
        return "windlass0".to_owned();
    }
    format!("wl{:08x}", hash(state))
}

fn hash(state: &Path) -> u32 {
    let hex = Digest::of(state.as_os_str().as_encoded_bytes()).hex();
    u32::from_str_radix(&hex[..8], 16).unwrap_or(0)
}

fn nth(number: u32) -> u32 {
    RANGE_START + ((number % SUBNETS) << (32 - SUBNET_BITS))
}

/// Whether no route of `table` (the text of `/proc/net/route`: addresses are hexadecimal in the machine's byte order)
/// leads into `subnet`, but those of our own bridge and the default route.
fn is_free(table: &str, own: &str, subnet: u32) -> bool {
    let number = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::from_be);
    table.lines().skip(1).all(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(interface), Some(to), Some(mask)) = (
            fields.first(),
            fields.get(1).and_then(|text| number(text)),
            fields.get(7).and_then(|text| number(text)),
        ) else {
            return true;
        };
        let narrower = mask & (u32::MAX << (32 - SUBNET_BITS));
        *interface == own || mask == 0 || to & narrower != subnet & narrower
    })
}

/// Packet size of the interface that leads outwards: a larger one inside would lose packets to routers that drop in silence.
fn outward_mtu() -> Option<u64> {
    let routes = fs::read_to_string("/proc/net/route").ok()?;
    let default = |line: &&str| {
        let mut fields = line.split_whitespace();
        fields.nth(1) == Some("00000000") && fields.nth(5) == Some("00000000")
    };
    let interface = routes.lines().skip(1).find(default)?.split_whitespace().next()?;
    fs::read_to_string(format!("/sys/class/net/{interface}/mtu")).ok()?.trim().parse().ok()
}

/// Gateway of a result of ADD: the machine as the container sees it.
pub(crate) fn gateway(result: &Value) -> Option<std::net::IpAddr> {
    result["ips"].as_array()?.iter().find_map(|entry| entry["gateway"].as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a little-endian machine prints it.
    const TABLE: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
vpn0\t0005560A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
wl1\t0008560A\t00000000\t0001\t0\t0\t0\t00FCFFFF\t0\t0\t0
";

    #[test]
    #[cfg(target_endian = "little")]
    fn subnets_with_a_route_into_them_are_not_free_but_for_our_own() {
        let subnet = |third: u8| u32::from_be_bytes([10, 86, third, 0]);
        assert!(is_free(TABLE, "wl1", subnet(0)));
        // 10.86.5.0/24 lies within 10.86.4.0/22.
        assert!(!is_free(TABLE, "wl1", subnet(4)));
        assert!(is_free(TABLE, "wl1", subnet(8)) && !is_free(TABLE, "wl2", subnet(8)));
        // A route to all of 10.0.0.0/8 leaves nothing.
        let wide = "head\nvpn0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n";
        assert!((0..SUBNETS).all(|number| !is_free(wide, "wl1", nth(number))));
    }

    #[test]
    fn a_bridge_has_a_name_the_kernel_takes_and_keeps_its_subnet() {
        assert_eq!(interface(Path::new("/run/windlass/network")), "windlass0");
        let directory = tempfile::tempdir().unwrap();
        let place = Place::with(directory.path(), Vec::new(), directory.path());
        let first = plan(&place).unwrap();
        assert!(first.interface.len() <= 15);
        assert_eq!(plan(&place).unwrap(), first);
        assert_eq!(first.list(&place, true).plugins.len(), 2);
    }
}
