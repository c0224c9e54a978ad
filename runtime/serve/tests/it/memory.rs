//! An engine in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use runtime_api::windlass::v1::RegistryOptions;
use runtime_serve::{Backend, BackendError, Content, Image, PullReport};
use serde_json::{Value, json};
use storage_model::{Descriptor, Digest, Reference, media};
use tokio::sync::Semaphore;
use tonic::Status;

/// What the engine has.
#[derive(Default)]
pub struct State {
    pub images: Vec<Image>,
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    /// What registries have: a reference, what it names, and the blobs in the order in which they arrive.
    pub remote: BTreeMap<String, (Descriptor, Vec<Vec<u8>>)>,
    /// References pulled so far.
    pub pulls: Vec<String>,
    /// What a pull of anything else fails with.
    pub failure: Option<Status>,
}

/// The engine. A clone is the same one.
#[derive(Clone)]
pub struct Memory {
    state: Arc<Mutex<State>>,
    /// A pull takes one for each blob it brings.
    pub gate: Arc<Semaphore>,
}

impl Memory {
    pub fn new() -> Self {
        Self { state: Arc::default(), gate: Arc::new(Semaphore::new(1000)) }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Stores a blob.
    pub fn put(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.state().blobs.insert(digest, bytes.to_vec());
        digest
    }

    /// Stores a document and names it.
    pub fn image(&self, name: &str, media_type: &str, document: &Value) -> Descriptor {
        let bytes = document.to_string().into_bytes();
        self.put(&bytes);
        let target = Descriptor::of(media_type, &bytes);
        self.state().images.push(Image { name: name.to_owned(), target: target.clone() });
        target
    }

    /// Stores an image of these layers and names it.
    pub fn simple(&self, name: &str, layers: &[&[u8]]) -> Descriptor {
        for layer in layers {
            self.put(layer);
        }
        self.put(b"{}");
        self.image(name, media::OCI_MANIFEST, &manifest(layers))
    }
}

/// A manifest of these layers.
pub fn manifest(layers: &[&[u8]]) -> Value {
    let layers: Vec<_> = layers.iter().map(|bytes| Descriptor::of(media::OCI_LAYER_GZIP, bytes)).collect();
    json!({"schemaVersion": 2, "mediaType": media::OCI_MANIFEST,
        "config": Descriptor::of(media::OCI_CONFIG, b"{}"), "layers": layers})
}

impl Backend for Memory {
    async fn images(&self) -> Result<Vec<Image>, BackendError> {
        Ok(self.state().images.clone())
    }

    async fn size(&self, digest: &Digest) -> Result<Option<u64>, BackendError> {
        Ok(self.state().blobs.get(digest).map(|bytes| bytes.len() as u64))
    }

    async fn read(&self, digest: &Digest, offset: u64, length: u64) -> Result<Option<Content>, BackendError> {
        let state = self.state();
        let Some(bytes) = state.blobs.get(digest) else { return Ok(None) };
        let part = Bytes::copy_from_slice(&bytes[offset as usize..(offset + length) as usize]);
        // In pieces, as the engine sends them.
        let pieces: Vec<_> = part.chunks(70_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        Ok(Some(Box::pin(tokio_stream::iter(pieces))))
    }

    async fn pull(
        &self,
        reference: &Reference,
        _: bool,
        _: &RegistryOptions,
        report: impl Fn(PullReport) + Send + Sync,
    ) -> Result<(), BackendError> {
        let name = reference.to_string();
        let found = {
            let mut state = self.state();
            state.pulls.push(name.clone());
            state.remote.get(&name).cloned().ok_or_else(|| {
                let failure = state.failure.clone().unwrap_or_else(|| Status::not_found("no such image"));
                BackendError::of("pull it", failure)
            })
        };
        let (target, blobs) = found?;
        for (number, bytes) in blobs.into_iter().enumerate() {
            self.gate.acquire().await.unwrap().forget();
            self.put(&bytes);
            // The documents come first; with the last of them, what the reference names is known.
            report(if number == 0 { PullReport::Resolved(target.digest) } else { PullReport::Progress });
        }
        self.state().images.push(Image { name, target });
        Ok(())
    }
}
