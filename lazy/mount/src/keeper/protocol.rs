//! The messages between a server and its keeper: one JSON value each, every one of the server's answered.

use serde::{Deserialize, Serialize};
use storage_sys::fuse::BackingId;

use crate::request::MountRequest;
use crate::session::Negotiated;

/// What a successor needs to go on with a connection, beside its descriptor.
///
/// It is sent over a socket and lies in the keeper's memory, never on a disk: it may hold a login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    /// Number of the connection.
    pub(crate) instance: u64,
    /// What it shows.
    pub(crate) request: MountRequest,
    /// Whether its name still stands for it: not after it was unmounted, or mounted anew.
    pub(crate) named: bool,
    /// What was agreed with the kernel.
    pub(crate) negotiated: Negotiated,
    /// Files the kernel reads by itself, by node.
    pub(crate) backings: Vec<(u32, BackingId)>,
    /// How many servers have served it.
    pub(crate) servers: u32,
    /// Minor number of its file system's device, by which it can be broken off from outside.
    pub(crate) minor: u32,
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToKeeper {
    /// I am your server: give me everything. Answered by [`FromKeeper::Listener`], all mounts, and [`FromKeeper::End`].
    Hello {
        /// Its process.
        pid: u32,
    },
    /// Your predecessor died, I am its server: take everything, which follows.
    Adopt {
        /// Its process.
        pid: u32,
    },
    /// The control socket, in this message.
    Listener,
    /// Keep the descriptor of this message, or what is new about one that is kept.
    Hold(Box<Held>),
    /// Its last mount is gone.
    Forget {
        /// Number of the connection.
        instance: u64,
    },
    /// I answer the control socket from now on.
    Ready,
    /// There is nothing left to serve: let us end. Answered by [`FromKeeper::Kept`] if both do.
    Leave,
}

/// What a keeper answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromKeeper {
    /// The control socket, in this message.
    Listener,
    /// A connection, its descriptor in this message.
    Mount(Box<Held>),
    /// That was all.
    End,
    /// Done.
    Kept,
    /// Not now.
    Refused,
}
