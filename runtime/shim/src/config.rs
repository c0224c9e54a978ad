//! What a shim is told: `shim.json` in its bundle, and the names of the other files there.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use runtime_container::spec::RunOptions;
use serde::{Deserialize, Serialize};
use storage_model::ImageConfig;

/// Largest `shim.json`, in bytes: an image config of the size limit, with room for options.
const CONFIG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A mount of the root, as snapshotters describe it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// `overlay`, `bind`, ...
    pub kind: String,
    /// What is mounted.
    pub source: String,
    /// Options as in fstab.
    pub options: Vec<String>,
}

/// Everything a shim needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimConfig {
    /// The container's id.
    pub id: String,
    /// Its namespace.
    pub namespace: String,
    /// Absolute directory of the container, mode 0700, on a file system that may be lost at reboot.
    pub bundle: PathBuf,
    /// The OCI runtime, as `OciRuntime::find` gave it.
    pub runtime: PathBuf,
    /// Where the runtime keeps its state; one per namespace.
    pub runtime_root: PathBuf,
    /// The mounts of the root, in order.
    pub mounts: Vec<MountSpec>,
    /// Give the process a terminal.
    pub terminal: bool,
    /// The image's config.
    pub image_config: ImageConfig,
    /// The user's wishes.
    pub run_options: RunOptions,
    /// Where the output of a container goes that nobody is attached to; nowhere when absent.
    pub log: Option<PathBuf>,
    /// How the log is kept: as entries, turned over. Absent: the output as it is, in one file.
    #[serde(default)]
    pub log_settings: Option<runtime_logs::Settings>,
}

/// Why a shim's config cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file system refused.
    #[error("cannot read or write {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Not the JSON we write.
    #[error("{path} is not a shim's config")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

impl ShimConfig {
    /// Writes the config into its bundle, which must exist.
    ///
    /// # Errors
    /// [`ConfigError::Io`].
    pub fn write(&self) -> Result<(), ConfigError> {
        let path = config_path(&self.bundle);
        let failed = |source| ConfigError::Io { path: path.clone(), source };
        let text =
            serde_json::to_vec(self).map_err(|source| ConfigError::Syntax { path: path.clone(), source })?;
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        file.write_all(&text).map_err(failed)
    }

    /// Reads the config of the bundle at `bundle`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(bundle: &Path) -> Result<Self, ConfigError> {
        let path = config_path(bundle);
        let failed = |source| ConfigError::Io { path: path.clone(), source };
        let mut text = Vec::new();
        fs::File::open(&path)
            .map_err(failed)?
            .take(CONFIG_BYTES_MAX)
            .read_to_end(&mut text)
            .map_err(failed)?;
        serde_json::from_slice(&text).map_err(|source| ConfigError::Syntax { path, source })
    }

    /// The container as the OCI runtime is asked about it.
    pub(crate) fn target(&self) -> runtime_container::runtime::Target<'_> {
        runtime_container::runtime::Target { id: &self.id, root: &self.runtime_root, bundle: &self.bundle }
    }
}

/// The shim's own config.
fn config_path(bundle: &Path) -> PathBuf {
    bundle.join("shim.json")
}

/// The socket on which the shim of `bundle` answers.
pub fn socket_path(bundle: &Path) -> PathBuf {
    bundle.join(SOCKET_NAME)
}

/// Its name in the bundle.
pub(crate) const SOCKET_NAME: &str = "shim.sock";

/// How the container of `bundle` ended; exists from the moment it has.
pub fn exit_path(bundle: &Path) -> PathBuf {
    bundle.join("exit.json")
}

/// What the shim of `bundle` itself had to say.
pub fn log_path(bundle: &Path) -> PathBuf {
    bundle.join("shim.log")
}

/// The OCI runtime spec of `bundle`; exists from the start on.
pub fn spec_path(bundle: &Path) -> PathBuf {
    bundle.join("config.json")
}

/// Where the root of `bundle` is mounted, inside the shim's mount namespace.
pub(crate) fn rootfs_path(bundle: &Path) -> PathBuf {
    bundle.join("rootfs")
}
