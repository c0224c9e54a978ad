//! What a lazy server tells about its mounts.

use std::path::PathBuf;

use lazy_fetch::ImageStatus;
use serde::{Deserialize, Serialize};

/// State of one mount.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MountStatus {
    /// Its name.
    pub name: String,
    /// Where it was mounted.
    pub mountpoint: PathBuf,
    /// The index it shows.
    pub index: PathBuf,
    /// How the kernel opens files of it.
    pub opening: Opening,
    /// How many servers have served it: 1, and one more for each that died.
    pub servers: u32,
    /// Requests answered by this server.
    pub requests: u64,
    /// Requests at work now.
    pub in_flight: u64,
    /// Process id of the server.
    pub server: u32,
    /// How much is here, and what was waited for.
    pub image: ImageStatus,
}

/// How the kernel opens files of a mount. Decided when it is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Opening {
    /// Without asking (`no_open`): native speed for many small files.
    Silent,
    /// By asking each time, so that large complete files are read by the kernel itself (passthrough).
    Passthrough,
}
