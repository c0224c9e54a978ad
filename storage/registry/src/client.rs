//! The client: what callers see.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use http::Uri;
use storage_model::{Descriptor, Digest, Hasher, Reference};
use tokio::time::Instant;

use crate::auth::Logins;
use crate::blob::BlobStream;
use crate::endpoint::{self, Endpoint};
use crate::tls::{DIAL_TIMEOUT, Profile};
use crate::transport::Transport;
use crate::{Config, RegistryError, Target};

/// Most digests for which hosts are avoided.
const AVOIDED_MAX: usize = 4096;

/// A distribution client. Clones share connections, tokens and what was learned of each host.
#[derive(Clone)]
pub struct Client {
    core: Arc<Core>,
}

/// A reference and the manifest or index it names at this moment.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// Type, digest and size of the document. The digest is that of `bytes`, whatever the registry announced.
    pub descriptor: Descriptor,
    /// The document itself: resolving reads it anyway.
    pub bytes: Option<Bytes>,
}

/// Place, repository and blob of a redirect.
pub(crate) type RedirectKey = (String, String, Digest);

/// What the parts of a client share.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) transport: Transport,
    pub(crate) logins: Logins,
    /// Where blobs were redirected to, and when.
    pub(crate) redirects: Mutex<HashMap<RedirectKey, (Uri, Instant)>>,
    /// What registries of this machine turned out to speak.
    pub(crate) local_schemes: Mutex<HashMap<String, &'static str>>,
    /// Hosts that sent other bytes than a digest names.
    avoided: Mutex<HashMap<Digest, HashSet<String>>>,
    /// Places that answer a range with the whole blob, and since when we know.
    pub(crate) whole: Mutex<HashMap<String, Instant>>,
    /// Places that asked to be left alone, and until when.
    pub(crate) cooling: Mutex<HashMap<String, Instant>>,
}

/// Locks a table. Each change to one is a single call, so a panic elsewhere leaves it usable.
pub(crate) fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// Makes a client.
    ///
    /// # Errors
    /// [`RegistryError::Certificate`] if a file of `ca_files` cannot be used. Other files are read when they are
    /// needed.
    pub fn new(config: Config) -> Result<Self, RegistryError> {
        Profile::load(&config.ca_files, &[], config.skip_verify, DIAL_TIMEOUT)?.client_config(false)?;
        Ok(Self {
            core: Arc::new(Core {
                transport: Transport::new(config.proxies.clone()),
                config,
                logins: Logins::default(),
                redirects: Mutex::default(),
                local_schemes: Mutex::default(),
                avoided: Mutex::default(),
                whole: Mutex::default(),
                cooling: Mutex::default(),
            }),
        })
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    pub(crate) fn shared(&self) -> Arc<Core> {
        Arc::clone(&self.core)
    }

    /// Finds what `reference` names, with one request: the tag is read once, and what came is hashed.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Unauthorized`] and [`RegistryError::Denied`] are the registry's
    /// word; [`RegistryError::DigestMismatch`] if the document is not the one pinned or announced; any other if no
    /// place could be asked. Mirrors are tried first; the error is that of the last place.
    ///
    /// Cancel safety: nothing is left behind.
    pub async fn resolve(&self, reference: &Reference) -> Result<Resolved, RegistryError> {
        self.core.resolve(reference).await
    }

    /// Fetches a manifest or index by its descriptor. What is returned has its digest and size.
    ///
    /// # Errors
    /// As [`Client::resolve`], and [`RegistryError::SizeMismatch`] or [`RegistryError::TooLarge`] for documents that
    /// are not as long as the descriptor says or longer than [`storage_model::limits::MANIFEST_BYTES_MAX`].
    pub async fn manifest(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Bytes, RegistryError> {
        self.core.manifest(reference, descriptor).await
    }

    /// Streams a blob from byte `offset` on. The stream never gives more bytes than `descriptor.size - offset`.
    ///
    /// The bytes are **not** verified here: the caller hashes them, and may name a liar to [`Client::avoid`].
    /// `descriptor.urls` is never followed: it is the word of whoever wrote the manifest (CVE-2020-15157).
    ///
    /// # Errors
    /// As [`Client::resolve`]; [`RegistryError::Offset`] if `offset` is past the end;
    /// [`RegistryError::SizeMismatch`] if the registry announces another size.
    pub async fn blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<BlobStream, RegistryError> {
        BlobStream::open(Arc::clone(&self.core), reference, descriptor, offset).await
    }

    /// Fetches a blob of at most `max_bytes` into memory, such as a config. What is returned has its digest.
    ///
    /// # Errors
    /// As [`Client::blob`]; [`RegistryError::TooLarge`]; [`RegistryError::DigestMismatch`] if every place sent wrong
    /// bytes.
    pub async fn small_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        max_bytes: u64,
    ) -> Result<Bytes, RegistryError> {
        let target = Target::at(reference, descriptor.digest.to_string());
        if descriptor.size > max_bytes {
            return Err(RegistryError::TooLarge { target, max: max_bytes });
        }
        let mut lies = None;
        loop {
            let mut stream = match self.blob(reference, descriptor, 0).await {
                // Every place that could be asked has lied: that is the news.
                Err(RegistryError::NoHost { .. }) if lies.is_some() => {
                    return Err(lies.expect("checked to be there"));
                }
                other => other?,
            };
            let mut hasher = Hasher::new();
            let mut whole = BytesMut::with_capacity(descriptor.size as usize);
            while let Some(bytes) = stream.next().await {
                let bytes = bytes?;
                hasher.update(&bytes);
                whole.extend_from_slice(&bytes);
            }
            let actual = hasher.finish();
            if actual == descriptor.digest {
                return Ok(whole.freeze());
            }
            let (target, expected) = (Arc::clone(&target), descriptor.digest);
            let host = stream.host().to_owned();
            self.avoid(&descriptor.digest, stream.source());
            lies = Some(RegistryError::DigestMismatch { target, host, expected, actual });
        }
    }

    /// Says that the place named by [`BlobStream::source`] sent wrong bytes for `digest`: this client does not ask
    /// it for them again. A later [`Client::blob`] asks the next place, or fails with [`RegistryError::NoHost`].
    pub fn avoid(&self, digest: &Digest, source: &str) {
        let mut avoided = lock(&self.core.avoided);
        if avoided.len() >= AVOIDED_MAX {
            avoided.clear();
        }
        avoided.entry(*digest).or_default().insert(source.to_owned());
    }

    /// Places asked for `reference`, in order, as `host` or `host:port`: for people and for `info`.
    ///
    /// # Errors
    /// [`RegistryError::Hosts`] and [`RegistryError::Certificate`] for configuration that cannot be used.
    pub fn places(&self, reference: &Reference) -> Result<Vec<String>, RegistryError> {
        let places = endpoint::endpoints(&self.core.config, reference.registry())?;
        Ok(places.into_iter().map(|place| place.authority).collect())
    }
}

/// Shows the configuration only: the rest holds tokens.
impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("config", &self.core.config).finish_non_exhaustive()
    }
}

impl Core {
    /// Places that may be asked for `target`, in order: never empty.
    pub(crate) fn places(
        &self,
        registry: &str,
        target: &Arc<Target>,
        by_tag: bool,
        digest: Option<&Digest>,
    ) -> Result<Vec<Endpoint>, RegistryError> {
        let mut places = endpoint::endpoints(&self.config, registry)?;
        places.retain(|place| if by_tag { place.may.resolve } else { place.may.pull });
        if let Some(liars) = digest.and_then(|digest| lock(&self.avoided).get(digest).cloned()) {
            places.retain(|place| !liars.contains(&place.authority));
        }
        if places.is_empty() {
            return Err(RegistryError::NoHost { target: Arc::clone(target) });
        }
        Ok(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pull runs in tasks of a runtime with several threads.
    #[test]
    fn every_future_may_move_between_threads() {
        fn moves<T: Send>(_: T) {}
        let client = Client::new(Config::default()).unwrap();
        let reference: Reference = "localhost:1/a".parse().unwrap();
        let descriptor = Descriptor::of("text/plain", b"x");
        moves(client.resolve(&reference));
        moves(client.manifest(&reference, &descriptor));
        moves(client.small_blob(&reference, &descriptor, 1));
        moves(async {
            let mut stream = client.blob(&reference, &descriptor, 0).await.unwrap();
            stream.next().await;
        });
    }
}
