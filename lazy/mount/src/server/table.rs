//! What a server serves, by the number of the connection and by name.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lazy_fetch::Image;
use storage_sys::fuse::Device;

use crate::keeper::protocol::Held;
use crate::protocol::Found;
use crate::session::Session;

/// An image that is served.
#[derive(Clone)]
pub(super) struct Serving {
    pub(super) session: Arc<Session>,
    /// None if its cache or its origins cannot be used.
    pub(super) image: Option<Arc<Image>>,
}

/// A connection: one that has no [`Serving`] is about to have one, or shows an image that cannot be read any more.
struct Entry {
    held: Held,
    device: Arc<Device>,
    serving: Option<Serving>,
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<u64, Entry>,
    names: HashMap<String, u64>,
}

/// All connections.
#[derive(Default)]
pub(super) struct Table(Mutex<Inner>);

impl Table {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing below panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection; its name, if it has it still, stands for it from now on and for no other.
    pub(super) fn insert(&self, held: Held, device: Arc<Device>) {
        let mut inner = self.inner();
        if held.named
            && let Some(before) = inner.names.insert(held.request.name.clone(), held.instance)
            && let Some(entry) = inner.entries.get_mut(&before)
        {
            entry.held.named = before == held.instance;
        }
        inner.entries.insert(held.instance, Entry { held, device, serving: None });
    }

    /// Its image can be read.
    pub(super) fn serve(&self, instance: u64, serving: Serving) {
        if let Some(entry) = self.inner().entries.get_mut(&instance) {
            entry.serving = Some(serving);
        }
    }

    /// Takes a connection out.
    pub(super) fn remove(&self, instance: u64) {
        let mut inner = self.inner();
        inner.entries.remove(&instance);
        inner.names.retain(|_, of| *of != instance);
    }

    /// Changes what a successor would be told, and gives it.
    pub(super) fn change(&self, instance: u64, change: impl FnOnce(&mut Held)) -> Option<Held> {
        let mut inner = self.inner();
        let entry = inner.entries.get_mut(&instance)?;
        change(&mut entry.held);
        Some(entry.held.clone())
    }

    /// Makes a name stand for nothing; what a successor of its connection would be told.
    pub(super) fn forget_name(&self, name: &str) -> Option<Held> {
        let instance = self.inner().names.remove(name)?;
        self.change(instance, |held| held.named = false)
    }

    /// What a name stands for.
    pub(super) fn find(&self, name: &str) -> Option<Found> {
        let inner = self.inner();
        let instance = *inner.names.get(name)?;
        let index = inner.entries.get(&instance)?.held.request.index.clone();
        Some(Found { instance, index })
    }

    /// The image a name stands for, if it can be read.
    pub(super) fn serving(&self, name: &str) -> Option<(u64, Serving)> {
        let inner = self.inner();
        let instance = *inner.names.get(name)?;
        Some((instance, inner.entries.get(&instance)?.serving.clone()?))
    }

    /// All connections with what is known of them, in the order of their numbers.
    pub(super) fn all(&self) -> Vec<(Held, Arc<Device>, Option<Serving>)> {
        let inner = self.inner();
        let entries = inner.entries.values();
        entries.map(|entry| (entry.held.clone(), entry.device.clone(), entry.serving.clone())).collect()
    }

    /// Whether there is nothing to serve.
    pub(super) fn is_empty(&self) -> bool {
        self.inner().entries.is_empty()
    }
}
