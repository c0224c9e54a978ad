//! What a client is made with, and what it tells while it works.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::{Credentials, Proxies};

/// Settings of a [`Client`](crate::Client). The default asks `https` registries anonymously, through
/// the proxies of the environment.
#[derive(Clone)]
pub struct Config {
    /// Roots of host directories (`hosts.toml` as containerd reads it), in order: `/etc/containerd/certs.d`.
    pub hosts_dir: Vec<PathBuf>,
    /// Docker's `config.json`, for its credentials. Absent, or a path where nothing is: no credentials.
    pub docker_config: Option<PathBuf>,
    /// Login for the registry of the reference; it goes before `docker_config` and never to a mirror.
    pub credentials: Option<Credentials>,
    /// Speak `http` to registries that `hosts.toml` says nothing else of.
    pub plain_http: bool,
    /// Accept any certificate. For tests and for people who know why.
    pub skip_verify: bool,
    /// PEM files with certificate authorities to trust beside the system's.
    pub ca_files: Vec<PathBuf>,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// Proxies between here and the registries.
    pub proxies: Proxies,
    /// When to try again, and how long to wait for an answer.
    pub retry: RetryPolicy,
    /// Bytes of one part of an upload. A blob of at most a quarter of it goes whole, which saves a round trip.
    pub upload_part_bytes: u64,
    /// Called for each [`Notice`], from the task that works: it must not block.
    pub notices: Option<Notify>,
}

/// A callback for notices.
pub type Notify = Arc<dyn Fn(&Notice) + Send + Sync>;

/// Bytes of one part where nothing else is configured. Some proxies refuse requests of more than 100 MB; each part costs
/// a round trip, here 10 % at 1 Gbit/s and 50 ms.
const UPLOAD_PART_BYTES: u64 = 64 * 1024 * 1024;

impl Default for Config {
    fn default() -> Self {
        Self {
            hosts_dir: Vec::new(),
            docker_config: None,
            credentials: None,
            plain_http: false,
            skip_verify: false,
            ca_files: Vec::new(),
            user_agent: concat!("windlass/", env!("CARGO_PKG_VERSION")).to_owned(),
            proxies: Proxies::from_environment(),
            retry: RetryPolicy::default(),
            upload_part_bytes: UPLOAD_PART_BYTES,
            notices: None,
        }
    }
}

impl Config {
    /// Where Docker keeps its credentials: `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`.
    pub fn default_docker_config() -> Option<PathBuf> {
        let folder = match std::env::var_os("DOCKER_CONFIG") {
            Some(folder) if !folder.is_empty() => PathBuf::from(folder),
            _ => PathBuf::from(std::env::var_os("HOME").filter(|home| !home.is_empty())?).join(".docker"),
        };
        Some(folder.join("config.json"))
    }
}

/// Says nothing of the credentials, and nothing of the callback.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("hosts_dir", &self.hosts_dir)
            .field("docker_config", &self.docker_config)
            .field("credentials", &self.credentials)
            .field("plain_http", &self.plain_http)
            .field("skip_verify", &self.skip_verify)
            .field("ca_files", &self.ca_files)
            .field("user_agent", &self.user_agent)
            .field("proxies", &self.proxies)
            .field("retry", &self.retry)
            .field("upload_part_bytes", &self.upload_part_bytes)
            .finish_non_exhaustive()
    }
}

/// How patient the client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts at one request, or failures in a row without progress of one blob, before giving up. At least 1.
    pub attempts: u32,
    /// First wait; it doubles with each failure, and half of it is random.
    pub base: Duration,
    /// Longest wait of our own choosing.
    pub wait_max: Duration,
    /// Longest wait a registry may ask for by `Retry-After`; a longer one is cut to this.
    pub retry_after_max: Duration,
    /// Longest wait for the headers of an answer, connecting included.
    pub answer_max: Duration,
    /// Length of the window in which a body must deliver [`RetryPolicy::stall_bytes_min`].
    pub stall_window: Duration,
    /// Fewest bytes per window of waiting; a body that gives less is dropped and resumed.
    pub stall_bytes_min: u64,
}

impl Default for RetryPolicy {
    /// Five attempts within about six seconds; 1 KiB/s over 30 s is the least a body may do.
    fn default() -> Self {
        Self {
            attempts: 5,
            base: Duration::from_millis(400),
            wait_max: Duration::from_secs(10),
            retry_after_max: Duration::from_secs(60),
            answer_max: Duration::from_secs(30),
            stall_window: Duration::from_secs(30),
            stall_bytes_min: 30 * 1024,
        }
    }
}

/// Something a person waiting for a pull may want to read. `Display` is one line without an end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// A request or transfer failed and is tried again after `wait`.
    Retrying {
        /// Host that failed.
        host: String,
        /// What was asked for.
        target: String,
        /// Why, in words.
        reason: String,
        /// How long until the next attempt.
        wait: Duration,
        /// Which attempt comes next, the first being 1.
        attempt: u32,
    },
    /// A mirror could not serve and the next place is asked.
    Skipped {
        /// The mirror.
        host: String,
        /// What was asked for.
        target: String,
        /// Why, in words.
        reason: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retrying { target, reason, wait, attempt, .. } => {
                write!(f, "retrying {target} in {:.1} s (attempt {attempt}): {reason}", wait.as_secs_f64())
            }
            Self::Skipped { host, target, reason } => {
                write!(f, "mirror {host} cannot serve {target}, asking the next: {reason}")
            }
        }
    }
}
