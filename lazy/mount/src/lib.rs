//! Shows an image as a tree: a FUSE server that may die at any time, the keeper that outlives it, and the client that commands both.
#![forbid(unsafe_code)]

mod bytes;
mod client;
mod error;
mod keeper;
mod life;
mod places;
mod protocol;
mod request;
mod server;
mod session;
mod spawn;
mod status;
#[cfg(test)]
mod testing;
mod wire;

pub use client::Client;
pub use error::{ClientError, Failure, FailureKind};
pub use keeper::keeper_main;
pub use places::Places;
pub use request::{Access, Login, MountRequest, NAME_BYTES_MAX, Origin};
pub use server::server_main;
pub use spawn::{ADOPT_FLAG, KEEPER_VERB, SERVER_VERB};
pub use status::{MountStatus, Opening};
