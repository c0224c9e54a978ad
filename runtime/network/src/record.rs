//! What a container's network is made of: enough to undo it after a crash, and to tell.
//!
//! Written before the first plug-in is called and again with what they said; each time whole, by rename.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cni::{Call, ConfigList};
use crate::error::NetworkError;
use crate::port::Port;

/// The record of one container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Namespace of the container.
    pub(crate) namespace: String,
    /// Its id.
    pub(crate) id: String,
    /// The kind, as [`crate::Kind`] is written.
    pub(crate) kind: String,
    /// Published ports, with the numbers that were chosen.
    pub(crate) ports: Vec<Port>,
    /// What was called; absent when no plug-in was.
    pub(crate) plugins: Option<Plugins>,
}

/// Plug-ins that were called for a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plugins {
    /// Name of the network.
    pub(crate) name: String,
    /// Its `cniVersion`.
    pub(crate) version: String,
    /// Configurations, in order.
    pub(crate) list: Vec<Value>,
    /// `CNI_CONTAINERID`.
    pub(crate) container: String,
    /// `CNI_IFNAME`.
    pub(crate) interface: String,
    /// `CNI_ARGS`.
    pub(crate) arguments: String,
    /// `runtimeConfig` of those that want it.
    pub(crate) capabilities: Value,
    /// What ADD said in the end; absent when it did not end.
    pub(crate) result: Option<Value>,
    /// Name of our bridge, if it is the network.
    pub(crate) bridge: Option<String>,
}

impl Plugins {
    pub(crate) fn config(&self) -> ConfigList {
        ConfigList { name: self.name.clone(), version: self.version.clone(), plugins: self.list.clone() }
    }

    pub(crate) fn call(&self, directories: Vec<PathBuf>, namespace: PathBuf) -> Call {
        Call {
            directories,
            container: self.container.clone(),
            namespace,
            interface: self.interface.clone(),
            arguments: self.arguments.clone(),
            capabilities: self.capabilities.clone(),
        }
    }
}

const NAME: &str = "network.json";

impl Record {
    /// The record in a container's directory; `None` when there is none, or none that can be read.
    pub(crate) fn read(directory: &Path) -> Option<Self> {
        let text = fs::read(directory.join(NAME)).ok()?;
        serde_json::from_slice(&text)
            .inspect_err(|error| tracing::warn!(%error, ?directory, "a record of a network cannot be read"))
            .ok()
    }

    /// Writes the record into a container's directory.
    ///
    /// # Errors
    /// [`NetworkError::Io`]; the record before it stays.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), NetworkError> {
        write_json(&directory.join(NAME), self)
    }
}

/// Writes `value` to `path`: whole, or not at all. Not synced: nothing of a network outlives the machine's boot.
///
/// # Errors
/// [`NetworkError::Io`].
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), NetworkError> {
    let new = path.with_extension("new");
    let text =
        serde_json::to_vec(value).map_err(std::io::Error::from).map_err(NetworkError::io("write", path))?;
    fs::write(&new, text).map_err(NetworkError::io("write", &new))?;
    fs::rename(&new, path).map_err(NetworkError::io("write", path))
}
