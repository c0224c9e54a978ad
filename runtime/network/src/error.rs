//! Why a container has not the network it asked for.

use std::io;
use std::path::PathBuf;

use crate::cni::PluginError;
use crate::port::Port;

/// Why a network could not be given, or not be taken away.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// Another container, or a program of this machine, has the port.
    #[error("port {port} is taken by {by}: publish another, or stop what uses it")]
    PortTaken {
        /// The port that was asked for.
        port: Port,
        /// `container web`, or `a program of this machine`.
        by: String,
    },
    /// The address is not one of this machine's.
    #[error("cannot publish {port}: this machine has not that address")]
    Address {
        /// The port that was asked for.
        port: Port,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// `-p` with a network that has no ports of its own.
    #[error("ports cannot be published with network {kind}: use bridge or a network of {directory}")]
    NoPorts {
        /// `host`, `none`, ...
        kind: String,
        /// Where networks are configured.
        directory: PathBuf,
    },
    /// No such network.
    #[error("there is no network {name:?} in {directory}: known are {known}")]
    NoNetwork {
        /// The name.
        name: String,
        /// Where networks are configured.
        directory: PathBuf,
        /// Names there are.
        known: String,
    },
    /// The other container does not run.
    #[error("container {id} does not run, so its network cannot be shared")]
    NotRunning {
        /// Its id.
        id: String,
    },
    /// The container has a network already.
    #[error("container {id} is attached to a network already")]
    Attached {
        /// Its id.
        id: String,
    },
    /// Not `NAME:ADDRESS`.
    #[error("{given:?} names no host: write NAME:ADDRESS, or NAME:host-gateway with network bridge")]
    HostLine {
        /// What was written.
        given: String,
    },
    /// Every subnet of [`crate::bridge`]'s range is in use on this machine.
    #[error("every subnet of {range} is in use on this machine: configure a network in {directory}")]
    NoSubnet {
        /// The range.
        range: &'static str,
        /// Where networks are configured.
        directory: PathBuf,
    },
    /// A configuration that is none.
    #[error("{path} is not a CNI configuration: {reason}")]
    Configuration {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A plug-in refused, is missing, or hangs.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// The file system, or the kernel, refused.
    #[error("cannot {what} {path}")]
    Io {
        /// `write`, `keep a network namespace at`, ...
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl NetworkError {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// Whether the request is at fault, and not this machine.
    pub fn is_bad_request(&self) -> bool {
        matches!(
            self,
            Self::Address { .. } | Self::NoPorts { .. } | Self::NoNetwork { .. } | Self::HostLine { .. }
        )
    }
}
