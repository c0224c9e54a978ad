//! Brings damaged content back from where it came from; what cannot be brought back is put aside.
//!
//! The places that are asked: the repositories that the blob's labels name (`layers::source`), then those of the images
//! that need it. A blob that comes back keeps its records and labels; one that nobody has any more goes to quarantine, so
//! that nobody reads wrong bytes and the next pull fetches it.

use std::collections::BTreeSet;
use std::io::Read;

use storage_content::{BlobRepair, ErrorKind, Space, StoreError};
use storage_model::{Descriptor, Digest, Hasher, Namespace, Reference, media};
use storage_registry::{Client, RegistryError};
use tokio::sync::mpsc;

use crate::layers::{SOURCE_PREFIX, repositories};
use crate::pull::{PullRequest, RegistryOptions};
use crate::work::blocking;
use crate::{Engine, EngineError};

/// What became of damaged content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Healed {
    /// The right bytes are back.
    Repaired,
    /// No place had them: it is put aside.
    Quarantined,
}

/// Size of one read while hashing, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// Most places that one blob is asked for at.
const PLACES_MAX: usize = 16;

impl Engine {
    /// Brings a damaged blob back, or puts it aside. `images` are names that need it, asked when its labels say nothing.
    ///
    /// # Errors
    /// [`EngineError::Store`] if the disk refuses: the blob is as it was.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the blob as it was.
    pub async fn heal_blob(
        &self,
        digest: &Digest,
        images: &[(Namespace, String)],
        registry: &RegistryOptions,
    ) -> Result<Healed, EngineError> {
        let places = {
            let (engine, digest, images) = (self.clone(), *digest, images.to_vec());
            blocking(move || engine.places_of(&digest, &images)).await?
        };
        let client =
            self.client(registry, |notice| tracing::info!(notice, "fetching damaged content again"))?;
        for place in places.iter().take(PLACES_MAX) {
            match self.fetch_again(&client, place, digest).await {
                Ok(()) => {
                    tracing::info!(%digest, %place, "damaged content was fetched again");
                    return Ok(Healed::Repaired);
                }
                Err(EngineError::Registry(error)) => {
                    tracing::warn!(%digest, %place, %error, "damaged content cannot be fetched from there");
                }
                Err(EngineError::Store(error @ StoreError::DigestMismatch { .. })) => {
                    tracing::warn!(%digest, %place, %error, "that place has wrong content too");
                }
                Err(error) => return Err(error),
            }
        }
        let (store, digest) = (self.store().clone(), *digest);
        blocking(move || match store.quarantine_blob(&digest) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        })
        .await?;
        Ok(Healed::Quarantined)
    }

    /// Heals the blob that made an operation on an image fail, if a blob did: true if the operation may be tried again.
    ///
    /// Not every error that names a blob is the blob's fault; it is hashed first, and left alone if it is as it should be.
    pub(crate) async fn heal_after(
        &self,
        error: &EngineError,
        image: (&Namespace, &str),
        registry: &RegistryOptions,
    ) -> bool {
        let Some(digest) = suspect(error) else { return false };
        let damaged = {
            let space = self.space(image.0);
            blocking(move || Ok(is_damaged(&space, &digest))).await
        };
        if !matches!(damaged, Ok(true)) {
            return false;
        }
        tracing::warn!(%digest, image = image.1, %error, "stored content is damaged");
        let image = (image.0.clone(), image.1.to_owned());
        match self.heal_blob(&digest, &[image], registry).await {
            Ok(healed) => healed == Healed::Repaired,
            Err(error) => {
                tracing::warn!(%digest, %error, "damaged content could not be repaired");
                false
            }
        }
    }

    /// Fetches what an image lacks, by the digest its name stands for, so that the name goes on meaning the same. True if
    /// it is complete now.
    pub(super) async fn complete_image(
        &self,
        namespace: &Namespace,
        image: &str,
        registry: &RegistryOptions,
    ) -> bool {
        let space = self.space(namespace);
        let (Ok(reference), Ok(record)) = (image.parse::<Reference>(), space.image(image)) else {
            return false;
        };
        let pinned = reference.with_digest(record.target.digest).to_string();
        let known = space.image(&pinned).is_ok();
        let request = PullRequest {
            reference: pinned.clone(),
            no_unpack: true,
            registry: registry.clone(),
            ..PullRequest::default()
        };
        let (events, _nobody) = mpsc::channel(1);
        let pulled = self.pull(namespace, request, events).await;
        // The pull gave it a second name, which nobody asked for.
        if pulled.is_ok()
            && !known
            && let Err(error) = blocking(move || Ok(space.delete_image(&pinned).map(drop)?)).await
        {
            tracing::warn!(image, %error, "a name that a repair made stays");
        }
        if let Err(error) = &pulled {
            tracing::warn!(image, %error, "what the image lacks cannot be fetched");
        }
        pulled.is_ok()
    }

    /// Where a blob may be fetched from: its labels in every namespace first, then the repositories of images.
    fn places_of(
        &self,
        digest: &Digest,
        images: &[(Namespace, String)],
    ) -> Result<Vec<Reference>, EngineError> {
        let mut places = BTreeSet::new();
        for namespace in self.store().namespaces()? {
            let Ok(namespace) = namespace.name.as_str().parse::<Namespace>() else { continue };
            let Ok(blob) = self.space(&namespace).blob(digest) else { continue };
            for registry in blob.labels.keys().filter_map(|key| key.strip_prefix(SOURCE_PREFIX)) {
                for repository in repositories(&blob.labels, registry) {
                    places.insert(format!("{registry}/{repository}"));
                }
            }
        }
        let mut places: Vec<String> = places.into_iter().collect();
        for (_, name) in images {
            if let Ok(reference) = name.parse::<Reference>() {
                let place = format!("{}/{}", reference.registry(), reference.repository());
                if !places.contains(&place) {
                    places.push(place);
                }
            }
        }
        Ok(places.iter().filter_map(|place| format!("{place}@{digest}").parse().ok()).collect())
    }

    /// Fetches a blob from one place and puts it where the damaged one is.
    async fn fetch_again(
        &self,
        client: &Client,
        place: &Reference,
        digest: &Digest,
    ) -> Result<(), EngineError> {
        let mut repair = {
            let (store, digest) = (self.store().clone(), *digest);
            blocking(move || Ok(store.begin_blob_repair(&digest)?)).await?
        };
        let descriptor = Descriptor::new("application/octet-stream", *digest, repair.size());
        match client.blob(place, &descriptor, 0).await {
            Ok(mut stream) => {
                while let Some(bytes) = stream.next().await {
                    repair = written(repair, bytes?).await?;
                }
            }
            // Manifests are content here and documents there.
            Err(RegistryError::NotFound { .. })
                if descriptor.size <= storage_model::limits::MANIFEST_BYTES_MAX =>
            {
                let document = Descriptor { media_type: media::OCI_MANIFEST.to_owned(), ..descriptor };
                repair = written(repair, client.manifest(place, &document).await?).await?;
            }
            Err(error) => return Err(error.into()),
        }
        blocking(move || Ok(repair.commit()?)).await
    }
}

async fn written(mut repair: BlobRepair, bytes: bytes::Bytes) -> Result<BlobRepair, EngineError> {
    blocking(move || {
        repair.write(&bytes)?;
        Ok(repair)
    })
    .await
}

/// The blob that may be to blame.
fn suspect(error: &EngineError) -> Option<Digest> {
    match error {
        EngineError::Store(StoreError::DigestMismatch { expected, .. }) => Some(*expected),
        EngineError::Layer { digest, .. }
        | EngineError::DiffIdMismatch { digest, .. }
        | EngineError::Document { digest, .. }
        | EngineError::Config { digest, .. } => Some(*digest),
        _ => None,
    }
}

/// Whether a blob that is here has other bytes than its digest says.
fn is_damaged(space: &Space, digest: &Digest) -> bool {
    let Ok(mut file) = space.open_blob(digest) else { return false };
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return hasher.finish() != *digest,
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return true,
        }
    }
}
