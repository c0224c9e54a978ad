//! One look at the whole store: what is there, what is reachable, what is not.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use super::graph::{Marks, Node};
use super::order::referrers_first;
use super::plan::DoomReason;
use super::source::{Picture, facts_now};
use crate::StoreError;
use crate::ingest_files::{self, Found};
use crate::store::Store;
use crate::thing::Thing;

/// The look, and the marks made of it.
pub(super) struct Survey {
    now: SystemTime,
    pub(super) picture: Picture,
    pub(super) marks: Marks,
    ingests: HashMap<Node, Found>,
    /// Images that are looked at as if they were not there.
    without: HashSet<Node>,
}

impl Survey {
    /// Looks at `store` as if the images `without` were not there.
    pub(super) fn take(store: &Store, now: SystemTime, without: &HashSet<Node>) -> Result<Self, StoreError> {
        let found = ingest_files::list(&store.0.layout)?;
        let mut picture = Picture::take(&store.0.metadata, &found, now)?;
        picture.leave_out(without);
        let mut marks = Marks::default();
        let known = |node: &Node| Ok::<_, StoreError>(picture.facts.get(node).cloned());
        marks.mark(picture.roots.iter().cloned(), known, &picture.kept_by)?;
        let ingest = |found: Found| (Node::ingest(&found.namespace, &found.info.reference), found);
        let ingests = found.into_iter().map(ingest).collect();
        Ok(Self { now, picture, marks, ingests, without: without.clone() })
    }

    /// What nothing keeps, as far as is marked, in the order of a sweep.
    pub(super) fn unmarked(&self) -> Vec<Node> {
        let unmarked = self.picture.removable.iter().filter(|node| !self.marks.keeps(node));
        referrers_first(unmarked, &self.picture.facts).into_iter().cloned().collect()
    }

    /// Marks what is reachable from nodes that changed meanwhile. To be called while the gate is closed.
    pub(super) fn mark_touched(&mut self, store: &Store, touched: HashSet<Node>) -> Result<(), StoreError> {
        let touched = touched.into_iter().filter(|node| !self.without.contains(node));
        let facts = |node: &Node| facts_now(&store.0.metadata, node, self.now);
        self.marks.mark(touched, facts, &self.picture.kept_by)
    }

    /// The ingest that a node is.
    pub(super) fn ingest(&self, node: &Node) -> Option<&Found> {
        self.ingests.get(node)
    }

    /// Bytes that a node takes, as far as its record says.
    pub(super) fn bytes(&self, node: &Node) -> u64 {
        self.picture.facts.get(node).map_or(0, |facts| facts.bytes)
    }

    /// Why an unmarked node goes.
    pub(super) fn reason(&self, node: &Node) -> DoomReason {
        match node.thing {
            Thing::Image(_) if self.without.contains(node) => DoomReason::LeastUsed,
            Thing::Image(_) | Thing::Lease(_) | Thing::Ingest(_) => DoomReason::Expired,
            Thing::Blob(_) | Thing::Snapshot { .. } | Thing::Container(_) => DoomReason::Unreferenced,
        }
    }
}
