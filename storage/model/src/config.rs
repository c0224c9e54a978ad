//! The image config: how its process starts, and which diff IDs its layers have.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::descriptor::null_as_default;
use crate::{DiffId, Platform, limits};

/// An image config (OCI image-spec, `config.md`). Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Architecture, in Go's spelling (`amd64`).
    #[serde(default)]
    pub architecture: String,
    /// Operating system, in Go's spelling (`linux`).
    #[serde(default)]
    pub os: String,
    /// Variant of the architecture (`v8`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// How a container's process starts.
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: ProcessDefaults,
    /// The layers.
    pub rootfs: RootFs,
    /// How each layer came to be.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

/// Defaults for a container's process. Field names follow the document, not Rust.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ProcessDefaults {
    /// `user`, `uid`, `user:group`, `uid:gid`: resolved in the container's own `/etc/passwd`.
    #[serde(deserialize_with = "null_as_default")]
    pub user: String,
    /// `NAME=value` pairs.
    #[serde(deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// Words in front of the command.
    #[serde(deserialize_with = "null_as_default")]
    pub entrypoint: Vec<String>,
    /// The command, when none is given.
    #[serde(deserialize_with = "null_as_default")]
    pub cmd: Vec<String>,
    /// Directory the process starts in.
    #[serde(deserialize_with = "null_as_default")]
    pub working_dir: String,
    /// Free labels: shown, never acted on (a label is the image's word, not the user's).
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the process to stop, by name or number.
    #[serde(deserialize_with = "null_as_default")]
    pub stop_signal: String,
    /// Paths meant to be volumes.
    #[serde(deserialize_with = "null_as_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// Ports meant to be published.
    #[serde(deserialize_with = "null_as_default")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
}

/// The layers of an image, by diff ID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Diff IDs, lowest first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub diff_ids: Vec<DiffId>,
}

/// One step of an image's history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// When, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Free comment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the step made no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// Why bytes are not an image config.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// More bytes than any real config has.
    #[error("the image config is {size} bytes: at most {max} are read", max = limits::CONFIG_BYTES_MAX)]
    TooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// Not the JSON of an image config.
    #[error("the image config is not valid")]
    Syntax(#[source] serde_json::Error),
    /// The config lists another number of layers than the manifest.
    #[error("the image config lists {diff_ids} diff IDs but the manifest has {layers} layers")]
    LayerCount {
        /// Diff IDs in the config.
        diff_ids: usize,
        /// Layers in the manifest.
        layers: usize,
    },
}

impl ImageConfig {
    /// Reads a config for a manifest that has `layers` layers.
    ///
    /// # Errors
    /// [`ConfigError`]: too large, not JSON, or another number of layers than the manifest's.
    pub fn parse(bytes: &[u8], layers: usize) -> Result<Self, ConfigError> {
        if bytes.len() as u64 > limits::CONFIG_BYTES_MAX {
            return Err(ConfigError::TooLarge { size: bytes.len() as u64 });
        }
        let config: Self = serde_json::from_slice(bytes).map_err(ConfigError::Syntax)?;
        let diff_ids = config.rootfs.diff_ids.len();
        if diff_ids == layers { Ok(config) } else { Err(ConfigError::LayerCount { diff_ids, layers }) }
    }

    /// The platform the image was made for.
    pub fn platform(&self) -> Platform {
        Platform::normalized(&self.os, &self.architecture, self.variant.as_deref().unwrap_or(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_configs_with_nulls_are_read() {
        let text = br#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":["sh"],"Entrypoint":null,
            "Volumes":null,"Labels":null,"User":"","OnBuild":null},"rootfs":{"type":"layers","diff_ids":null},"history":null}"#;
        let config = ImageConfig::parse(text, 0).unwrap();
        assert_eq!(config.config.cmd, ["sh"]);
        assert_eq!(config.platform().to_string(), "linux/amd64");
    }

    #[test]
    fn another_number_of_layers_than_the_manifest_is_refused() {
        let text = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        assert!(matches!(
            ImageConfig::parse(text, 3),
            Err(ConfigError::LayerCount { diff_ids: 0, layers: 3 })
        ));
    }
}
