//! Which containers have a task.
//!
//! A name is free, claimed (one caller makes the task, or takes a dead one away) or taken. Claims are exclusive: of two
//! creations of one name, one fails. Nothing here blocks; the lock is held for a look or a change.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use storage_model::Namespace;

use super::TaskError;
use super::live::Task;

type Key = (Namespace, String);

/// The table. Clones are one.
#[derive(Clone, Default)]
pub(crate) struct Table(Arc<Mutex<BTreeMap<Key, Slot>>>);

enum Slot {
    Claimed,
    Taken(Arc<Task>),
}

/// The right to make the task of one name. Dropped unused, the name is free again.
pub(super) struct Claim {
    table: Table,
    key: Option<Key>,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims a name.
    ///
    /// # Errors
    /// [`TaskError::Exists`] if it is claimed or taken.
    pub(super) fn claim(&self, namespace: &Namespace, id: &str) -> Result<Claim, TaskError> {
        let key = (namespace.clone(), id.to_owned());
        match self.lock().entry(key.clone()) {
            Entry::Occupied(_) => Err(TaskError::Exists { id: id.to_owned() }),
            Entry::Vacant(free) => {
                free.insert(Slot::Claimed);
                Ok(Claim { table: self.clone(), key: Some(key) })
            }
        }
    }

    /// The task of a name.
    ///
    /// # Errors
    /// [`TaskError::NoTask`], also while it is being made.
    pub(super) fn get(&self, namespace: &Namespace, id: &str) -> Result<Arc<Task>, TaskError> {
        match self.lock().get(&(namespace.clone(), id.to_owned())) {
            Some(Slot::Taken(task)) => Ok(task.clone()),
            _ => Err(TaskError::NoTask { id: id.to_owned() }),
        }
    }

    /// All tasks of a namespace, by name.
    pub(super) fn all(&self, namespace: &Namespace) -> Vec<Arc<Task>> {
        let table = self.lock();
        let of = table.iter().filter(|((of, _), _)| of == namespace);
        of.filter_map(|(_, slot)| match slot {
            Slot::Taken(task) => Some(task.clone()),
            Slot::Claimed => None,
        })
        .collect()
    }

    /// Takes `task` out and claims its name: whoever gets the claim takes the task away. `None` if somebody else did.
    pub(super) fn reclaim(&self, task: &Arc<Task>) -> Option<Claim> {
        let mut table = self.lock();
        let key = (task.namespace.clone(), task.id().to_owned());
        let its_own = matches!(table.get(&key), Some(Slot::Taken(taken)) if Arc::ptr_eq(taken, task));
        its_own.then(|| {
            table.insert(key.clone(), Slot::Claimed);
            Claim { table: self.clone(), key: Some(key) }
        })
    }
}

impl Claim {
    /// Puts the task in its place.
    pub(super) fn fill(mut self, task: Arc<Task>) {
        if let Some(key) = self.key.take() {
            self.table.lock().insert(key, Slot::Taken(task));
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.table.lock().remove(&key);
        }
    }
}
