//! [`Fetcher`]: the cache, the engine and its threads, for one process.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::cache::{Cache, Pins, lock};
use crate::engine::{Engine, Images, start};
use crate::image::Core;
use crate::{Config, FetchError, Image, ImageSpec, Sources};

/// Fetches and keeps the bytes of any number of images.
///
/// Dropping it ends its threads; reads that wait fail with [`FetchError::Closed`], images that are left fail every read of
/// what is not here.
pub struct Fetcher {
    engine: Arc<Engine>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Fetcher {
    /// Opens the cache in `directory`, which is made if it is not there. Asks nothing of the network.
    ///
    /// A process that had the cache and is being killed is waited for, some seconds.
    ///
    /// # Errors
    /// [`FetchError::Cache`], [`FetchError::CacheFormat`], [`FetchError::CacheBusy`], [`FetchError::Threads`].
    pub fn open(directory: &Path, config: Config, sources: Arc<dyn Sources>) -> Result<Self, FetchError> {
        let images = Arc::new(Images::default());
        let cache = Cache::open(directory, &config, Arc::clone(&images) as Arc<dyn Pins>)?;
        let engine = Arc::new(Engine::new(config, cache, images, sources));
        let threads = start(&engine).inspect_err(|_| engine.close())?;
        Ok(Self { engine, threads: Mutex::new(threads) })
    }

    /// Adds an image. What it needs is kept in the cache until the last clone of the [`Arc`] is dropped.
    ///
    /// # Errors
    /// [`FetchError::Origins`].
    pub fn image(&self, spec: ImageSpec) -> Result<Arc<Image>, FetchError> {
        let core = Arc::new(Core::new(spec)?);
        lock(&self.engine.images.0).push(Arc::downgrade(&core));
        Ok(Arc::new(Image { core, engine: Arc::clone(&self.engine) }))
    }

    /// Bytes the cache takes on disk.
    pub fn cache_bytes(&self) -> u64 {
        self.engine.cache.bytes()
    }

    /// What happened since the start, as Prometheus text (exposition format 0.0.4).
    pub fn metrics(&self) -> String {
        self.engine.metrics.text(&self.engine.cache, self.engine.images.open().len())
    }

    /// Ends in order: waiting reads fail, threads end, what was fetched is written back, and the next process may believe
    /// it without comparing. A process that is killed instead loses nothing but that.
    ///
    /// # Errors
    /// [`FetchError::Cache`] if the disk refused.
    pub fn close(&self) -> Result<(), FetchError> {
        self.stop();
        self.engine.cache.close()
    }

    fn stop(&self) {
        self.engine.close();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            // A thread that panicked has told so; the others are waited for all the same.
            let _ = thread.join();
        }
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.stop();
    }
}
