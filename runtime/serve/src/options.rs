//! What a server is started with.

use std::path::PathBuf;
use std::time::Duration;

use runtime_api::windlass::v1::RegistryOptions;

/// Settings of [`serve`](crate::serve). The defaults serve what is here, over plain http.
#[derive(Debug, Clone)]
pub struct Options {
    /// Pull what is asked for and not here. `None`: serve what is here.
    pub pull_through: Option<PullThrough>,
    /// Connections served at once; others wait to be accepted.
    pub connections_max: usize,
    /// How long a connection may be without a request, or without taking what it asked for.
    pub idle: Duration,
    /// How long transfers may go on after the server was told to stop.
    pub drain: Duration,
    /// Speak https with this certificate.
    pub tls: Option<Tls>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pull_through: None,
            connections_max: 1024,
            idle: Duration::from_secs(60),
            drain: Duration::from_secs(10),
            tls: None,
        }
    }
}

/// Files of a certificate chain and its key, both PEM.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The server's certificate, then those between it and its authority.
    pub certificate: PathBuf,
    /// The key of the first certificate.
    pub key: PathBuf,
}

/// How what is not here is brought here.
#[derive(Debug, Clone)]
pub struct PullThrough {
    /// How registries are spoken to. Clients get what these credentials may read.
    pub registry: RegistryOptions,
    /// How long the answer of a registry for a tag is taken for granted. A tag that was asked longer ago is asked again;
    /// what is here is served if that fails.
    pub fresh: Duration,
    /// Registries that may be pulled from. Empty: any that is not named by an address or a name without a dot, which
    /// would let clients reach into this machine and its network.
    pub registries: Vec<String>,
    /// Pulls at once; others wait.
    pub pulls_max: usize,
}

impl Default for PullThrough {
    fn default() -> Self {
        Self {
            registry: RegistryOptions::default(),
            fresh: Duration::from_secs(60),
            registries: Vec::new(),
            pulls_max: 8,
        }
    }
}
