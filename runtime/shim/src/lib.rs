//! The shim: one small process per container that outlives everything but the container.
//!
//! ```text
//!  daemon --spawn--> shim --run--> OCI runtime --leaves--> container's process (the shim's child)
//!  client --socket-> shim: start, attach, state, kill, wait
//! ```
//! It mounts the container's root in a mount namespace of its own, so the mount is gone when the shim is, whatever
//! happens. It starts the container once, reaps its process, and writes `exit.json` before anybody is told how it
//! ended: an exit status is never lost, neither by a daemon nor by a client that died. The daemon is needed for
//! nothing of this.
//!
//! States: `waiting` (root mounted, nobody has started it; 60 s at most) → `starting` → `running` → `ended` → gone.
//!
//! Standard input, output and error of an attached run are the client's own descriptors, passed over the socket: no
//! byte is copied, except where that would hand the container a file of somebody else ([`stdio`]).
//!
//! Not here: what is in the spec (`runtime-container`), which containers exist (`storage-content`).
mod client;
mod config;
mod console;
mod exit;
mod prepare;
mod protocol;
mod recover;
mod serve;
mod spawn;
pub mod stdio;
mod task;
pub mod v2;

pub use client::{Client, ClientError};
pub use config::{ConfigError, MountSpec, ShimConfig, exit_path, log_path, socket_path, spec_path};
pub use exit::{ExitStatus, read_exit};
pub use protocol::{Failure, FailureKind, Phase, StateReport};
pub use recover::{RecoverError, recover};
pub use serve::main;
pub use spawn::{Handle, SpawnError, spawn};
pub use storage_sys::terminal::Size;
