//! The bridge to the registries: the only place of this crate where tokio is.
//!
//! A thread of the engine that asks blocks on the answer; connections are driven by two threads of a runtime that is
//! started with the first question, so a machine whose images are complete has none.
//!
//! Logins come from the files that an origin names, read when they are needed, or from [`RegistrySources::set_login`],
//! which keeps them in memory and nowhere else.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use storage_model::{Descriptor, Reference, media};
use storage_registry::{Client, Config, Credentials, RangeRules, RangeStream, RetryPolicy};
use tokio::runtime::{Builder, Handle, Runtime};

use super::{Ask, BlobAt, RangeBody, Sources, local};
use crate::cache::lock;
use crate::error::SourceError;
use crate::spec::{Access, Origin};

/// Threads that drive connections.
const NETWORK_THREADS: usize = 2;
/// Longest one place may take to begin an answer, if the deadline is not sooner.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Local blobs first, then the mirrors and registries of each origin.
pub struct RegistrySources {
    /// Directories with `sha256/HEX` below, in order.
    blobs: Vec<PathBuf>,
    runtime: OnceLock<Runtime>,
    starting: Mutex<()>,
    clients: Mutex<HashMap<(Access, String), Client>>,
    logins: Mutex<HashMap<String, Credentials>>,
}

impl RegistrySources {
    /// Sources that look into these directories of whole blobs (`sha256/HEX` below each) before they ask a registry.
    pub fn new(blobs: Vec<PathBuf>) -> Self {
        let (clients, logins) = (Mutex::default(), Mutex::default());
        Self { blobs, runtime: OnceLock::new(), starting: Mutex::default(), clients, logins }
    }

    /// Sets or takes away the login for a registry (`registry.example:5000`, as in references). It goes before what Docker's
    /// configuration says, never to a mirror, and is forgotten with this value.
    pub fn set_login(&self, registry: &str, login: Option<Credentials>) {
        match login {
            Some(login) => lock(&self.logins).insert(registry.to_owned(), login),
            None => lock(&self.logins).remove(registry),
        };
        lock(&self.clients).retain(|(_, of), _| of != registry);
    }

    fn handle(&self) -> Result<Handle, SourceError> {
        let _starting = lock(&self.starting);
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime.handle().clone());
        }
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(NETWORK_THREADS).thread_name("fetch-net").enable_all().build();
        let runtime = runtime.map_err(SourceError::Runtime)?;
        Ok(self.runtime.get_or_init(|| runtime).handle().clone())
    }

    /// The client for an origin: one for each way of access and registry, so that connections and tokens are shared.
    fn client(&self, access: &Access, registry: &str) -> Result<Client, SourceError> {
        let key = (access.clone(), registry.to_owned());
        let mut clients = lock(&self.clients);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = Client::new(Config {
            hosts_dir: access.hosts_dir.clone(),
            docker_config: access.docker_config.clone(),
            credentials: lock(&self.logins).get(registry).cloned(),
            plain_http: access.plain_http,
            skip_verify: access.skip_verify,
            ca_files: access.ca_files.clone(),
            // Repeating is the engine's part; it also sees to the pace.
            retry: RetryPolicy { attempts: 1, answer_max: ANSWER_MAX, ..RetryPolicy::default() },
            ..Config::default()
        })?;
        clients.insert(key, client.clone());
        Ok(client)
    }

    fn ask_origin(&self, origin: &Origin, ask: &Ask<'_>) -> Result<Box<dyn RangeBody>, SourceError> {
        let began = Instant::now();
        let reference = reference(origin)?;
        let client = self.client(&origin.access, reference.registry())?;
        let handle = self.handle()?;
        let left = ask.deadline.saturating_duration_since(began);
        let rules = RangeRules { avoid: ask.avoid, answer_max: ANSWER_MAX.min(left) };
        let descriptor = descriptor(ask.blob);
        let asked = client.blob_range(&reference, &descriptor, ask.range.clone(), rules);
        let stream = handle.block_on(async { tokio::time::timeout_at(ask.deadline.into(), asked).await });
        let late =
            |_| SourceError::Deadline { host: reference.registry().to_owned(), after: began.elapsed() };
        let stream = stream.map_err(late)??;
        Ok(Box::new(RegistryBody { handle, stream, ended: false }))
    }
}

fn reference(origin: &Origin) -> Result<Reference, SourceError> {
    let parsed = origin.reference.parse::<Reference>();
    parsed.map_err(|source| SourceError::Reference { reference: origin.reference.clone(), source })
}

fn descriptor(blob: &BlobAt) -> Descriptor {
    Descriptor { digest: blob.digest, size: blob.bytes, ..Descriptor::of(media::OCI_LAYER_GZIP, b"") }
}

impl Sources for RegistrySources {
    fn range(&self, ask: &Ask<'_>) -> Result<Box<dyn RangeBody>, SourceError> {
        if let Some(body) = self.blobs.iter().find_map(|directory| local::open(directory, ask)) {
            return Ok(body);
        }
        let none = || SourceError::None { blob: ask.blob.digest, tried: ask.avoid.to_vec() };
        let mut last = None;
        for origin in &ask.blob.origins {
            match self.ask_origin(origin, ask) {
                Ok(body) => return Ok(body),
                Err(SourceError::Registry { source: storage_registry::RegistryError::NoHost { .. } }) => {}
                // One that may yet come is the better news.
                Err(error) if last.as_ref().is_none_or(|last: &SourceError| !last.is_transient()) => {
                    last = Some(error)
                }
                Err(_) => {}
            }
        }
        Err(last.unwrap_or_else(none))
    }
}

/// The runtime ends without waiting for what is on the wire.
impl Drop for RegistrySources {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Bytes from a registry.
struct RegistryBody {
    handle: Handle,
    stream: RangeStream,
    ended: bool,
}

impl RangeBody for RegistryBody {
    fn start(&self) -> u64 {
        self.stream.start()
    }

    fn next(&mut self, deadline: Instant) -> Result<Option<Bytes>, SourceError> {
        if self.ended {
            return Ok(None);
        }
        let stream = &mut self.stream;
        let began = Instant::now();
        let next =
            self.handle.block_on(async { tokio::time::timeout_at(deadline.into(), stream.next()).await });
        match next {
            Err(_) => {
                Err(SourceError::Deadline { host: self.stream.host().to_owned(), after: began.elapsed() })
            }
            Ok(None) => {
                self.ended = true;
                Ok(None)
            }
            Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
            Ok(Some(Err(error))) => {
                self.ended = true;
                Err(error.into())
            }
        }
    }

    fn source(&self) -> &str {
        self.stream.source()
    }

    fn host(&self) -> &str {
        self.stream.host()
    }
}
