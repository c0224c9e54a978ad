//! Who is bringing which layer: two operations that want one layer do its work once.
//!
//! Each claims all its missing layers in one step. Those another holds already are waited for; since a claim is made
//! whole, one only ever waits for those that claimed before it, and no circle can form.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use snapshotters_contract::CommittedName;
use storage_model::{Digest, Namespace};
use tokio::sync::watch;

type Key = (&'static str, Namespace, CommittedName);

/// All claims of an engine.
#[derive(Clone, Default)]
pub(crate) struct Claims {
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    /// Closed when the claim ends.
    layers: HashMap<Key, watch::Receiver<()>>,
    /// One lock per blob that is being fetched.
    blobs: HashMap<Digest, Weak<tokio::sync::Mutex<()>>>,
}

/// The layers one pull brings, and those it waits for.
pub(crate) struct Claim {
    claims: Claims,
    ours: Vec<Key>,
    theirs: Vec<watch::Receiver<()>>,
    _open: watch::Sender<()>,
}

impl Claims {
    /// Claims `layers`; those that are claimed already are waited for instead.
    pub(crate) fn claim(
        &self,
        snapshotter: &'static str,
        layers: impl Iterator<Item = (Namespace, CommittedName)>,
    ) -> Claim {
        let (sender, receiver) = watch::channel(());
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let mut table = self.lock();
        for (namespace, name) in layers {
            let key = (snapshotter, namespace, name);
            match table.layers.entry(key.clone()) {
                Entry::Vacant(vacant) => {
                    vacant.insert(receiver.clone());
                    ours.push(key);
                }
                Entry::Occupied(taken) => theirs.push(taken.get().clone()),
            }
        }
        drop(table);
        Claim { claims: self.clone(), ours, theirs, _open: sender }
    }

    /// The lock of a blob's download: whoever holds it may fetch; others find the blob afterwards.
    pub(crate) fn blob(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut table = self.lock();
        table.blobs.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = table.blobs.get(digest).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        table.blobs.insert(*digest, Arc::downgrade(&lock));
        lock
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // The table is whole between any two statements, so a panic elsewhere cannot have torn it.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Whether this pull brings `name`.
    pub(crate) fn holds(&self, name: &CommittedName) -> bool {
        self.ours.iter().any(|(_, _, ours)| ours == name)
    }

    /// Waits until every pull that claimed one of our layers before us has ended, well or not.
    pub(crate) async fn wait_for_others(&self) {
        for other in &self.theirs {
            // The only event is the end: the sender is dropped.
            let _ = other.clone().changed().await;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut table = self.claims.lock();
        for key in &self.ours {
            table.layers.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str) -> (Namespace, CommittedName) {
        ("default".parse().unwrap(), name.parse().unwrap())
    }

    #[tokio::test]
    async fn the_second_pull_waits_for_the_first_and_only_for_what_they_share() {
        let claims = Claims::default();
        let first = claims.claim("overlayfs", [layer("a"), layer("b")].into_iter());
        let second = claims.claim("overlayfs", [layer("a"), layer("c")].into_iter());
        assert!(first.holds(&"a".parse().unwrap()) && !second.holds(&"a".parse().unwrap()));
        assert!(second.holds(&"c".parse().unwrap()));
        first.wait_for_others().await;
        let waits = tokio::spawn(async move {
            second.wait_for_others().await;
            second
        });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        drop(first);
        waits.await.unwrap();
    }

    #[tokio::test]
    async fn a_dropped_claim_can_be_taken_again() {
        let claims = Claims::default();
        drop(claims.claim("overlayfs", [layer("a")].into_iter()));
        assert!(claims.claim("overlayfs", [layer("a")].into_iter()).holds(&"a".parse().unwrap()));
    }

    #[test]
    fn one_blob_has_one_lock_while_somebody_holds_it() {
        let claims = Claims::default();
        let digest = Digest::of(b"blob");
        let first = claims.blob(&digest);
        assert!(Arc::ptr_eq(&first, &claims.blob(&digest)));
        assert!(!Arc::ptr_eq(&first, &claims.blob(&Digest::of(b"other"))));
    }
}
