//! What the tests of this crate stand on: a server that misbehaves by script, a real registry, and certificates.

pub mod fault;
pub mod files;
pub mod registry;
pub mod sink;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use storage_model::{Descriptor, Reference, media};
use storage_registry::{BlobStream, Config, RegistryError, RetryPolicy};

/// A policy that tests can wait for.
pub fn quick() -> RetryPolicy {
    RetryPolicy {
        attempts: 4,
        base: Duration::from_millis(4),
        wait_max: Duration::from_millis(40),
        retry_after_max: Duration::from_millis(150),
        answer_max: Duration::from_secs(2),
        stall_window: Duration::from_millis(250),
        stall_bytes_min: 4096,
    }
}

/// A configuration with the quick policy.
pub fn config() -> Config {
    Config { retry: quick(), ..Config::default() }
}

/// A configuration that keeps its notices.
pub fn noted() -> (Config, Arc<Mutex<Vec<String>>>) {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&notes);
    let notify =
        Arc::new(move |notice: &storage_registry::Notice| kept.lock().unwrap().push(notice.to_string()));
    (Config { notices: Some(notify), ..config() }, notes)
}

/// `text` as a reference.
pub fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// Bytes that no two places of a blob share, so that a shifted resume shows.
pub fn content(length: usize) -> Bytes {
    (0..length).map(|at| (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[at % 4]).collect()
}

/// Descriptor of a layer with these bytes.
pub fn layer(bytes: &[u8]) -> Descriptor {
    Descriptor::of(media::OCI_LAYER_GZIP, bytes)
}

/// All that a stream gives.
pub async fn drain(mut stream: BlobStream) -> Result<Vec<u8>, RegistryError> {
    let mut all = Vec::new();
    while let Some(bytes) = stream.next().await {
        all.extend_from_slice(&bytes?);
    }
    assert!(stream.next().await.is_none(), "a stream that ended gave more");
    Ok(all)
}

/// An error with its causes.
pub fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
