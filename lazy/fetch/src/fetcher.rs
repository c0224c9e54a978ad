//! [`Fetcher`]: the cache, the queue and the threads of one process.

use std::path::Path;
use std::sync::Arc;

use crate::{Config, FetchError, Image, ImageSpec, Sources};

/// Fetches and keeps the bytes of any number of images.
pub struct Fetcher {
    sources: Arc<dyn Sources>,
}

impl Fetcher {
    /// Opens the cache in `directory`, which is made if it is not there. Asks nothing of the network.
    ///
    /// # Errors
    /// [`FetchError::Cache`], [`FetchError::CacheFormat`], [`FetchError::CacheBusy`]: nothing is changed.
    pub fn open(directory: &Path, config: Config, sources: Arc<dyn Sources>) -> Result<Self, FetchError> {
        let _ = (directory, config);
        Ok(Self { sources })
    }

    /// Adds an image. What it needs is kept in the cache until the last clone of the [`Arc`] is dropped.
    ///
    /// # Errors
    /// [`FetchError::Origins`].
    pub fn image(&self, spec: ImageSpec) -> Result<Arc<Image>, FetchError> {
        let _ = &self.sources;
        Image::new(spec).map(Arc::new)
    }

    /// What happened since the start, as Prometheus text (exposition format 0.0.4).
    pub fn metrics(&self) -> String {
        String::new()
    }
}
