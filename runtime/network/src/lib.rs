//! Networks of containers: namespaces, CNI plug-ins, published ports, name files, and what cleans them up.
//!
//! ```text
//! attach: reserve ports -> namespace kept by a mount -> record written -> plug-ins ADD -> record with results -> name files
//! detach: plug-ins DEL in reverse, with what ADD said -> mount and files go -> record goes -> an unused bridge goes
//! ```
//! Each container with a network has a directory `STATE/network/containers/NAMESPACE/ID/` (everything in it is of this
//! boot: `network.json`, the mount `netns`, `hosts`, `resolv.conf`, `hostname`). The record is written before the first
//! plug-in runs, so [`Network::sweep`] undoes after a crash whatever was begun.
//!
//! Kinds ([`Kind`]): `none` (a namespace that the OCI runtime makes, loopback only), `host`, `container:ID` (another's
//! namespace), `ns:PATH`, `bridge` (ours, without any configuration), or the name of a network in `/etc/cni/net.d`.
//!
//! Not here: who is alive, when to attach (`runtime-engine`); making the runtime join the namespace (`runtime-container`).
#![forbid(unsafe_code)]

mod attach;
mod bridge;
mod cni;
mod error;
mod kind;
mod names;
mod port;
mod record;
mod reserve;

pub use attach::{Attached, Network, NetworkRequest, NetworkStatus, Place, Shared};
pub use cni::PluginError;
pub use error::NetworkError;
pub use kind::Kind;
pub use names::{Dns, NameFile};
pub use port::{Port, PortError, Protocol};
