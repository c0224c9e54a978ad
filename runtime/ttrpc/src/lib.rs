//! ttrpc, the protocol between containerd and its shims: a client and a server, without an event loop.
#![forbid(unsafe_code)]
