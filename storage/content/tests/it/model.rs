//! What a collection must keep, computed in the plainest way: rules applied until nothing changes.

use std::collections::{BTreeMap, BTreeSet};

/// One thing of the model's world: blobs `b0..`, snapshots `s0..`, images `i0..`, containers `c0..`, leases `l0..`.
pub(crate) type Name = String;

/// A world: who keeps whom.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    /// Kept without a keeper.
    pub(crate) roots: BTreeSet<Name>,
    /// Kept by whoever is kept, always (parents, targets, what a lease lists).
    pub(crate) firm: BTreeMap<Name, BTreeSet<Name>>,
    /// Kept by whoever is kept in full (labels).
    pub(crate) soft: BTreeMap<Name, BTreeSet<Name>>,
    /// Leases that keep only what they list.
    pub(crate) flat: BTreeSet<Name>,
}

impl World {
    /// Names that are kept.
    pub(crate) fn kept(&self) -> BTreeSet<Name> {
        let (mut full, mut thin) = (self.roots.clone(), BTreeSet::new());
        loop {
            let before = (full.len(), thin.len());
            for name in full.clone() {
                let firm = self.firm.get(&name).cloned().unwrap_or_default();
                if self.flat.contains(&name) {
                    thin.extend(firm);
                } else {
                    full.extend(firm);
                }
                full.extend(self.soft.get(&name).cloned().unwrap_or_default());
            }
            for name in thin.clone() {
                thin.extend(self.firm.get(&name).cloned().unwrap_or_default());
            }
            if before == (full.len(), thin.len()) {
                return full.union(&thin).cloned().collect();
            }
        }
    }
}
