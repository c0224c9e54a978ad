//! containerd's services: thin translations between the wire and the store.
//!
//! Each file is one service. It checks what it is given, does its work in one call of the store where it can, and says
//! what containerd would say; what cannot be so is noted at the method.
//!
//! Not here: Windlass's own service (`engine_service`).

pub(crate) mod containers;
pub(crate) mod content;
pub(crate) mod diff;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod images;
pub(crate) mod introspection;
pub(crate) mod leases;
pub(crate) mod namespaces;
pub(crate) mod snapshots;
pub(crate) mod streaming;
pub(crate) mod tasks;
pub(crate) mod transfer;
pub(crate) mod version;
mod write;
