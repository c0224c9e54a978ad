//! A mirror for others: the read half of the OCI distribution API (1.1), answered from the engine's store.
//!
//! ```text
//! connection -> request.rs -> view.rs: which repository is meant -> graph.rs: does it reach this content -> reply
//!                                  \-> flights.rs: pull it first, once for all who ask (only when asked for)
//! ```
//! Everything comes through the engine's own socket ([`Socket`]); this crate keeps no state but caches of what cannot
//! change. Promises, each with its tests:
//! - what is served belongs to an image of the repository that was asked, now: an image that was removed is gone with
//!   the next request, whatever is still on the disk;
//! - a manifest, and a blob read as a whole, is hashed on its way out; one that does not match its digest never ends;
//! - a client can neither make us allocate without limit, nor hold a connection without reading, nor write;
//! - with pull-through, clients choose what is pulled but not from inside this network, unless the registry is listed.
//!
//! Whoever reaches the port reads every image of the namespace: there is no login here. A proxy may add one.
//!
//! Not here: pulling (the engine), the verb `serve` (the CLI).
#![forbid(unsafe_code)]

mod backend;
mod blob;
mod digester;
mod flights;
mod graph;
mod lists;
mod manifest;
mod options;
mod range;
mod reply;
mod request;
mod server;
mod socket;
mod stall;
mod tls;
mod view;

pub use backend::{Backend, BackendError, Content, Image, PullReport};
pub use options::{Options, PullThrough, Tls};
pub use range::{Span, parse as parse_range};
pub use request::{Ask, AskFault, Name, Object, Page, parse as parse_request};
pub use server::{ServeError, serve};
pub use socket::Socket;
