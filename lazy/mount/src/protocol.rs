//! The messages of the control socket, between clients and the server: one JSON value each, answered in order.

use lazy_fetch::Trace;
use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::request::MountRequest;
use crate::status::MountStatus;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Which connection shows this name?
    Find {
        /// Name of the mount.
        name: String,
    },
    /// Serve the `/dev/fuse` descriptor of this message.
    Mount {
        /// Number of the connection, chosen by the client.
        instance: u64,
        /// Minor number of the mount's device.
        minor: u32,
        /// What to show.
        request: Box<MountRequest>,
    },
    /// The mount has been taken away: serve those who still use it, forget the name.
    Unmount {
        /// Name of the mount.
        name: String,
    },
    /// How is it going?
    Status {
        /// Of this mount only.
        name: Option<String>,
    },
    /// Fetch everything, or stop doing so.
    Fill {
        /// Name of the mount.
        name: String,
        /// Start or stop.
        on: bool,
    },
    /// Fetch along a trace.
    Prefetch {
        /// Name of the mount.
        name: String,
        /// What to fetch, in this order.
        trace: Trace,
    },
    /// What was read, in order?
    Trace {
        /// Name of the mount.
        name: String,
    },
    /// Counters as Prometheus reads them.
    Metrics,
}

/// What the server answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Response {
    /// To `Find`.
    Found(Option<Found>),
    /// To what has no answer but that it is done.
    Done,
    /// To `Status`.
    Status(Vec<MountStatus>),
    /// To `Trace`.
    Trace(Trace),
    /// To `Metrics`.
    Text(String),
    /// To anything.
    Failed(Failure),
}

/// A mount that is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// Number of its connection.
    pub(crate) instance: u64,
    /// The index it shows.
    pub(crate) index: std::path::PathBuf,
}
