//! Where everything about lazy images lies: what survives a reboot below the root, what does not below the state.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use storage_model::Digest;

/// Name of the control socket in the state directory.
pub(crate) const CONTROL_SOCKET: &str = "lazy.sock";

/// The two directories and the program that make up one lazy server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// The engine's root directory, absolute: indexes, tables of contents, traces and the cache are in `lazy/` below it.
    pub root: PathBuf,
    /// The engine's state directory, absolute: the control socket and the mounts.
    pub state: PathBuf,
    /// This program, absolute: started as `lazy-keeper` and `lazy-server`.
    pub program: PathBuf,
}

impl Places {
    /// The control socket: `STATE/lazy.sock`.
    pub fn control(&self) -> PathBuf {
        self.state.join(CONTROL_SOCKET)
    }

    /// Everything durable: `ROOT/lazy`.
    pub fn durable(&self) -> PathBuf {
        self.root.join("lazy")
    }

    /// The canonical table of contents of the layer whose blob has `digest`: `ROOT/lazy/layers/HEX.toc`.
    pub fn toc(&self, digest: &Digest) -> PathBuf {
        self.durable().join("layers").join(format!("{}.toc", digest.hex()))
    }

    /// The merged index of the image called `name`: `ROOT/lazy/images/NAME.idx`.
    pub fn index(&self, name: &str) -> PathBuf {
        self.durable().join("images").join(format!("{name}.idx"))
    }

    /// What was fetched, of all images: `ROOT/lazy/cache`.
    pub fn cache(&self) -> PathBuf {
        self.durable().join("cache")
    }

    /// The recorded trace of the image called `name`: `ROOT/lazy/traces/NAME`.
    pub fn trace(&self, name: &str) -> PathBuf {
        self.durable().join("traces").join(name)
    }

    /// Verified blobs of the engine's store, read before any registry is asked: `ROOT/blobs`, with `sha256/HEX` below.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// Where the image called `name` is mounted: `STATE/lazy/NAME`.
    pub fn mountpoint(&self, name: &str) -> PathBuf {
        self.mounts().join(name)
    }

    /// Directory of all mounts: `STATE/lazy`.
    pub fn mounts(&self) -> PathBuf {
        self.state.join("lazy")
    }

    /// What keeper and server have to say, appended: `ROOT/lazy/server.log`.
    pub fn log(&self) -> PathBuf {
        self.durable().join("server.log")
    }
}
